"""Steps that all vision transformers share: pixel statistics, queries and keys."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dslo_jax.models.clip_config import ClipVisionConfig
from dslo_jax.models.clip_layers import EncoderLayer, Heads
from dslo_jax.models.query_key import QueryKey
from dslo_jax.models.softmax_attention import attend


Tokens = Float[Array, "batch tokens channels"]


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


def look_at_block(
    layer: EncoderLayer, hidden: Tokens
) -> tuple[QueryKey, Callable[[], Tokens]]:
    """Queries and keys of a block of CLIP, and a function that computes the rest."""
    heads = Heads(*(each.transpose(0, 2, 1, 3) for each in layer.heads(hidden)))

    def rest() -> Tokens:
        mixed = attend(*heads).transpose(0, 2, 1, 3)
        after = hidden + layer.self_attn.join(mixed)
        return after + layer.mlp(layer.layer_norm2(after))

    return QueryKey(heads.query, heads.key), rest


def queries_keys(
    layers: Sequence[Any],
    hidden: Tokens,
    wanted: tuple[int, ...],
    *,
    others: int,
    look: Callable[
        [Any, Tokens], tuple[QueryKey, Callable[[], Tokens]]
    ] = look_at_block,
) -> tuple[QueryKey, ...]:
    """Compute queries and keys of some blocks, and no block after the last of them.

    Args:
        layers: The blocks of a transformer.
        hidden: Embedded tokens; the first ``others`` are not patches.
        wanted: Indices of blocks, in any order.
        others: Number of tokens that are not patches: class token and registers.
        look: Function of a block and its tokens to queries and keys of all tokens, and
            to a function that computes the tokens after the block.

    Returns:
        For each wanted block the queries of the patches, and the keys of *all* tokens:
        the class token and the registers take part in every softmax.

    Memory:
        See ``softmax_attention.attend``.
    """
    found: dict[int, QueryKey] = {}
    for index, layer in zip(range(max(wanted) + 1), layers, strict=False):
        pair, rest = look(layer, hidden)
        if index in wanted:
            found[index] = QueryKey(pair.query[:, others:], pair.key)
        if index < max(wanted):
            hidden = rest()
    return tuple(found[index] for index in wanted)
