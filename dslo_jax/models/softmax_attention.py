"""Softmax attention with several heads, in the order that suits each kind of device.

A CPU computes one head after the other: the scores of one head are held at a time. An
accelerator needs few and large operations, so it computes all heads at once, for as
many photos or rows as ``tuning.SCORES_AT_ONCE`` allows.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dslo_jax import tuning


Tokens = Float[Array, "batch tokens heads head_channels"]
Context = Float[Array, "batch context_tokens heads head_channels"]


def attend(query: Tokens, key: Context, value: Context) -> Tokens:
    """Average the values with softmax(q k^T / sqrt(d)), for each head.

    Scores, softmax and sums are float32.

    Args:
        query: Queries.
        key: Keys.
        value: Values.

    Returns:
        One mean of the values for each query, in the type of the values.

    Memory:
        On a CPU the float32 scores of one head, ``[batch tokens context_tokens]``: 64
        MiB per photo at 4096 tokens, 1 GiB at 16384. Elsewhere at most
        ``tuning.SCORES_AT_ONCE`` scores, or those of one row.
    """
    return tuning.by_platform(
        query,
        key,
        value,
        cpu=by_head,
        gpu=partial(by_rows, at_once=tuning.SCORES_AT_ONCE_GPU),
        other=partial(by_rows, at_once=tuning.SCORES_AT_ONCE),
    )


def by_head(query: Tokens, key: Context, value: Context) -> Tokens:
    """``attend`` for a CPU: one head after the other."""

    def mix(head: Array) -> Float[Array, "batch tokens head_channels"]:
        scores = head_scores(take_head(query, head), take_head(key, head))
        weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
        return jnp.einsum("bqk,bkc->bqc", weights, take_head(value, head))

    return jnp.moveaxis(jax.lax.map(mix, jnp.arange(query.shape[2])), 0, 2)


def by_rows(query: Tokens, key: Context, value: Context, *, at_once: int) -> Tokens:
    """``attend`` for accelerators: all heads at once, some queries after the others.

    Args:
        query: As for ``attend``.
        key: As for ``attend``.
        value: As for ``attend``.
        at_once: Greatest number of scores that are held at once.
    """
    batch, tokens, heads, _ = query.shape
    scores_of_row = heads * key.shape[1]
    if batch * tokens * scores_of_row <= at_once:
        return _at_once(query, key, value)

    def photo(inputs: tuple[Array, Array, Array]) -> Array:
        query, key, value = inputs
        return in_chunks(
            lambda rows: _at_once(rows[None], key[None], value[None])[0],
            query,
            chunk_size(scores_of_row, at_once),
        )

    return jax.lax.map(photo, (query, key, value))


def _at_once(query: Tokens, key: Context, value: Context) -> Tokens:
    weights = jax.nn.softmax(all_scores(query, key), axis=-1).astype(value.dtype)
    return jnp.einsum("bhqk,bkhc->bqhc", weights, value)


def chunk_size(scores_of_row: int, at_once: int) -> int:
    """The number of rows in a chunk: a power of 2, because most grids have such sides.

    Args:
        scores_of_row: Number of scores of a row, of all heads.
        at_once: Greatest number of scores that are held at once.
    """
    return 1 << max(1, at_once // scores_of_row).bit_length() - 1


def in_chunks(function: Callable[[Any], Array], rows: Any, size: int) -> Array:
    """Apply a function to chunks of rows, one chunk after the other.

    Args:
        function: Maps a chunk to an array with as many rows. It is compiled twice if
            ``size`` does not divide the number of rows.
        rows: One array, or a tree of arrays, with rows on the first axis.
        size: Number of rows in a chunk; the last one may be smaller.

    Returns:
        The results of all chunks, joined.
    """
    number = len(jax.tree.leaves(rows)[0])
    whole = number - number % size
    if whole == size == number:
        return function(rows)
    results = []
    if whole:
        chunks = jax.tree.map(lambda x: x[:whole].reshape(-1, size, *x.shape[1:]), rows)
        chunked = jax.lax.map(function, chunks)
        results.append(chunked.reshape(whole, *chunked.shape[2:]))
    if whole < number:
        results.append(function(jax.tree.map(lambda x: x[whole:], rows)))
    return results[0] if len(results) == 1 else jnp.concatenate(results)


def all_scores(
    query: Tokens, key: Context
) -> Float[Array, "batch heads tokens context_tokens"]:
    """The scaled products q k^T / sqrt(d) of all heads, in float32."""
    products = jnp.einsum(
        "bqhc,bkhc->bhqk", query, key, preferred_element_type=jnp.float32
    )
    return products / math.sqrt(query.shape[-1])


def head_scores(
    query: Float[Array, "batch tokens head_channels"],
    key: Float[Array, "batch context_tokens head_channels"],
) -> Float[Array, "batch tokens context_tokens"]:
    """The scaled products q k^T / sqrt(d) of one head, in float32.

    Args:
        query: Queries of one head, of any floating type.
        key: Keys of the same head.

    Returns:
        The scores before the softmax.

    Memory:
        The result: 64 MiB per photo at 4096 tokens, 1 GiB at 16384.
    """
    products = jnp.einsum(
        "bqc,bkc->bqk", query, key, preferred_element_type=jnp.float32
    )
    return products / math.sqrt(query.shape[-1])


def take_head(
    by_head: Float[Array, "batch tokens heads head_channels"], head: Int[Array, ""]
) -> Float[Array, "batch tokens head_channels"]:
    """One head of queries, keys or values; ``head`` may be the index of a loop."""
    return jax.lax.dynamic_index_in_dim(by_head, head, axis=2, keepdims=False)
