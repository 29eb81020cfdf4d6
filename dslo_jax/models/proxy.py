"""DINO or DINOv2 as the proxy of a CLIP: features of patches that come in sequences.

CLIP knows words, DINO knows which patches belong together. Some variants of CLIP's last
block therefore let the features of a DINO, the proxy, decide which patches are mixed.
"""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from dslo_jax.models.clip_layers import (
    Heads,
    Mask,
    attention_weights,
    weighted_mean,
)
from dslo_jax.models.dense_clip.variant import ProxyFeatures
from dslo_jax.models.layer_norm import LayerNorm
from dslo_jax.models.vit import Vit, load_vit
from dslo_jax.models.vit_config import VitConfig
from dslo_jax.models.vit_layers import normalise_pixels
from dslo_jax.ops.patches import Patches
from dslo_jax.ops.resize import antialiased_weights, position_weights


class ProxyVit(Vit):
    """A DINO or DINOv2 with its last layer norm.

    Args:
        config: Sizes and pixel statistics.
        rngs: Streams that initialise the parameters.
    """

    def __init__(self, config: VitConfig, *, rngs: nnx.Rngs):
        super().__init__(config, rngs=rngs)
        self.layernorm = LayerNorm(config.hidden_size, epsilon=config.layer_norm_eps)

    def __call__(
        self, pixels: Float[Array, "batch height width 3"]
    ) -> Float[Array, "batch tokens channels"]:
        """All tokens after the last layer norm: class token, registers, patches.

        Args:
            pixels: RGB in [0, 1], of any size from one patch upwards.
        """
        return self._run(self.embeddings(pixels), None)[0]

    def of_patches(self, patches: Patches) -> ProxyFeatures:
        """Features and keys of the patches of photos that are cut into patches.

        The padding of a sequence changes nothing of its patches: no token attends to
        it. A padded patch has the features of the last patch.

        Args:
            patches: Photos with RGB in [0, 1].

        Memory:
            4 * batch * (patches + 1)**2 bytes for the attention of one head: 22 MB for
            336 x 448 pixels and patches of 8, 460 MB for the longest panorama.
        """
        others = self.others
        real = patches.is_real
        mask = jnp.pad(real, ((0, 0), (others, 0)), constant_values=True)[:, None]
        tokens, heads = self._run(self._embed(patches), mask)
        return ProxyFeatures(
            tokens[:, others:],
            heads.key[:, :, others:],
            real,
            jnp.asarray(patches.grid),
        )

    def _run(
        self, hidden: Float[Array, "batch tokens channels"], mask: Mask | None
    ) -> tuple[Float[Array, "batch tokens channels"], Heads]:
        """Run all blocks; returns the tokens, and the heads of the last block."""
        heads = None
        for layer in self.layers:
            heads = layer.heads(hidden)
            hidden = hidden + layer.self_attn.join(_mean_by_head(heads, mask))
            hidden = hidden + layer.mlp(layer.layer_norm2(hidden))
        assert heads is not None  # a network has at least one block
        return self.layernorm(hidden), heads

    def _embed(self, patches: Patches) -> Float[Array, "batch tokens channels"]:
        """As ``embeddings``, for photos that are cut into patches."""
        parts = self.embeddings
        batch, count, side = patches.pixels.shape[:3]
        strip = jnp.reshape(patches.pixels, (batch, count * side, side, 3))  # a column
        normalised = normalise_pixels(strip, self.config)
        dtype = parts.cls_token[...].dtype
        embedded = parts.patch_embedding(normalised.astype(dtype))[:, :, 0]
        lone = [parts.cls_token[...] + parts.position_embeddings[...][:, :1]]
        if self.config.num_register_tokens:
            lone.append(parts.register_tokens[...])
        lone = jnp.concatenate(lone, axis=1)
        lone = jnp.broadcast_to(lone, (batch, *lone.shape[1:]))
        return jnp.concatenate([lone, embedded + self._positions_of(patches)], axis=1)

    def _positions_of(self, patches: Patches) -> Float[Array, "batch patches channels"]:
        """Positions of the patches; the grid of each photo is data."""
        trained = self.embeddings.position_embeddings[...][0, 1:]
        side = self.config.grid_size
        if self.config.antialias:
            weights_of = antialiased_weights
        else:
            weights_of = partial(position_weights, tenths=0)
        grid = jnp.asarray(patches.grid)
        rows, columns = (
            weights_of(place, grid[:, axis, None], side)
            for axis, place in enumerate(patches.places)
        )
        batch, count, _ = rows.shape
        weights = rows[..., :, None] * columns[..., None, :]
        resized = jnp.einsum(
            "bpn,nd->bpd",
            weights.reshape(batch, count, side * side),
            trained.astype(jnp.float32),
            precision=jax.lax.Precision.HIGHEST,
        )
        return resized.astype(trained.dtype)


def load_proxy(folder: Path, *, dtype: jax.typing.DTypeLike = jnp.float32) -> ProxyVit:
    """Load a DINO or DINOv2 with its last layer norm.

    Args:
        folder: As for ``load_vit``.
        dtype: As for ``load_vit``.

    Raises:
        CheckpointError: The folder is missing, damaged, or not of this kind.
    """
    network = load_vit(folder, dtype=dtype, network=ProxyVit)
    assert isinstance(network, ProxyVit)
    return network


def _mean_by_head(
    heads: Heads, mask: Mask | None
) -> Float[Array, "batch heads tokens size"]:
    """Average the values of one head after the other, so that one is held at a time."""

    def mean(head: Heads) -> Float[Array, "batch tokens size"]:
        query, key, value = (part[:, None] for part in head)
        return weighted_mean(attention_weights(query, key, mask), value)[:, 0]

    mixed = jax.lax.map(mean, Heads(*(jnp.moveaxis(part, 1, 0) for part in heads)))
    return jnp.moveaxis(mixed, 0, 1)
