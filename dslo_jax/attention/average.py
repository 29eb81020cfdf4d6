"""Mean of self-attention maps over heads and layers, one map in memory at a time."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dslo_jax.errors import OptionError
from dslo_jax.models.diffusion_layers import attention_scores, take_head
from dslo_jax.models.query_key import QueryKey


def average_attention(
    queries_keys: Sequence[QueryKey],
    weights: Sequence[float],
    *,
    temperature: float = 1.0,
) -> Float[Array, "batch patches patches"]:
    """Average self-attention maps over heads and layers, with weights.

    A = sum over layers of weight * mean over heads of softmax(q k^T / sqrt(d)), each
    row divided by its sum. The maps are added up one at a time.

    Where there are more keys than queries, the first ones are those of tokens that are
    not patches (a class token, registers). They take part in the softmax of every head
    and are left out after it, so that a head which attends mostly to them has little
    weight. (With a softmax over the patches alone, all heads would have the same
    weight.)

    Args:
        queries_keys: Queries and keys of each layer, all on the same patches; heads,
            channels and types may differ.
        weights: One weight per layer, not negative, not all zero.
        temperature: t > 0 replaces A by A^(1/t), rows divided by their sum again:
            values below 1 sharpen, values above 1 soften, 1 changes nothing.

    Returns:
        The affinity in float32; rows sum to 1.

    Raises:
        ValueError: The lengths differ, a weight is negative, all are zero, or
            ``temperature`` is not positive.

    Memory:
        The result and one temporary of the same size: 2 x 64 MiB per photo at 4096
        patches, 2 x 1 GiB at 16384.
    """
    if len(queries_keys) != len(weights):
        raise ValueError(
            f"`weights` has {len(weights)} entries, expected one for each of the "
            f"{len(queries_keys)} layers"
        )
    check_weights(weights)
    if not temperature > 0:
        raise ValueError(f"`temperature` is {temperature}, expected a positive number")
    batch, patches = queries_keys[0].query.shape[:2]
    affinity = jnp.zeros((batch, patches, patches), jnp.float32)
    for (query, key), weight in zip(queries_keys, weights, strict=True):
        affinity = _add_heads(affinity, query, key, weight / query.shape[2])
    if temperature != 1:
        # Each row is first scaled to maximum 1, so that the power cannot underflow to 0
        # in a whole row.
        peak = affinity.max(axis=-1, keepdims=True)
        affinity = (affinity / peak) ** (1 / temperature)
    return affinity / affinity.sum(axis=-1, keepdims=True)


def _add_heads(
    affinity: Float[Array, "batch patches patches"],
    query: Float[Array, "batch patches heads head_channels"],
    key: Float[Array, "batch tokens heads head_channels"],
    weight: float,
) -> Float[Array, "batch patches patches"]:
    """Add the weighted map of every head, one at a time."""
    others = key.shape[1] - query.shape[1]

    def add(affinity: Array, head: Array) -> tuple[Array, None]:
        scores = attention_scores(take_head(query, head), take_head(key, head))
        attention = jax.nn.softmax(scores, axis=-1)[:, :, others:]
        return affinity + weight * attention, None

    return jax.lax.scan(add, affinity, jnp.arange(query.shape[2]))[0]


def check_weights(weights: Sequence[float]) -> None:
    """Refuse (``O01``) weights that are negative or all zero."""
    if not sum(weights) > 0 or min(weights) < 0:
        raise OptionError(
            "O01",
            f"`weights` is {tuple(weights)}, expected numbers that are not negative "
            "and not all zero",
        )
