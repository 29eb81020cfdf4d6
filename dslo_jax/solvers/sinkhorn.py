"""Entropic optimal transport to a uniform target, and its path (Eq. 3-8).

The plan ``diag(row) K diag(column)`` is never formed; ``_scaling`` and ``_log_domain``
say how, and ``docs/solvers.md`` why that is exact.
"""

from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.core
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
from dslo_jax.solvers._log_domain import NOTHING, log_or_nothing, scale_logs
from dslo_jax.solvers._loop import choose, has_converged
from dslo_jax.solvers._one_row import solve_one_row
from dslo_jax.solvers._rows import Problem, prepare
from dslo_jax.solvers._scaling import mean_cost, scale, transport
from dslo_jax.solvers.reading import Reading


Domain = Literal["auto", "kernel", "log"]


class SinkhornSolution(NamedTuple):
    """Potentials of the transport plans, one plan per class.

    The plan of class ``c`` is ``exp((row_potential[c, i] + column_potential[c, j] -
    cost[i, j]) / epsilon)``. Adding a constant to all rows and taking it from all
    columns changes nothing.

    Attributes:
        row_potential: ``epsilon * log(mu)`` of Eq. 8, in units of the cost; minus
            infinity where the class carries no mass.
        column_potential: ``epsilon * log(nu)``; minus infinity where the target is 0.
        num_steps: Steps taken, each one an update of both.
        error: Estimated relative error of the scalings (see ``sinkhorn``); NaN where
            a class could not be solved, and then both potentials are minus infinity.
        converged: True where ``error`` is a number at most ``tolerance``.
    """

    row_potential: Float[Array, "classes patches"]
    column_potential: Float[Array, "classes targets"]
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
    epsilon: float | Float[Array, ""] = 0.1,
    max_steps: int = 50,
    tolerance: float = 1e-5,
    domain: Domain = "auto",
) -> SinkhornSolution:
    """Scale a Gibbs kernel to the given marginals, for all classes at once (Eq. 6-8).

    A step updates the row scaling, then the column scaling, from column scaling 1.
    Change is measured in Hilbert's metric, the spread of ``log(new / old)`` over the
    columns, in which a step is a contraction. ``error`` is Banach's estimate of what
    is left, ``change * k / (1 - k)``, with ``k`` from the observed ratio of changes
    and never above the bound that the range of the cost gives; plus the rounding
    error of the subtraction in ``sum(v) - E @ v``. Gradients reach source, cost,
    target and epsilon: they are those of the steps taken.

    Args:
        source: Row marginals, at least 0; scaled to the mass of ``target``.
        cost: Cost from patch (row) to target (column); any sign.
        target: Column marginals, at least 0, shared by the classes. Default:
            uniform with mass 1.
        epsilon: Regulariser, > 0, in units of the cost. May be traced.
        max_steps: Cap on the number of steps.
        tolerance: Stops a class whose ``error`` is at most this. 0 runs exactly
            ``max_steps``, as the paper does.
        domain: ``"kernel"`` multiplies with the kernel; a class for which it under- or
            overflows, or cancellation costs more than 1e-5, has ``error`` NaN, unless
            all of its mass lies in one row, where the plan is known.
            ``"log"`` adds logarithms: any epsilon, but one class after another and
            tens of times slower. ``"auto"`` takes to ``"log"`` what ``"kernel"``
            cannot solve.

    Returns:
        Potentials and status of each class. A class without mass, or with a value
        that is negative or not finite, has ``error`` NaN; so have all classes if a
        cost is not finite, a traced ``epsilon`` not positive, or smaller than what
        float32 can tell apart (the costs span more than 2^23 of it).

    Raises:
        ValueError: A shape or an option is out of range.

    Memory:
        Two blocks of 256 rows, 8 MiB together at N = 4096, 32 MiB at N = 16384; where
        blocks do not divide the rows evenly, also a copy of a cost of up to 16 MiB,
        or a third block.
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
    _require_options(epsilon, max_steps, tolerance, domain)
    problem, usable = prepare(source, cost, target, epsilon, Reading())
    solved = _solve(problem, usable, max_steps, tolerance, domain)
    classes, patches = source.shape
    row = solved.row_log.reshape(classes, -1)[:, :patches]
    return SinkhornSolution(
        _potential(row, problem.epsilon) + mean_cost(cost.astype(row.dtype))[None],
        _potential(solved.column_log, problem.epsilon),
        solved.num_steps,
        solved.error,
        has_converged(solved.error, tolerance),
    )


def optimal_path(
    source: Float[Array, "classes patches"],
    affinity: Float[Array, "patches patches"],
    *,
    epsilon: float | Float[Array, ""] = 0.1,
    max_steps: int = 50,
    tolerance: float = 1e-5,
    norm: Literal["none", "sum", "minmax", "max"] = "none",
    support: int | None = None,
    pairs: int | None = None,
    domain: Domain = "auto",
) -> PathSolution:
    """Cost of the optimal transport that arrives at each patch (Eq. 3-8).

    The affinity itself is the cost (Eq. 5), so a patch gets much where the source
    attends to it: the path is close to ``source @ affinity / N``. Gradients reach
    source, affinity and epsilon, those of rows that are not read being 0.

    Args:
        source: Class distributions over the patches; scaled to sum 1.
        affinity: Attention from patch (row) to patch (column), not rescaled: with
            entries stretched to [0, 1] the same formula avoids similar patches.
        epsilon: Regulariser, > 0. May be traced.
        max_steps: Cap on the number of Sinkhorn steps.
        tolerance: Stops a class whose ``error`` is at most this; 0 runs exactly
            ``max_steps``.
        norm: The paper's undefined Norm. over the patches of a class: ``"none"``;
            ``"sum"`` to 1; ``"max"`` to maximum 1; ``"minmax"`` to [0, 1], where a
            constant path becomes 0.
        support: Most patches that can carry mass in any class; only that many rows
            of the affinity are read. None reads all of them, and so does the number
            of patches. The result is the same, for rows without mass never matter; if
            more patches carry mass, every class gets ``error`` NaN and is not
            converged.
        pairs: Instead of ``support``, most pairs of a class and a patch with mass.
            Every pair is then a row of its own, and the time grows with their number
            instead of with that of the classes: for many classes that share few
            patches. With more pairs, too, every class gets ``error`` NaN.
        domain: See ``sinkhorn``.

    Returns:
        Paths and status of each class; see ``sinkhorn`` for what makes NaN.

    Raises:
        ValueError: A shape or an option is out of range.

    Memory:
        Two blocks of 256 rows: 8 MiB together at N = 4096, 32 MiB at N = 16384. With
        ``support``, or where blocks do not divide the rows evenly, also the rows that
        are read, if they take up to 16 MiB, or else a third block. Of an affinity
        narrower than float32 they are gathered in any case, as narrow as they are.
    """
    require_source(source)
    require_affinity(affinity, source)
    _require_options(epsilon, max_steps, tolerance, domain)
    require_choice("norm", norm, ("none", "sum", "minmax", "max"))
    classes, patches = source.shape
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
    if support is not None and pairs is not None:
        raise ValueError(
            f"`support` is {support} and `pairs` is {pairs}: give one; `pairs` counts "
            "a patch once for each class that has mass in it"
        )
    if support == patches:
        support = None  # all rows are read, and none has to be gathered
    reading = Reading(support, pairs)
    problem, usable = prepare(source, affinity, None, epsilon, reading)
    solved = _solve(problem, usable, max_steps, tolerance, domain)
    return PathSolution(
        _normalise(solved.path, norm),
        solved.num_steps,
        solved.error,
        has_converged(solved.error, tolerance),
    )


class _Solved(NamedTuple):
    """What either domain finds; a class that failed has no mass anywhere."""

    row_log: Float[Array, "classes blocks rows"]
    column_log: Float[Array, "classes targets"]
    path: Float[Array, "classes targets"]
    num_steps: Int[Array, " classes"]
    error: Float[Array, " classes"]


def _solve(
    problem: Problem,
    usable: Bool[Array, " classes"],
    max_steps: int,
    tolerance: float,
    domain: str,
) -> _Solved:
    options = {"max_steps": max_steps, "tolerance": tolerance}
    if domain == "log":
        return _in_log_domain(problem, usable, options)
    solved = _with_kernel(problem, usable, options)
    if domain == "kernel":
        return solved
    lost = usable & jnp.isnan(solved.error)
    return jax.lax.cond(
        jnp.any(lost),
        lambda: choose(lost, _in_log_domain(problem, lost, options), solved),
        lambda: solved,
    )


def _with_kernel(problem: Problem, usable: Array, options: dict) -> _Solved:
    final, known = scale(problem, usable, **options)
    # What an overflow left must reach neither the result nor a gradient.
    failed = jnp.isnan(final.error)
    nothing = jax.tree.map(jnp.zeros_like, final.state)
    state = choose(failed, nothing, final.state)
    path = jnp.where(failed[:, None], 0, transport(problem, known, state))
    logs = log_or_nothing(state.row), log_or_nothing(state.column)
    solved = _Solved(*logs, path, final.num_steps, final.error)
    one = solve_one_row(problem, known, usable.size)
    # Its first step is exact; more, if asked for, change nothing.
    steps = options["max_steps"] if options["tolerance"] == 0 else 1
    exact = _Solved(
        one.row_log,
        one.column_log,
        one.path,
        jnp.full_like(final.num_steps, steps),
        jnp.full_like(final.error, jnp.finfo(path.dtype).eps),
    )
    return choose(failed & usable & one.holds, exact, solved)


def _in_log_domain(problem: Problem, needed: Array, options: dict) -> _Solved:
    final, path = scale_logs(problem, needed, **options)
    nothing = jax.tree.map(lambda leaf: jnp.full_like(leaf, NOTHING), final.state)
    state = choose(jnp.isnan(final.error), nothing, final.state)
    return _Solved(state.row, state.column, path, final.num_steps, final.error)


def _potential(logs: Float[Array, "classes places"], epsilon: Array) -> Array:
    return jnp.where(logs == NOTHING, -jnp.inf, epsilon * logs)


def _require_options(
    epsilon: Any, max_steps: int, tolerance: float, domain: str
) -> None:
    # A traced epsilon has no value yet; it is judged when it has one.
    if not isinstance(epsilon, jax.core.Tracer):
        require_positive("epsilon", float(epsilon), "the paper uses 0.1")
    require_steps("max_steps", max_steps)
    require_tolerance(tolerance)
    require_choice("domain", domain, get_args(Domain))


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
