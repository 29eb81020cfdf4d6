"""Label propagation: a random walk from the source that restarts there.

With the affinity A, rows scaled to sum 1, and the source f of a class, the map is

    p = (1 - alpha) * f @ inverse(I - alpha * A),

the closed form of label propagation (Zhou et al., "Learning with Local and Global
Consistency", 2003), which LPOSS (Stojnic et al., CVPR 2025) applies to the logits of
CLIP. Both scale A symmetrically; attention is not symmetric, so here its rows are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32

from dslo_jax import tuning
from dslo_jax.solvers._arguments import (
    as_arrays,
    compute_dtype,
    find_fault,
    require_affinity,
    require_given,
    require_source,
    require_steps,
    require_tolerance,
)
from dslo_jax.solvers._chain import thin_product
from dslo_jax.solvers._loop import Rule, begin, has_converged, iterate
from dslo_jax.solvers._products import multiply, widened_on_cpu
from dslo_jax.solvers.discrepancy import Discrepancy
from dslo_jax.solvers.solution import Reason, Solution, choose_reason


@dataclass(frozen=True)
class LabelPropagation(Discrepancy):
    """Mass of a random walk that starts at a class and restarts there.

    A step is ``p = (1 - alpha) * f + alpha * p @ A``. It multiplies the distance from
    the limit by at most ``alpha``. Therefore ``alpha / (1 - alpha)`` times the last
    change is a bound for the distance that is left. This bound is ``error``, a share of
    the mass of the class.

    Args:
        alpha: Weight of the neighbours, in [0, 1): 0.9 restarts the walk after 9 steps
            on average, 0.5 after one.
        max_steps: Greatest number of steps, at least 1.
        tolerance: ``error`` at which a class stops; 0 runs exactly ``max_steps``.

    Raises:
        ValueError: An option is out of range.
    """

    name: ClassVar[str] = "propagation"
    flat_names: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"alpha": "propagation_alpha", "max_steps": "propagation_steps"}
    )

    traced: ClassVar[tuple[str, ...]] = ("alpha",)

    alpha: float = 0.9
    max_steps: int = 200
    tolerance: float = 1e-5

    def __post_init__(self):
        if not 0 <= self.alpha < 1:
            raise ValueError(
                f"`alpha` is {self.alpha}, expected a number in [0, 1); 0 is the "
                "source itself, and near 1 the maps of all classes become equal"
            )
        require_steps("max_steps", self.max_steps)
        require_tolerance(self.tolerance)

    def solve(
        self,
        source: Float[Array | np.ndarray, "classes patches"],
        affinity: Float[Array | np.ndarray, "patches patches"] | None = None,
    ) -> Solution:
        """Walk until the error of every class is at most the tolerance.

        Args:
            source: Class distributions over the patches; scaled to sum 1.
            affinity: Attention from patch (row) to patch (column), at least 0.

        Returns:
            Maps that sum to 1, and the status of each class.

        Raises:
            ValueError: A shape does not fit.

        Memory:
            No N x N array. A CPU also holds the widened copy of an affinity narrower
            than float32.
        """
        source, affinity = as_arrays(source, require_given(affinity))
        require_source(source)
        require_affinity(affinity, source)
        dtype = compute_dtype(source, affinity)
        return widened_on_cpu(self._solve, affinity, source.astype(dtype), dtype=dtype)

    def _solve(
        self,
        affinity: Float[Array, "patches patches"],
        source: Float[Array, "classes patches"],
        *,
        is_widened: bool = False,
    ) -> Solution:
        """Solve; the affinity may be narrower than the source."""
        del is_widened  # sums and products are the same
        dtype = source.dtype
        fault = _find_fault(source, affinity)
        usable = fault == Reason.CONVERGED.value
        start = jnp.where(usable[:, None], source, 0)
        start /= jnp.where(usable, jnp.sum(start, axis=1), 1)[:, None]
        sums = jnp.sum(affinity.astype(dtype), axis=1)
        given = start, affinity, 1 / jnp.where(sums > 0, sums, 1)
        error = jnp.where(usable, jnp.inf, jnp.nan).astype(dtype)
        rule = Rule(self.max_steps, self.tolerance)
        final = iterate(self._step, given, begin(start, error), rule)
        converged = has_converged(final.error, self.tolerance)
        reason = choose_reason(
            (~usable, fault),
            (converged, Reason.CONVERGED),
            otherwise=Reason.STEP_CAP,
        )
        return Solution(final.state, final.num_steps, final.error, converged, reason)

    def _step(
        self, given: tuple[Array, Array, Array], state: Array, _: Array
    ) -> tuple[Array, Array]:
        """One step of the walk, and the bound for the distance from the limit."""
        start, affinity, row_scaling = given
        scaled = state * row_scaling[None]
        moved = tuning.by_platform(scaled, affinity, cpu=multiply, other=thin_product)
        new = (1 - self.alpha) * start + self.alpha * moved
        change = jnp.sum(jnp.abs(new - state), axis=1)
        return new, self.alpha / (1 - self.alpha) * change


def _find_fault(
    source: Float[Array, "classes patches"], affinity: Float[Array, "patches patches"]
) -> Int32[Array, " classes"]:
    """The reason why each class cannot be solved; ``CONVERGED`` where it can."""
    affinity = affinity.astype(source.dtype)
    sums = jnp.sum(affinity, axis=1)
    return choose_reason(
        (find_fault(source) != Reason.CONVERGED.value, find_fault(source)),
        (~jnp.isfinite(jnp.sum(sums)), Reason.AFFINITY_NOT_FINITE),
        (jnp.min(affinity) < 0, Reason.AFFINITY_NEGATIVE),
        (jnp.min(sums) <= 0, Reason.UNBALANCEABLE),
    )
