"""The layer norm of every transformer in this package.

The layer norm of flax computes the variance by another formula, and refuses half
precision under strict type promotion.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float


class LayerNorm(nnx.Module):
    """Standardise every token over its channels, then scale and shift.

    Computed in float32 around the mean, as torch does; the result has the type of the
    tokens.

    Args:
        channels: Channels of a token.
        epsilon: Added to the variance.
    """

    def __init__(self, channels: int, *, epsilon: float):
        self.epsilon = epsilon
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))

    def __call__(
        self, hidden: Float[Array, "batch tokens channels"]
    ) -> Float[Array, "batch tokens channels"]:
        """Normalise tokens."""
        scale, bias = (
            parameter[...].astype(jnp.float32)[None, None]
            for parameter in (self.scale, self.bias)
        )
        centred = hidden.astype(jnp.float32)
        centred = centred - centred.mean(axis=-1, keepdims=True)
        variance = jnp.square(centred).mean(axis=-1, keepdims=True)
        normalised = centred * jax.lax.rsqrt(variance + self.epsilon)
        return (normalised * scale + bias).astype(hidden.dtype)
