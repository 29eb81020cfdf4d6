"""Steps that all vision transformers share: pixel statistics, queries and keys."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dslo_jax.models.clip_config import ClipVisionConfig
from dslo_jax.models.clip_layers import EncoderLayer, Heads
from dslo_jax.models.query_key import QueryKey
from dslo_jax.models.softmax_attention import attend


def normalise_pixels(
    pixels: Float[Array, "batch height width 3"], config: ClipVisionConfig
) -> Float[Array, "batch height width 3"]:
    """Standardise photos with the pixel statistics of a network.

    Args:
        pixels: RGB in [0, 1].
        config: Holds mean and standard deviation.

    Returns:
        Float32 pixels.
    """
    mean = np.asarray(config.pixel_mean, np.float32)
    std = np.asarray(config.pixel_std, np.float32)
    return (pixels.astype(jnp.float32) - mean[None, None, None]) / std[None, None, None]


def queries_keys(
    layers: Sequence[EncoderLayer],
    hidden: Float[Array, "batch tokens channels"],
    wanted: tuple[int, ...],
    *,
    others: int,
) -> tuple[QueryKey, ...]:
    """Compute queries and keys of some blocks, and no block after the last of them.

    Args:
        layers: The blocks of a transformer.
        hidden: Embedded tokens; the first ``others`` are not patches.
        wanted: Indices of blocks, in any order.
        others: Number of tokens that are not patches: class token and registers.

    Returns:
        For each wanted block the queries of the patches, and the keys of *all* tokens:
        the class token and the registers take part in every softmax.

    Memory:
        See ``softmax_attention.attend``.
    """
    found: dict[int, QueryKey] = {}
    for index, layer in zip(range(max(wanted) + 1), layers, strict=False):
        heads = layer.heads(hidden)
        if index in wanted:
            query, key = (x.transpose(0, 2, 1, 3) for x in (heads.query, heads.key))
            found[index] = QueryKey(query[:, others:], key)
        if index < max(wanted):
            hidden = hidden + layer.self_attn.join(_mean(heads))
            hidden = hidden + layer.mlp(layer.layer_norm2(hidden))
    return tuple(found[index] for index in wanted)


def _mean(heads: Heads) -> Float[Array, "batch heads tokens size"]:
    """Average the values of a block with its attention."""
    mixed = attend(*(x.transpose(0, 2, 1, 3) for x in heads))
    return mixed.transpose(0, 2, 1, 3)
