from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple

import jax.numpy as jnp

from dslo_jax.options import MAX_FLOAT, MAX_INT, MIN_FLOAT, Options, option
from dslo_jax.solvers.divergence import kl_map
from dslo_jax.solvers.markov import maximum_velocity
from dslo_jax.solvers.reading import choose_reading
from dslo_jax.solvers.sinkhorn import optimal_path


class Solution(NamedTuple):
    value: Any
    num_steps: Any
    error: Any
    converged: Any
    reason: Any

    @classmethod
    def exact(cls, value):
        return exact(value)


class Counts(NamedTuple):
    rows: int
    pairs: int
    classes: int
    patches: int
    step: int = 64
    platform: str = "cpu"


def exact(value):
    n = len(value)
    return Solution(
        value,
        jnp.zeros(n, jnp.int32),
        jnp.zeros(n),
        jnp.ones(n, bool),
        jnp.zeros(n, jnp.int32),
    )


@dataclass(frozen=True)
class Discrepancy(Options):
    name: ClassVar[str] = ""
    takes_logits: ClassVar[bool] = False
    wants_counts: ClassVar[bool] = False

    @property
    def needs_affinity(self):
        return True

    def fitted(self, counts):
        return self

    @property
    def fallback(self):
        return None


@dataclass(frozen=True)
class OptimalPath(Discrepancy):
    """P.

    Args:
        epsilon: E.
        max_steps: M.
        tolerance: T.
        norm: N.
    """

    name: ClassVar[str] = "path"
    wants_counts: ClassVar[bool] = True
    epsilon: float = option(0.1, flat="epsilon", low=MIN_FLOAT, high=MAX_FLOAT)
    max_steps: int = option(50, flat="path_steps", low=1, high=MAX_INT)
    tolerance: float = option(1e-5, flat="tolerance", low=0, high=MAX_FLOAT)
    norm: Literal["none", "sum", "minmax", "max"] = option("none", flat="norm")
    domain: str = "auto"
    support: int | None = None
    pairs: int | None = None

    def fitted(self, c):
        r = choose_reading(
            rows=c.rows,
            pairs=c.pairs,
            classes=c.classes,
            patches=c.patches,
            step=c.step,
            platform=c.platform,
        )
        return replace(
            self,
            support=r.support,
            pairs=r.pairs,
            domain="kernel" if self.domain == "auto" else self.domain,
        )

    @property
    def fallback(self):
        return replace(self, domain="auto") if self.domain == "kernel" else None

    def solve(self, source, affinity):
        s = optimal_path(
            source,
            affinity,
            epsilon=self.epsilon,
            max_steps=self.max_steps,
            tolerance=self.tolerance,
            norm=self.norm,
            domain=self.domain,
            support=self.support,
            pairs=self.pairs,
        )
        return Solution(
            s.path, s.num_steps, s.error, s.converged, jnp.zeros_like(s.num_steps)
        )


@dataclass(frozen=True)
class MaximumVelocity(Discrepancy):
    """V.

    Args:
        threshold: E.
        criterion: M.
        balancing_steps: T.
        max_steps: N.
    """

    name: ClassVar[str] = "velocity"
    threshold: float = option(0.3, flat="threshold", low=0, high=1, open_left=True)
    criterion: Literal["saturation", "increment"] = option(
        "saturation", flat="criterion"
    )
    balancing_steps: int = option(15, flat="balancing_steps", low=1, high=MAX_INT)
    max_steps: int = option(1000, flat="velocity_steps", low=1, high=MAX_INT)
    interpolate: bool = True

    def solve(self, source, affinity):
        s = maximum_velocity(
            source,
            affinity,
            threshold=self.threshold,
            criterion=self.criterion,
            balancing_steps=self.balancing_steps,
            max_steps=self.max_steps,
            interpolate=self.interpolate,
        )
        return Solution(
            s.velocity, s.num_steps, s.error, s.converged, jnp.zeros_like(s.num_steps)
        )


@dataclass(frozen=True)
class Divergence(Discrepancy):
    """V.

    Args:
        direction: E.
    """

    name: ClassVar[str] = "kl"
    direction: Literal["source_to_target", "target_to_source"] = option(
        "source_to_target", flat="kl_direction"
    )

    @property
    def needs_affinity(self):
        return False

    def solve(self, source, affinity):
        return exact(kl_map(source, direction=self.direction))


@dataclass(frozen=True)
class Logits(Discrepancy):
    name: ClassVar[str] = "logits"
    takes_logits: ClassVar[bool] = True

    @property
    def needs_affinity(self):
        return False

    def solve(self, source, affinity):
        return exact(source)


@dataclass(frozen=True)
class Fused(Discrepancy):
    name: ClassVar[str] = "fused"
    wants_counts: ClassVar[bool] = True
    first: Discrepancy = OptimalPath()
    second: Discrepancy = MaximumVelocity()

    def fitted(self, c):
        return Fused(self.first.fitted(c), self.second.fitted(c))

    @property
    def fallback(self):
        a, b = self.first.fallback, self.second.fallback
        return Fused(a or self.first, b or self.second) if a or b else None

    def solve(self, source, affinity):
        a, b = self.first.solve(source, affinity), self.second.solve(source, affinity)

        def unit(v):
            lo, hi = v.min(), v.max()
            return (v - lo) / jnp.where(hi > lo, hi - lo, 1.0)

        return Solution(
            (unit(a.value) + unit(b.value)) / 2,
            a.num_steps + b.num_steps,
            jnp.maximum(a.error, b.error),
            a.converged & b.converged,
            a.reason,
        )


DISCREPANCIES = {
    d.name: d for d in (MaximumVelocity, OptimalPath, Fused, Divergence, Logits)
}
