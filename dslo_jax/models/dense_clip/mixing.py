"""Averages of values with several attentions, one after the other."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dslo_jax.models.clip_layers import Mask, attention_weights, weighted_mean


Vectors = Float[Array, "batch heads tokens size"]
Values = Float[Array, "batch heads tokens channels"]


def sum_of_averages(
    pairs: Sequence[tuple[Vectors, Vectors]], value: Values, mask: Mask | None
) -> Values:
    """Average the values with the attention of each pair, and add up the averages.

    Only the weights of one pair are held at a time. The loop is a ``scan``, because an
    unrolled loop would hold all weights until its end.

    Args:
        pairs: Vectors that are compared: rows and columns of ``attention_weights``.
        value: Values of the tokens.
        mask: As for ``attention_weights``.

    Returns:
        Float32 sums.
    """

    def add(mixed: Array, pair: tuple[Array, Array]) -> tuple[Array, None]:
        return mixed + weighted_mean(attention_weights(*pair, mask), value), None

    rows, columns = (jnp.stack(part) for part in zip(*pairs, strict=True))
    mixed, _ = jax.lax.scan(add, jnp.zeros(value.shape, jnp.float32), (rows, columns))
    return mixed
