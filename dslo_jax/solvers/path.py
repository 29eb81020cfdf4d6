"""The optimal path: the cost of the entropic transport that arrives (Eq. 3-8)."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int32

from dslo_jax.solvers._arguments import (
    as_arrays,
    require_affinity,
    require_choice,
    require_given,
    require_source,
    require_steps,
)
from dslo_jax.solvers._domains import (
    Domain,
    by_steps,
    require_options,
    solve,
)
from dslo_jax.solvers._rows import prepare
from dslo_jax.solvers._scaling import Options
from dslo_jax.solvers.discrepancy import Counts, Discrepancy
from dslo_jax.solvers.reading import Reading, choose_reading
from dslo_jax.solvers.solution import Reason, Solution


Norm = Literal["none", "sum", "minmax", "max"]


class PathSolution(NamedTuple):
    """Optimal paths (Eq. 3).

    Attributes:
        path: Cost carried to each patch; zero for a class that could not be solved.
        num_steps: Sinkhorn steps taken.
        error: Estimated relative error of the scalings (see ``sinkhorn``), or NaN.
        converged: True where ``error`` is a number at most ``tolerance``.
        reason: Why the class ended, a ``Reason``.
        history: With ``record``, the error after each step; NaN after the last.
    """

    path: Float[Array, "classes patches"]
    num_steps: Int[Array, " classes"]
    error: Float[Array, " classes"]
    converged: Bool[Array, " classes"]
    reason: Int32[Array, " classes"]
    history: Float[Array, "steps classes"] | None = None


def optimal_path(
    source: Float[Array | np.ndarray, "classes patches"],
    affinity: Float[Array | np.ndarray, "patches patches"],
    *,
    epsilon: float | Float[Array, ""] = 0.1,
    max_steps: int = 50,
    tolerance: float = 1e-5,
    norm: Norm = "none",
    support: int | None = None,
    pairs: int | None = None,
    domain: Domain = "auto",
    record: bool = False,
) -> PathSolution:
    """Cost of the optimal transport that arrives at each patch (Eq. 3-8).

    The affinity itself is the cost (Eq. 5), so the path is high in patches to which the
    source attends: it is close to ``source @ affinity / N``. Source, affinity and
    epsilon have gradients; they are 0 for rows of the affinity that are not read.

    Args:
        source: Class distributions over the patches; scaled to sum 1.
        affinity: Attention from patch (row) to patch (column). Do not scale it to
            [0, 1]: the formula would then prefer dissimilar patches.
        epsilon: Regulariser, > 0. May be traced.
        max_steps: Cap on the number of Sinkhorn steps.
        tolerance: Stops a class whose ``error`` is at most this; 0 runs exactly
            ``max_steps``.
        norm: Norm. of Eq. 3, which the paper does not define, over the patches of a
            class: ``"none"``; ``"sum"``, to sum 1; ``"max"``, to maximum 1;
            ``"minmax"``, to [0, 1], where a constant path becomes 0.
        support: Greatest number of patches with mass in any class. Only this number of
            rows of the affinity is read; ``None`` reads all. The result is the same,
            because rows without mass do not change it. If more patches have mass, every
            class has ``error`` NaN.
        pairs: Greatest number of pairs of a class and a patch with mass, instead of
            ``support``. One row is read for each pair, so the time depends on the
            number of pairs and hardly on that of the classes. This is faster for many
            classes that share few patches. If there are more pairs, every class has
            ``error`` NaN.
        domain: See ``sinkhorn``.
        record: See ``sinkhorn``.

    Returns:
        Paths and status of each class. ``sinkhorn`` lists what makes ``error`` NaN.

    Raises:
        ValueError: A shape or an option is out of range.

    Example:
        >>> affinity = jnp.asarray([[0.8, 0.2], [0.4, 0.6]])
        >>> found = optimal_path(jnp.asarray([[1.0, 0.0]]), affinity)
        >>> [round(value, 4) for value in found.path[0].tolist()]  # its row over N
        [0.4, 0.1]

    Memory:
        Two blocks of 256 rows: 8 MiB together at N = 4096, 32 MiB at N = 16384. With
        ``support`` or ``pairs``, or if blocks do not divide the rows evenly, also a
        copy of the rows that are read, if it takes up to 16 MiB; otherwise a third
        block. The rows of an affinity narrower than float32 are always copied, in their
        own type. GPUs and TPUs compute several blocks at once, of up to 16 MiB.
    """
    source, affinity = as_arrays(source, affinity)
    require_source(source)
    require_affinity(affinity, source)
    classes, patches = source.shape
    reading = Reading(support, pairs)
    _require_in_range(reading, classes, patches)
    options = Options(max_steps, tolerance, domain, record)
    _require_options(epsilon, options, norm, reading)
    if support == patches:
        reading = Reading()  # all rows are read, so none needs to be gathered
    problem, fault = prepare(source, affinity, None, epsilon, reading)
    solved = solve(problem, fault, options)
    return PathSolution(
        _normalise(solved.path, norm),
        solved.num_steps,
        solved.error,
        solved.reason == Reason.CONVERGED.value,
        solved.reason,
        by_steps(solved.history),
    )


@dataclass(frozen=True)
class OptimalPath(Discrepancy):
    """The optimal path (Eq. 3) as a discrepancy; its fields are those of the function.

    Args:
        epsilon: Regulariser of the transport, > 0: a small one keeps mass together, a
            great one spreads it.
        max_steps: Greatest number of Sinkhorn steps, at least 1.
        tolerance: Estimated relative error of the transport at which the Sinkhorn steps
            of a class end, at least 0; 0 takes exactly ``max_steps`` steps.
        norm: How the path of a class is scaled (Norm. of Eq. 3): ``minmax`` to [0, 1],
            ``max`` to maximum 1, ``sum`` to sum 1, or ``none``.
        domain: As for ``sinkhorn``; for ``"auto"``, ``attempts`` has the kernel first.
        support: ``fitted`` sets this or ``pairs``, if neither is set.
        pairs: See ``support``.

    Raises:
        ValueError: An option is out of range.
    """

    name: ClassVar[str] = "path"
    flat_names: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "epsilon": "epsilon",
            "max_steps": "path_steps",
            "tolerance": "tolerance",
            "norm": "norm",
        }
    )

    traced: ClassVar[tuple[str, ...]] = ("epsilon",)

    epsilon: float = 0.1
    max_steps: int = 50
    tolerance: float = 1e-5
    norm: Norm = "none"
    domain: Domain = "auto"
    support: int | None = None
    pairs: int | None = None

    def __post_init__(self):
        options = Options(self.max_steps, self.tolerance, self.domain)
        reading = Reading(self.support, self.pairs)
        _require_options(self.epsilon, options, self.norm, reading)

    @property
    def wants_counts(self) -> bool:
        """True until ``support`` or ``pairs`` is set."""
        return self.support is None and self.pairs is None

    def fitted(self, counts: Counts) -> "OptimalPath":
        """The same path with ``support`` or ``pairs``, whichever is faster."""
        if not self.wants_counts:
            return self
        return dataclasses.replace(self, **choose_reading(counts)._asdict())

    @property
    def attempts(self) -> "tuple[OptimalPath, ...]":
        """For the domain ``"auto"``, the kernel alone, then both domains.

        The log domain doubles the time of compilation, and few classes need it.
        """
        if self.domain != "auto":
            return (self,)
        return dataclasses.replace(self, domain="kernel"), self

    def solve(
        self,
        source: Float[Array | np.ndarray, "classes patches"],
        affinity: Float[Array | np.ndarray, "patches patches"] | None = None,
    ) -> Solution:
        """See ``optimal_path``; the value is the path."""
        found = optimal_path(source, require_given(affinity), **vars(self))
        return Solution(
            found.path, found.num_steps, found.error, found.converged, found.reason
        )


def _require_in_range(reading: Reading, classes: int, patches: int) -> None:
    support, pairs = reading
    if support is not None and not 1 <= support <= patches:
        raise ValueError(
            f"`support` is {support}, expected 1 to {patches}, the number of patches; "
            "None uses all of them"
        )
    if pairs is not None and not 1 <= pairs <= classes * patches:
        raise ValueError(
            f"`pairs` is {pairs}, expected 1 to {classes * patches}, all pairs of a "
            "class and a patch; None shares the rows among the classes"
        )


def _require_options(
    epsilon: Any, options: Options, norm: str, reading: Reading
) -> None:
    require_options(epsilon, options)
    require_choice("norm", norm, get_args(Norm))
    for name, count in reading._asdict().items():
        if count is not None:
            require_steps(name, count)
    if reading.support is not None and reading.pairs is not None:
        raise ValueError(
            f"`support` is {reading.support} and `pairs` is {reading.pairs}: give one; "
            "`pairs` counts a patch once for each class that has mass in it"
        )


def _normalise(
    path: Float[Array, "classes patches"], norm: str
) -> Float[Array, "classes patches"]:
    if norm == "none":
        return path
    largest = jnp.max(path, axis=1, keepdims=True)
    if norm == "minmax":
        lowest = jnp.min(path, axis=1, keepdims=True)
        spread = largest - lowest
        # The rounding error of a constant path must not be stretched to [0, 1].
        is_constant = spread <= 1e-6 * jnp.abs(largest)
        return jnp.where(is_constant, 0, (path - lowest) / spread)
    scale = largest if norm == "max" else jnp.sum(path, axis=1, keepdims=True)
    return path / jnp.where(scale > 0, scale, 1)
