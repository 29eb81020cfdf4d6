"""Two discrepancies in one map (row VII of Table 2)."""

from dataclasses import dataclass, field
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from dslo_jax.solvers.contract import solve_image
from dslo_jax.solvers.discrepancy import Counts, Discrepancy
from dslo_jax.solvers.path import OptimalPath
from dslo_jax.solvers.solution import Solution, choose_reason
from dslo_jax.solvers.velocity import MaximumVelocity


@dataclass(frozen=True)
class Fused(Discrepancy):
    """Mean of two maps, each scaled to [0, 1] over the classes that were solved.

    Args:
        first: Any discrepancy.
        second: Any discrepancy.

    Raises:
        ValueError: One takes logits, and the other takes distributions.
    """

    name: ClassVar[str] = "fused"

    first: Discrepancy = field(default_factory=OptimalPath)
    second: Discrepancy = field(default_factory=MaximumVelocity)

    def __post_init__(self):
        if self.first.takes_logits != self.second.takes_logits:
            raise ValueError(
                f"`first` is {self.first.name!r} and `second` {self.second.name!r}: "
                "one takes logits, the other distributions; fuse two of a kind"
            )

    @property
    def needs_affinity(self) -> bool:
        """Whether one of the two needs it."""
        return self.first.needs_affinity or self.second.needs_affinity

    @property
    def takes_logits(self) -> bool:
        """Whether both take logits."""
        return self.first.takes_logits

    @property
    def wants_counts(self) -> bool:
        """Whether one of the two wants them."""
        return self.first.wants_counts or self.second.wants_counts

    def fitted(self, counts: Counts) -> "Fused":
        """Both discrepancies, fitted."""
        return Fused(self.first.fitted(counts), self.second.fitted(counts))

    @property
    def attempts(self) -> "tuple[Fused, ...]":
        """Pairs of the attempts of both; the shorter list repeats its last one."""
        first, second = self.first.attempts, self.second.attempts
        count = max(len(first), len(second))
        pairs = zip(
            first + first[-1:] * (count - len(first)),
            second + second[-1:] * (count - len(second)),
            strict=True,
        )
        return tuple(Fused(*pair) for pair in pairs)

    def solve(
        self,
        source: Float[Array | np.ndarray, "classes patches"],
        affinity: Float[Array | np.ndarray, "patches patches"] | None = None,
    ) -> Solution:
        """Solve both.

        A class that one of them did not solve is not solved, and so is a row of zeros
        (see ``Discrepancy.solve``).

        Returns:
            The mean map; the sum of the steps; the greater error, although the two may
            define errors differently; and the reason of the first that did not
            converge.
        """
        first = solve_image(self.first, source, affinity)
        second = solve_image(self.second, source, affinity)
        error = jnp.maximum(first.error, second.error)
        is_solved = ~jnp.isnan(error) & jnp.any(source != 0, axis=1)
        mean = (_unit(first.value, is_solved) + _unit(second.value, is_solved)) / 2
        return Solution(
            jnp.where(is_solved[:, None], mean, 0),
            first.num_steps + second.num_steps,
            error,
            first.converged & second.converged,
            choose_reason((~first.converged, first.reason), otherwise=second.reason),
        )


def _unit(
    value: Float[Array, "classes patches"], which: Bool[Array, " classes"]
) -> Float[Array, "classes patches"]:
    """The maps scaled to [0, 1] over the classes in ``which``; constants become 0."""
    low = jnp.min(value, where=which[:, None], initial=jnp.inf)
    high = jnp.max(value, where=which[:, None], initial=-jnp.inf)
    return (value - low) / jnp.where(high > low, high - low, 1)
