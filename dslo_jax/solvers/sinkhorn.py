"""Entropic optimal transport to a target that all classes share (Eq. 6-8).

The plan ``diag(row) K diag(column)`` is never formed (``_scaling``, ``_log_domain``).
``docs/solvers/theory.md`` derives why the result is exact.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int32

from dslo_jax.solvers._arguments import as_arrays, require_source
from dslo_jax.solvers._domains import (
    Domain,
    by_steps,
    require_options,
    solve,
)
from dslo_jax.solvers._geometry import cost_and_epsilon
from dslo_jax.solvers._log_domain import NOTHING
from dslo_jax.solvers._rows import prepare
from dslo_jax.solvers._scaling import Options, mean_cost
from dslo_jax.solvers.reading import Reading
from dslo_jax.solvers.solution import Reason


class SinkhornSolution(NamedTuple):
    """Potentials of the transport plans, one plan per class.

    The plan of class ``c`` is ``exp((row_potential[c, i] + column_potential[c, j] -
    cost[i, j]) / epsilon)``. It does not change if a constant is added to all row
    potentials and subtracted from all column potentials.

    Attributes:
        row_potential: ``epsilon * log(mu)`` of Eq. 8, in units of the cost; minus
            infinity where the class carries no mass.
        column_potential: ``epsilon * log(nu)``; minus infinity where the target is 0.
        num_steps: Number of steps; a step updates both potentials.
        error: Estimated relative error of the scalings (see ``sinkhorn``). NaN where a
            class could not be solved; both potentials are then minus infinity.
        converged: True where ``error`` is a number at most ``tolerance``.
        reason: Why the class ended, a ``Reason``.
        history: With ``record``, the error after each step; NaN after the last.
    """

    row_potential: Float[Array, "classes patches"]
    column_potential: Float[Array, "classes targets"]
    num_steps: Int[Array, " classes"]
    error: Float[Array, " classes"]
    converged: Bool[Array, " classes"]
    reason: Int32[Array, " classes"]
    history: Float[Array, "steps classes"] | None = None


def sinkhorn(
    source: Float[Array | np.ndarray, "classes patches"],
    cost: Float[Array | np.ndarray, "patches targets"] | Any,
    *,
    target: Float[Array | np.ndarray, " targets"] | None = None,
    epsilon: float | Float[Array, ""] | None = None,
    initial: Float[Array | np.ndarray, " targets"] | None = None,
    max_steps: int = 50,
    tolerance: float = 1e-5,
    domain: Domain = "auto",
    record: bool = False,
) -> SinkhornSolution:
    """Scale a Gibbs kernel to the given marginals, for all classes at once (Eq. 6-8).

    The first column scaling is 1, or that of ``initial``. A step updates the row
    scaling, then the column scaling. Distances are measured in Hilbert's metric, ``max
    - min`` of ``log(new / old)`` over the columns, in which a step is a contraction.
    ``error`` estimates the distance of the scalings from the solution: Banach's
    ``change * k / (1 - k)`` with ``k`` from the ratio of changes, and the rounding
    errors of all steps. It is no bound: on a grid of costs and epsilons, from the third
    step on, the true error was at most 4 times as large (``docs/solvers/theory.md``).
    Source, cost, target and epsilon have gradients, those of the steps taken.

    Args:
        source: Row marginals, at least 0; scaled to the mass of ``target``.
        cost: Cost from patch (row) to target (column); any sign. Or an object with
            ``cost_matrix`` and ``epsilon``, such as a ``Geometry`` of OTT-JAX.
        target: Column marginals, at least 0, shared by the classes. Default:
            uniform with mass 1.
        epsilon: Regulariser, > 0, in units of the cost. May be traced. Default: that of
            the geometry, or the 0.1 of the paper.
        initial: Column potentials to begin with, for all classes, such as ``g`` of a
            solution of OTT-JAX; minus infinity, where the target is 0, counts as 0.
            Default: 0. It has no gradient, and few steps from a good one give gradients
            of few steps: leave it out to differentiate. From a solution the steps do
            not show how fast they converge: a class may end as ``STALLED``, with an
            error that is a bound and far too large.
        max_steps: Cap on the number of steps.
        tolerance: Stops a class whose ``error`` is at most this. 0 runs exactly
            ``max_steps``, as the paper does.
        domain: ``"kernel"`` multiplies with the kernel. A class has ``error`` NaN if
            the kernel underflows or overflows or cancellation loses more than 1e-5,
            unless all of its mass lies in one row, where the plan is known. ``"log"``
            adds logarithms: it works for any epsilon, one class after another, and is
            tens of times slower. ``"auto"`` solves in the log domain the classes that
            the kernel cannot solve.
        record: Whether to return the error after every step.

    Returns:
        Potentials and status of each class. A class stops early when its steps change
        only rounding errors; its ``reason`` is ``Reason.STALLED`` if its ``error`` is
        above the tolerance. A class without mass, or with a value that is negative or
        not finite, has ``error`` NaN. All classes have ``error`` NaN if a cost is not
        finite, or if a traced ``epsilon`` is not positive or too small for float32 (the
        range of the costs is greater than 2^23 epsilon).

    Raises:
        ValueError: A shape or an option is out of range, or a geometry has no dense
            cost or no fixed epsilon.

    Example:
        >>> source = jnp.asarray([[0.5, 0.5, 0.0]])  # one class, three patches
        >>> found = sinkhorn(source, jnp.eye(3))
        >>> bool(found.converged[0]), found.column_potential.shape
        (True, (1, 3))

    Memory:
        Two blocks of 256 rows: 8 MiB together at N = 4096, 32 MiB at N = 16384. If
        blocks do not divide the rows evenly, also a copy of a cost of up to 16 MiB, or
        a third block. GPUs and TPUs compute several blocks at once, of up to 16 MiB.
    """
    given, regulariser = cost_and_epsilon(cost, epsilon)
    source, given = as_arrays(source, given)
    require_source(source)
    if given.ndim != 2 or given.shape[0] != source.shape[1] or given.shape[1] == 0:
        raise ValueError(
            f"`cost` has shape {given.shape}, expected [{source.shape[1]}, targets] "
            f"for a `source` of shape {source.shape}; transpose it or match the grids"
        )
    target = None if target is None else jnp.asarray(target)
    if target is not None and target.shape != given.shape[1:]:
        raise ValueError(
            f"`target` has shape {target.shape}, expected {given.shape[1:]} for a "
            f"`cost` of shape {given.shape}; it is shared by the classes"
        )
    start = _start(initial, given)
    if start is not None:
        given = given - start[None]  # potentials of this cost begin with 0
    options = Options(max_steps, tolerance, domain, record)
    require_options(regulariser, options)
    problem, fault = prepare(source, given, target, regulariser, Reading())
    solved = solve(problem, fault, options)
    classes, patches = source.shape
    row = solved.row_log.reshape(classes, -1)[:, :patches]
    column = _potential(solved.column_log, problem.epsilon)
    return SinkhornSolution(
        _potential(row, problem.epsilon) + mean_cost(given.astype(row.dtype))[None],
        column if start is None else column + start[None],
        solved.num_steps,
        solved.error,
        solved.reason == Reason.CONVERGED.value,
        solved.reason,
        by_steps(solved.history),
    )


def _start(
    initial: Float[Array | np.ndarray, " targets"] | None,
    cost: Float[Array, "patches targets"],
) -> Float[Array, " targets"] | None:
    if initial is None:
        return None
    start = jax.lax.stop_gradient(jnp.asarray(initial))
    if start.shape != cost.shape[1:]:
        raise ValueError(
            f"`initial` has shape {start.shape}, expected {cost.shape[1:]} for a "
            f"`cost` of shape {cost.shape}; it is shared by the classes"
        )
    return jnp.where(jnp.isneginf(start), 0, start)


def _potential(logs: Float[Array, "classes places"], epsilon: Array) -> Array:
    return jnp.where(logs == NOTHING, -jnp.inf, epsilon * logs)
