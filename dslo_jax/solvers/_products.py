"""Matrix products at full precision, and sums in parts, which are more exact."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from dslo_jax import tuning
from dslo_jax.solvers._arguments import compute_dtype


def multiply(left: Array, right: Array) -> Array:
    """The matrix product in float32, also on devices that would round its factors.

    A narrower factor is widened. GPUs and TPUs widen it as they read it.
    """
    dtype = compute_dtype(left, right)
    precision = jax.lax.Precision.HIGHEST
    return jnp.matmul(left.astype(dtype), right.astype(dtype), precision=precision)


def in_parts(vector: Float[Array, " k"], count: int) -> Float[Array, "{count} k"]:
    """Split a vector into ``count`` vectors, each with one part of its entries, else 0.

    The sum of the products with all of them is the product with the vector.
    """
    part = jnp.arange(vector.size) * count // vector.size
    return jnp.where(part[None] == jnp.arange(count)[:, None], vector, 0)


def row_by_parts(
    row: Float[Array, " rows"], matrix: Float[Array, "rows columns"]
) -> Float[Array, " columns"]:
    """``row @ matrix``, as a product of several rows that are added."""
    return jnp.sum(multiply(in_parts(row, tuning.SUM_PARTS), matrix), axis=0)


def column_by_parts(
    matrix: Float[Array, "rows columns"], column: Float[Array, " columns"]
) -> Float[Array, " rows"]:
    """``matrix @ column``, as a product of several columns that are added."""
    return jnp.sum(multiply(matrix, in_parts(column, tuning.SUM_PARTS).T), axis=1)


def widened_on_cpu(
    solve: Callable[..., Any], affinity: Array, *args: Any, dtype: DTypeLike
) -> Any:
    """Call ``solve(affinity, *args)``; on a CPU the affinity has type ``dtype``.

    A CPU widens an affinity narrower than float32 once. GPUs and TPUs widen it in every
    product, as they read it: so they read fewer bytes and hold no copy.
    """
    if affinity.dtype == dtype or dtype != jnp.float32:
        return solve(affinity.astype(dtype), *args)

    def widened(affinity: Array, *args: Any) -> Any:
        # Without the barrier it would be widened again for products of blocks.
        wide = jax.lax.optimization_barrier(affinity.astype(dtype))
        return solve(wide, *args)

    return tuning.by_platform(affinity, *args, cpu=widened, other=solve)
