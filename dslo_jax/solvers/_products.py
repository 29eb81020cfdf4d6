"""Matrix products at full precision, and sums in parts, which are more exact."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def multiply(left: Array, right: Array) -> Array:
    """The matrix product in float32, also on devices that would round its factors."""
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)


def in_parts(vector: Float[Array, " k"], count: int) -> Float[Array, "{count} k"]:
    """Split a vector into ``count`` vectors, each with one part of its entries, else 0.

    The sum of the products with all of them is the product with the vector.
    """
    part = jnp.arange(vector.size) * count // vector.size
    return jnp.where(part[None] == jnp.arange(count)[:, None], vector, 0)
