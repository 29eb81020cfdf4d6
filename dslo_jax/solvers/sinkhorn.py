"""Entropic optimal transport to a uniform target, and its path (Eq. 3-8).

The plan ``diag(row) K diag(column)`` with ``K = exp((shift - cost) / epsilon)`` is
never formed; ``_scaling`` says how, and ``docs/solvers.md`` why that is exact.
"""

from typing import Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from dslo_jax.solvers._arguments import (
    require_affinity,
    require_choice,
    require_positive,
    require_source,
    require_steps,
    require_tolerance,
)
from dslo_jax.solvers._loop import Progress, has_converged
from dslo_jax.solvers._scaling import prepare, scale, transport


class SinkhornSolution(NamedTuple):
    """Scalings of the transport plans, one plan per class.

    The plan of class ``c`` is ``row_scaling[c, i] * exp((shift - cost[i, j]) /
    epsilon) * column_scaling[c, j]``; it does not depend on ``shift``.

    Attributes:
        row_scaling: The paper's mu. Zeros where the class carries no mass.
        column_scaling: The paper's nu.
        shift: The mean cost. Without it the kernel of a large cost would underflow.
        num_steps: Steps taken, each one an update of both scalings.
        error: Estimated relative error of the scalings (see ``sinkhorn``); NaN where
            a class could not be solved, and then both scalings are zero.
        converged: True where ``error`` is a number at most ``tolerance``.
    """

    row_scaling: Float[Array, "classes patches"]
    column_scaling: Float[Array, "classes targets"]
    shift: Float[Array, ""]
    num_steps: Int[Array, " classes"]
    error: Float[Array, " classes"]
    converged: Bool[Array, " classes"]


class PathSolution(NamedTuple):
    """Optimal paths (Eq. 3).

    Attributes:
        path: Cost carried to each patch; zero for a class that could not be solved.
        num_steps: Sinkhorn steps taken.
        error: Estimated relative error of the scalings (see ``sinkhorn``), or NaN.
        converged: True where ``error`` is a number at most ``tolerance``.
    """

    path: Float[Array, "classes patches"]
    num_steps: Int[Array, " classes"]
    error: Float[Array, " classes"]
    converged: Bool[Array, " classes"]


def sinkhorn(
    source: Float[Array, "classes patches"],
    cost: Float[Array, "patches targets"],
    *,
    target: Float[Array, " targets"] | None = None,
    epsilon: float = 0.1,
    max_steps: int = 50,
    tolerance: float = 1e-5,
) -> SinkhornSolution:
    """Scale a Gibbs kernel to the given marginals, for all classes at once (Eq. 6-8).

    A step updates the row scaling, then the column scaling, from column scaling 1.
    Change is measured in Hilbert's metric, the spread of ``log(new / old)`` over the
    columns, in which a step is a contraction. ``error`` is Banach's estimate of what
    is left, ``change * k / (1 - k)``, with ``k`` from the observed ratio of changes
    and never above the bound that the range of the cost gives; plus the rounding
    error of the subtraction in ``sum(v) - E @ v``.

    Args:
        source: Row marginals, at least 0; scaled to the mass of ``target``.
        cost: Cost from patch (row) to target (column); any sign.
        target: Column marginals, at least 0, shared by the classes. Default:
            uniform with mass 1.
        epsilon: Regulariser, > 0, in units of the cost.
        max_steps: Cap on the number of steps.
        tolerance: Stops a class whose ``error`` is at most this. 0 runs exactly
            ``max_steps``, as the paper does.

    Returns:
        Scalings and status of each class. A class without mass, or with a value that
        is negative or not finite, has ``error`` NaN; so have all classes if a cost is
        not finite or ``epsilon`` is so small that the kernel under- or overflows.

    Raises:
        ValueError: A shape or an option is out of range.

    Memory:
        No N x N array: two blocks of 256 rows, 8 MiB together at N = 4096, 32 MiB
        at N = 16384.
    """
    require_source(source)
    if cost.ndim != 2 or cost.shape[0] != source.shape[1] or cost.shape[1] == 0:
        raise ValueError(
            f"`cost` has shape {cost.shape}, expected [{source.shape[1]}, targets] "
            f"for a `source` of shape {source.shape}; transpose it or match the grids"
        )
    if target is not None and target.shape != cost.shape[1:]:
        raise ValueError(
            f"`target` has shape {target.shape}, expected {cost.shape[1:]} for a "
            f"`cost` of shape {cost.shape}; it is shared by the classes"
        )
    _require_options(epsilon, max_steps, tolerance)
    classes, patches = source.shape
    problem, usable = prepare(source, cost, target, epsilon, support=None)
    final = scale(problem, usable, epsilon, max_steps, tolerance)
    row, column = _solved(final, (_rows_of(final.state.row), final.state.column))
    return SinkhornSolution(
        row[:classes, :patches],
        column[:classes],
        problem.shift,
        final.num_steps[:classes],
        final.error[:classes],
        has_converged(final.error, tolerance)[:classes],
    )


def optimal_path(
    source: Float[Array, "classes patches"],
    affinity: Float[Array, "patches patches"],
    *,
    epsilon: float = 0.1,
    max_steps: int = 50,
    tolerance: float = 1e-5,
    norm: Literal["none", "sum", "minmax", "max"] = "none",
    support: int | None = None,
) -> PathSolution:
    """Cost of the optimal transport that arrives at each patch (Eq. 3-8).

    The affinity itself is the cost (Eq. 5), so a patch gets much where the source
    attends to it: the path is close to ``source @ affinity / N``.

    Args:
        source: Class distributions over the patches; scaled to sum 1.
        affinity: Attention from patch (row) to patch (column), not rescaled: with
            entries stretched to [0, 1] the same formula avoids similar patches.
        epsilon: Regulariser, > 0.
        max_steps: Cap on the number of Sinkhorn steps.
        tolerance: Stops a class whose ``error`` is at most this; 0 runs exactly
            ``max_steps``.
        norm: The paper's undefined Norm. over the patches of a class: ``"none"``;
            ``"sum"`` to 1; ``"max"`` to maximum 1; ``"minmax"`` to [0, 1], where a
            constant path becomes 0.
        support: Most patches that can carry mass in any class; only that many rows
            of the affinity are read. None reads all of them. The result is the
            same, for rows without mass never matter; if more patches carry mass,
            every class gets ``error`` NaN and is not converged.

    Returns:
        Paths and status of each class; see ``sinkhorn`` for what makes NaN.

    Raises:
        ValueError: A shape or an option is out of range.

    Memory:
        No N x N array: two blocks of 256 rows, 8 MiB together at N = 4096, 32 MiB
        at N = 16384.
    """
    require_source(source)
    require_affinity(affinity, source)
    _require_options(epsilon, max_steps, tolerance)
    require_choice("norm", norm, ("none", "sum", "minmax", "max"))
    classes, patches = source.shape
    if support is not None and not 1 <= support <= patches:
        raise ValueError(
            f"`support` is {support}, expected 1 to {patches}, the number of patches; "
            "None uses all of them"
        )
    problem, usable = prepare(source, affinity, None, epsilon, support=support)
    final = scale(problem, usable, epsilon, max_steps, tolerance)
    path = transport(problem, final.state, epsilon)
    (path,) = _solved(final, (path,))
    return PathSolution(
        _normalise(path[:classes], norm),
        final.num_steps[:classes],
        final.error[:classes],
        has_converged(final.error, tolerance)[:classes],
    )


def _require_options(epsilon: float, max_steps: int, tolerance: float) -> None:
    require_positive("epsilon", epsilon, "the paper uses 0.1")
    require_steps("max_steps", max_steps)
    require_tolerance(tolerance)


def _rows_of(row: Float[Array, "classes blocks rows"]) -> Array:
    return row.reshape(row.shape[0], -1)


def _solved(final: Progress, values: tuple[Array, ...]) -> tuple[Array, ...]:
    """Zeros in place of the values of classes that failed."""
    failed = jnp.isnan(final.error)[:, None]
    return tuple(jnp.where(failed, 0, value) for value in values)


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
