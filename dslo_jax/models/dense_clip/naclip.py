"""NACLIP: keys attend to keys, with a preference for patches that are near.

Hajimiri, Ben Ayed, Dolz: Pay Attention to Your Neighbours: Training-Free Open-
Vocabulary Semantic Segmentation, WACV 2025 (arXiv 2404.08181); sinahmr/NACLIP,
clip/model.py and naclip.py.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from dslo_jax.models.clip_layers import attention_weights, weighted_mean
from dslo_jax.models.dense_clip.clearclip import work_of_attention
from dslo_jax.models.dense_clip.vanilla import before_last
from dslo_jax.models.dense_clip.variant import (
    DenseInput,
    Layers,
    PatchTokens,
    Variant,
)


# Standard deviation of the Gaussian in patches: ``gaussian_std`` in naclip.py.
_STD = 5.0


def _run(layers: Layers, photos: DenseInput) -> PatchTokens:
    """Reduce the last block to its attention: softmax(k k.T + nearness).

    The products have the scale of CLIP. The nearness exp(-d^2 / (2 std^2)) of two
    patches at a distance of d patches is added as it is; it is 0 for the class token,
    which is one of the columns. There is no residual and no MLP (``arch="reduced"``).
    """
    last = layers[-1]
    heads = last.heads(before_last(layers, photos))
    # The class token is one of the columns.
    bias = jnp.pad(nearness(photos), ((0, 0), (0, 0), (1, 0)))[:, None]
    weights = attention_weights(heads.key[:, :, 1:], heads.key, photos.mask, bias)
    return last.self_attn.join(weighted_mean(weights, heads.value))


def nearness(photos: DenseInput) -> Float[Array, "#batch patches patches"]:
    """Nearness exp(-d^2 / (2 std^2)) of every patch to every patch."""
    differences = [place[:, :, None] - place[:, None] for place in photos.places]
    squares = sum(difference.astype(jnp.float32) ** 2 for difference in differences)
    return jnp.exp(squares / (-2 * _STD**2))


NACLIP = Variant(_run, work_of_attention)
