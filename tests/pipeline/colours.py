"""Stand-ins for networks that see colours; networks with random weights find one class.

The letters of a name decide which colours it fits, and patches of one colour attend to
each other.
"""

import jax
import jax.numpy as jnp

from dslo_jax.attention import AffinityOptions, AffinitySource
from dslo_jax.cost import Work
from dslo_jax.logits import LogitsSource
from dslo_jax.pipeline import Networks


PATCH = 8
_LETTERS = 256  # the tokens of a byte are the byte, and the byte at the end of a word


def colours(pixels):
    """Mean colour of every patch of photos, around 0."""
    batch, height, width, _ = pixels.shape
    shape = (batch, height // PATCH, PATCH, width // PATCH, PATCH, 3)
    return pixels.reshape(shape).mean(axis=(2, 4)) - 0.5


def unit(features):
    return features / jnp.linalg.norm(features, axis=-1, keepdims=True)


class ColourLogits(LogitsSource):
    """A random direction in the space of colours for each set of letters."""

    patch_size = PATCH

    def embed(self, ids):
        letters = jnp.where(ids < 2 * _LETTERS, ids % _LETTERS, 0)  # no special tokens
        seeds = jnp.sum(letters**2, axis=1)  # whatever their order
        keys = jax.vmap(jax.random.key)(seeds)
        return unit(jax.vmap(lambda key: jax.random.normal(key, (6,)))(keys))

    def features(self, patches, attention):
        seen = patches.pixels.mean(axis=(2, 3)) - 0.5
        return unit(jnp.concatenate([seen, seen**2 - 0.1], axis=-1))

    def embed_work(self, prompts, tokens):
        return Work()

    def features_work(self, patches, attention):
        return Work()

    def networks(self):
        return {}


class ColourAffinity(AffinitySource):
    """Attention between patches of one colour."""

    downscaling = PATCH

    @property
    def encoding(self):
        return (self.options.size,)

    def __init__(self, options=AffinityOptions()):
        self.options = options

    @classmethod
    def load(cls, place, *, dtype=jnp.float32, options=AffinityOptions()):
        return cls(options)

    def encode(self, pixels):
        self.require_size(pixels)
        return colours(pixels).reshape(len(pixels), -1, 3)

    def attend(self, encoded):
        change = ((encoded[:, :, None] - encoded[:, None]) ** 2).sum(axis=-1)
        weights = jnp.exp(-change / 0.05) + 1e-3
        return weights / weights.sum(axis=-1, keepdims=True)

    def with_options(self, options):
        return ColourAffinity(options)

    def networks(self):
        return {}

    def work(self):
        return {}


def colour_networks(tokenizer, affinities=None):
    """Networks of colours, their affinity or others, with anybody's tokenizer."""
    affinities = ColourAffinity() if affinities is None else affinities
    return Networks(ColourLogits(), tokenizer, affinities)
