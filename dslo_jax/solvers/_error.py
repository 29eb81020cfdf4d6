"""How far scalings are from the solution, told from how they change step by step.

A step contracts Hilbert's metric, so what is left after a change is at most
``change * k / (1 - k)`` (Banach). Rounding adds an error of its own to every step,
which the steps that follow contract in the same way. ``docs/solvers/theory.md`` derives
both.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float


_NEAR = 2.0
"""Largest change whose ratio to the next one tells how fast the steps converge.

A change is a logarithm. From far away the steps are not yet linear: where costs span
1000 epsilon, a change of 900 was followed by one of 0.14, and that by hundreds alike.
"""


class Estimate(NamedTuple):
    """What the steps of a class have told so far; part of the state of a loop.

    Attributes:
        change: Of the last step, in Hilbert's metric.
        previous: Of the step before; infinite before there is one.
        rounding: By how much rounding alone may change the scalings in a step.
        ratio: Of a change to the one before, as far as rounding lets it be seen; 1 as
            long as nothing is known.
    """

    change: Float[Array, "..."]
    previous: Float[Array, "..."]
    rounding: Float[Array, "..."]
    ratio: Float[Array, "..."]

    @property
    def is_stalled(self) -> Bool[Array, "..."]:
        """True where the changes are rounding errors, and no longer get smaller."""
        return (self.change <= self.rounding) & (self.change >= self.previous)

    def after(
        self, change: Float[Array, "..."], rounding: Float[Array, "..."]
    ) -> "Estimate":
        """With one more step.

        Each change is known up to ``rounding``, and so their ratio lies in an interval;
        the ratio of the steps before is kept where it lies in it. Among rounding errors
        the interval holds everything, and the ratio stays what it was before.
        """
        # Nothing in here has a gradient; that of a root would be infinite at 0.
        last, change, rounding = jax.lax.stop_gradient((self, change, rounding))
        least = jnp.maximum(change - rounding, 0) / (last.change + rounding)
        # From far away a ratio tells nothing, unless the step arrived at once.
        tells = (last.change <= _NEAR) | (change <= rounding)
        divisor = jnp.minimum(last.change, _NEAR) - rounding
        tells &= divisor > 0
        most = jnp.where(tells, change + rounding, jnp.inf)
        most /= jnp.where(tells, divisor, 1)
        ratio = jnp.minimum(jnp.clip(last.ratio, least, most), 1)
        return Estimate(change, last.change, rounding, ratio)

    def error(self, log_range: Float[Array, "..."]) -> Float[Array, "..."]:
        """The distance that is left, and what rounding adds to it.

        A kernel whose logarithm spans ``r`` contracts by a factor of at most
        ``k = tanh(r / 2)`` (Birkhoff); then k / (1 - k) = (exp(r) - 1) / 2. Scalings of
        columns are sums over the kernel, so that any two are at most ``2 r`` apart.

        The ratio of two changes is the factor of a whole step, two applications of the
        kernel. The first ratio, from an arbitrary start, was up to 7 times smaller than
        the later ones on our scenes; its root counts on one application only.
        """
        factor = jnp.sqrt(self.ratio)
        is_known = factor < 1
        observed = jnp.where(
            is_known, factor / jnp.where(is_known, 1 - factor, 1), jnp.inf
        )
        left = jnp.minimum(observed, jnp.expm1(log_range) / 2)
        left *= self.change + self.rounding
        return jnp.minimum(left, 2 * log_range) + self.rounding


def begin_estimate(shape: tuple[int, ...], dtype: DTypeLike) -> Estimate:
    """Before any step."""
    zeros = jnp.zeros(shape, dtype)
    return Estimate(
        zeros, jnp.full(shape, jnp.inf, dtype), zeros, jnp.ones(shape, dtype)
    )
