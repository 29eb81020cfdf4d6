"""Scaling a Gibbs kernel to the marginals of every class (Eq. 6-8).

The code uses three identities, which ``docs/solvers/theory.md`` derives.

* ``K @ v = sum(v) - E @ v`` with ``E = 1 - K``. If the cost is small compared with
  epsilon, ``E`` is small, so its rounding errors are small, and few steps reach the
  limit of float32.
* A row without mass has scaling 0 and is not needed (``_rows``).
* ``sum_i plan_ij cost_ij = column_j * (row @ (cost * K))_j``.

``K`` is recomputed from the cost, one block of rows at a time, wherever it is needed.
No second N x N array is held, and a block stays in the cache.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dslo_jax import tuning
from dslo_jax.solvers._error import Estimate, begin_estimate
from dslo_jax.solvers._loop import (
    Progress,
    Rule,
    begin,
    choose,
    iterate,
    note,
    recorded,
)
from dslo_jax.solvers._rows import (
    Owner,
    Problem,
    least_of_class,
    of_rows,
    onto_columns,
    onto_rows,
    sum_on_rows,
)


_LOSS = 1e-5
"""Relative loss by cancellation above which a class needs the log domain."""


class Options(NamedTuple):
    """Options of ``sinkhorn`` and ``optimal_path``; see there.

    Attributes:
        max_steps: Greatest number of steps.
        tolerance: Error at which a class stops.
        domain: ``"auto"``, ``"kernel"`` or ``"log"``.
        record: Whether the errors of all steps are kept.
    """

    max_steps: int
    tolerance: float
    domain: str
    record: bool = False

    @property
    def rule(self) -> Rule:
        """The rule of the loop, in either domain."""
        return Rule(
            self.max_steps,
            self.tolerance,
            gives_up=lambda state: state.estimate.is_stalled,
        )


class Known(NamedTuple):
    """Facts about the rows, found by reading them once.

    Attributes:
        shift: Mean cost of each row.
        log_range: Range of the logarithms of the kernel.
        log_highest: Largest logarithm of the kernel, at least 0.
    """

    shift: Float[Array, "blocks rows"]
    log_range: Float[Array, ""]
    log_highest: Float[Array, ""]

    @classmethod
    def of(
        cls,
        shift: Float[Array, "blocks rows"],
        lows: Float[Array, " blocks"],
        highs: Float[Array, " blocks"],
    ) -> "Known":
        """Make it from the smallest and largest logarithm of each block."""
        highest = jnp.max(highs)
        log_range = jax.lax.stop_gradient(highest - jnp.min(lows))
        return cls(shift, log_range, jax.lax.stop_gradient(jnp.maximum(highest, 0)))


class Scalings(NamedTuple):
    """State of the loop."""

    row: Float[Array, "classes blocks rows"]
    column: Float[Array, "classes targets"]
    estimate: Estimate


def mean_cost(cost: Float[Array, "rows targets"]) -> Float[Array, " rows"]:
    """Mean of each row, without a gradient, because it does not change the plan."""
    return jax.lax.stop_gradient(jnp.mean(cost, axis=1))


def scale(
    problem: Problem,
    usable: Bool[Array, " classes"],
    options: Options,
) -> tuple[Progress, Known]:
    """Run Eq. 8 from column scaling 1.

    A class whose kernel overflows or underflows, or whose subtraction loses too many
    digits, ends with error NaN: it cannot be solved with the kernel.
    """
    classes = usable.size

    def step(
        given: tuple[Problem, Known], state: Scalings, _: Array
    ) -> tuple[Scalings, Array]:
        problem, known = given
        total = jnp.sum(state.column, axis=1)

        def visit(rows: Array, owner: Owner, mass: Array, shift: Array) -> Swept:
            hole = 1 - kernel(problem.exponent(rows, shift))
            kernel_column = of_rows(total, owner) - onto_rows(hole, state.column, owner)
            least = least_of_class(_where(mass, kernel_column), owner, classes)
            return hole, _divide(mass, kernel_column), (), _lost(total, least)

        reached, row, _, lost = _sweep(
            problem, classes, visit, problem.source, known.shift
        )
        return _finish(problem, row, reached, lost, state, known)

    start, known = _first_step(problem, usable)
    if options.record:
        first = recorded(start, options.max_steps)
        noted = note(first.history, start.error, start.num_steps - 1, usable)
        start = first._replace(history=noted)
    return iterate(step, (problem, known), start, options.rule), known


def _first_step(
    problem: Problem, usable: Bool[Array, " classes"]
) -> tuple[Progress, Known]:
    """The first step: all classes share the product of the kernel and ones."""
    blocks, rows, _ = problem.source.shape
    classes, targets = usable.size, problem.target.size
    dtype = problem.target.dtype

    def visit(rows: Array, owner: Owner, mass: Array) -> Swept:
        shift = mean_cost(rows)
        hole = 1 - kernel(problem.exponent(rows, shift))
        kernel_column = targets - sum_on_rows(hole)
        least = least_of_class(_where(mass, kernel_column), owner, classes)
        extremes = _lost(targets, least), *problem.extremes(rows, shift)
        return hole, _divide(mass, kernel_column), shift, extremes

    reached, row, shift, extremes = _sweep(problem, classes, visit, problem.source)
    lost, lows, highs = extremes
    known = Known.of(shift, lows, highs)
    start = Scalings(
        jnp.zeros((classes, blocks, rows), dtype),
        jnp.ones((classes, targets), dtype),
        begin_estimate((classes,), dtype),
    )
    state, error = _finish(problem, row, reached, lost, start, known)
    usable &= known.log_highest < _log_limit(dtype)
    begun = begin(choose(usable, state, start), jnp.where(usable, error, jnp.nan))
    return begun._replace(num_steps=usable.astype(jnp.int32)), known


Swept = tuple[Array, Array, Any, Any]
"""Of one block: ``E``, the new row scaling, further numbers of its rows, and extremes
of the block. Of all blocks: the product of ``E`` and the row scaling, and the rest."""


def _sweep(
    problem: Problem,
    classes: int,
    visit: Callable[..., Swept],
    *given: Array,
) -> Swept:
    """Take one step of Eq. 8 in one pass over the blocks, without the column scaling.

    Args:
        problem: Rows that are read.
        classes: Number of classes.
        visit: Function of the rows of a block, their owners and their part of ``given``
            to what ``Swept`` says of one block.
        given: Arrays with numbers of the rows, in blocks.
    """
    blocks, rows, _ = problem.source.shape
    together = tuning.blocks_together(blocks, rows * problem.target.size)
    by_blocks = partial(_sweep_blocks, classes, visit)
    if together == 1:
        return by_blocks(problem, *given)
    merged = partial(_sweep_merged, classes, visit, together)
    return tuning.by_platform(problem, *given, cpu=by_blocks, other=merged)


def _sweep_blocks(
    classes: int, visit: Callable[..., Swept], problem: Problem, *given: Array
) -> Swept:
    """``_sweep``, one block after another."""

    @jax.checkpoint
    def body(reached: Array, block: tuple[Any, ...]) -> tuple[Array, Any]:
        read, *parts = block
        hole, *found = visit(problem.read(read), read.owner, *parts)
        return onto_columns(reached, found[0], hole, read.owner), found

    nothing = jnp.zeros((classes, problem.target.size), problem.source.dtype)
    reached, found = jax.lax.scan(body, nothing, (problem.blocks, *given))
    return reached, *found


def _sweep_merged(
    classes: int,
    visit: Callable[..., Swept],
    together: int,
    problem: Problem,
    *given: Array,
) -> Swept:
    """``_sweep`` with several blocks as one, for fewer and larger operations."""
    blocks, rows, _ = problem.source.shape

    def merge(leaf: Array) -> Array:
        return leaf.reshape(blocks // together, -1, *leaf.shape[2:])

    def split(leaf: Array) -> Array:
        return leaf.reshape(blocks, rows, *leaf.shape[2:])

    swept = _sweep_blocks(classes, visit, problem.merged(together), *map(merge, given))
    reached, row, of_rows, of_blocks = swept
    of_rows = jax.tree.map(split, of_rows)
    of_blocks = jax.tree.map(lambda leaf: jnp.repeat(leaf, together, 0), of_blocks)
    return reached, split(row), of_rows, of_blocks


def _finish(
    problem: Problem,
    held: Float[Array, "blocks rows holders"],
    reached: Float[Array, "classes targets"],
    lost: Float[Array, "blocks classes"],
    state: Scalings,
    known: Known,
) -> tuple[Scalings, Float[Array, " classes"]]:
    """The new column scaling, and the error of the step."""
    target = problem.target[None]
    row = problem.by_class(held, len(reached))
    row_total = jnp.sum(row, axis=(1, 2))
    kernel_row = row_total[:, None] - reached
    column = _divide(target, kernel_row)
    ratio = jnp.where(target > 0, column / state.column, 1)
    change = _log_spread(ratio)
    lost_by_columns = _lost(row_total, jnp.min(_where(target, kernel_row), axis=1))
    lost_by_any = jnp.maximum(jnp.max(lost, axis=0), lost_by_columns)
    # The logarithms of the kernel are rounded, too.
    rounding = lost_by_any + jnp.finfo(column.dtype).eps * known.log_highest
    estimate = state.estimate.after(change, rounding)
    # An infinite change is an overflow, not a large error.
    is_exact = jnp.isfinite(change) & (lost_by_any <= _LOSS)
    error = jnp.where(is_exact, estimate.error(known.log_range), jnp.nan)
    return Scalings(row, column, estimate), jax.lax.stop_gradient(error)


def kernel(exponent: Float[Array, "rows targets"]) -> Array:
    """The kernel, kept finite, because infinity would make gradients NaN."""
    return jnp.exp(jnp.minimum(exponent, _log_limit(exponent.dtype)))


def _log_limit(dtype: jnp.dtype) -> float:
    """Logarithm above which sums over the kernel may overflow."""
    return 0.9 * math.log(jnp.finfo(dtype).max)


def _log_spread(ratio: Float[Array, "classes targets"]) -> Float[Array, " classes"]:
    return jnp.log(jnp.max(ratio, axis=1) / jnp.min(ratio, axis=1))


def _divide(mass: Array, reached: Array) -> Array:
    """The quotient; 0 where ``reached`` is 0: infinity would make gradients NaN."""
    is_reached = reached > 0
    return jnp.where(is_reached, mass / jnp.where(is_reached, reached, 1), 0)


def _where(mass: Array, reached: Array) -> Array:
    """``reached`` where there is mass, and infinity elsewhere."""
    return jnp.where(mass > 0, reached, jnp.inf)


def _lost(
    total: int | Float[Array, " classes"], least: Float[Array, " classes"]
) -> Float[Array, " classes"]:
    """Largest relative error of ``sum(v) - E @ v`` by the rounding of ``sum(v)``.

    It is infinite where a mass is not reached and therefore has scaling 0.
    """
    eps = jnp.finfo(least.dtype).eps
    return jax.lax.stop_gradient(eps * total / jnp.maximum(least, 0))


def transport(
    problem: Problem, known: Known, state: Scalings
) -> Float[Array, "classes targets"]:
    """``sum_i plan_ij cost_ij`` (Eq. 3), without the plan."""

    def visit(rows: Array, _: Owner, row: Array, shift: Array) -> Swept:
        return rows * kernel(problem.exponent(rows, shift)), row, (), ()

    row = problem.by_row(state.row)
    reached, *_ = _sweep(problem, len(state.row), visit, row, known.shift)
    return state.column * reached
