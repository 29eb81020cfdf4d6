"""Products at full precision, and vectors in parts for sums that are more exact."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def multiply(left: Array, right: Array) -> Array:
    """The matrix product in float32, also where a device would round its factors."""
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)


def in_parts(vector: Float[Array, " k"], count: int) -> Float[Array, "{count} k"]:
    """So many vectors that add up to this one, each with a stretch of its entries.

    A product with all of them, summed up, is the product with the vector.
    """
    part = jnp.arange(vector.size) * count // vector.size
    return jnp.where(part[None] == jnp.arange(count)[:, None], vector, 0)
