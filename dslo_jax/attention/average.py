"""Mean of self-attention maps over heads and layers, in bounded memory."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dslo_jax import tuning
from dslo_jax.attention.layers import check_weights
from dslo_jax.models.query_key import QueryKey
from dslo_jax.models.softmax_attention import (
    all_scores,
    chunk_size,
    head_scores,
    in_chunks,
    take_head,
)


Affinity = Float[Array, "batch patches patches"]


def average_attention(
    queries_keys: Sequence[QueryKey],
    weights: Sequence[float],
    *,
    temperature: float = 1.0,
) -> Affinity:
    """Average self-attention maps over heads and layers, with weights.

    A = sum over layers of weight * mean over heads of softmax(q k^T / sqrt(d)), each
    row divided by its sum.

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
        On a CPU the result and one temporary of the same size, because the maps are
        added up one at a time: 2 x 64 MiB per photo at 4096 patches, 2 x 1 GiB at
        16384. Elsewhere the result, and ``tuning.SCORES_AT_ONCE`` scores.
    """
    if len(queries_keys) != len(weights):
        raise ValueError(
            f"`weights` has {len(weights)} entries, expected one for each of the "
            f"{len(queries_keys)} layers"
        )
    check_weights(weights)
    if not temperature > 0:
        raise ValueError(f"`temperature` is {temperature}, expected a positive number")
    options = {"weights": tuple(weights), "temperature": temperature}
    rows = partial(by_rows, **options)
    return tuning.by_platform(
        tuple(queries_keys),
        cpu=partial(by_head, **options),
        gpu=partial(rows, at_once=tuning.SCORES_AT_ONCE_GPU),
        other=partial(rows, at_once=tuning.SCORES_AT_ONCE),
    )


def by_head(
    queries_keys: tuple[QueryKey, ...],
    *,
    weights: tuple[float, ...],
    temperature: float,
) -> Affinity:
    """``average_attention`` for a CPU: the maps are added up one at a time."""
    batch, patches = queries_keys[0].query.shape[:2]
    affinity = jnp.zeros((batch, patches, patches), jnp.float32)
    for (query, key), weight in zip(queries_keys, weights, strict=True):
        affinity = _add_heads(affinity, query, key, weight / query.shape[2])
    return _divided(affinity, temperature)


def by_rows(
    queries_keys: tuple[QueryKey, ...],
    *,
    weights: tuple[float, ...],
    temperature: float,
    at_once: int,
) -> Affinity:
    """``average_attention`` for accelerators: all maps at once, by chunks of rows."""
    total = sum(weights)
    is_divided = temperature == 1 and all(
        query.shape[1] == key.shape[1] for query, key in queries_keys
    )  # the rows of a softmax over patches alone sum to 1 already

    def photo(queries_keys: tuple[QueryKey, ...]) -> Array:
        queries, keys = zip(*queries_keys, strict=True)

        def rows(queries: tuple[Array, ...]) -> Float[Array, "rows patches"]:
            found = jnp.float32(0)
            for query, key, weight in zip(queries, keys, weights, strict=True):
                maps = jax.nn.softmax(all_scores(query[None], key[None])[0], axis=-1)
                patches = maps[:, :, len(key) - num_patches :]
                found += weight / total / len(maps) * patches.sum(axis=0)
            return found if is_divided else _divided(found, temperature)

        num_patches = len(queries[0])
        scores = sum(key.shape[0] * key.shape[1] for key in keys)
        return in_chunks(rows, queries, chunk_size(scores, at_once))

    return jax.lax.map(photo, queries_keys)


def _divided(
    rows: Float[Array, "*rows patches"], temperature: float
) -> Float[Array, "*rows patches"]:
    """Take the power of the temperature, and divide each row by its sum."""
    if temperature != 1:
        # Each row is first scaled to maximum 1, so that the power cannot underflow to 0
        # in a whole row.
        peak = rows.max(axis=-1, keepdims=True)
        rows = (rows / peak) ** (1 / temperature)
    return rows / rows.sum(axis=-1, keepdims=True)


def _add_heads(
    affinity: Affinity,
    query: Float[Array, "batch patches heads head_channels"],
    key: Float[Array, "batch tokens heads head_channels"],
    weight: float,
) -> Affinity:
    """Add the weighted map of every head, one at a time."""
    others = key.shape[1] - query.shape[1]

    def add(affinity: Array, head: Array) -> tuple[Array, None]:
        scores = head_scores(take_head(query, head), take_head(key, head))
        attention = jax.nn.softmax(scores, axis=-1)[:, :, others:]
        return affinity + weight * attention, None

    return jax.lax.scan(add, affinity, jnp.arange(query.shape[2]))[0]
