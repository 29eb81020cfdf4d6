"""Scaling a Gibbs kernel to the marginals of every class (Eq. 6-8).

Three identities carry this file; ``docs/solvers.md`` derives them.

* ``K @ v = sum(v) - E @ v`` with ``E = 1 - K``: a cost that is small against epsilon
  makes ``E`` small, so nothing cancels and few steps reach the float32 limit.
* A row without mass has scaling 0 and is needed nowhere.
* ``sum_i plan_ij cost_ij = column_j * (row @ (cost * K))_j``.

``K`` is recomputed from the cost, one block of rows at a time, wherever it is needed:
no second N x N array is held, and a block stays in cache.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from dslo_jax.solvers._arguments import compute_dtype, usable_classes
from dslo_jax.solvers._loop import Progress, begin, choose, iterate


BLOCK_ROWS = 256
"""Rows of the kernel at a time: 4 MiB at N = 4096, 16 MiB at N = 16384 (float32)."""

_AT_ONCE = 2**22
"""Entries of rows that are gathered once, 16 MiB: larger buffers come fresh from the
system in every call on a CPU, which costs more than gathering block by block. Gradients
are then of the size of the rows instead of the affinity."""

_LOSS = 1e-5
"""Relative error by cancellation from which on a class is left to the log domain."""


class Problem(NamedTuple):
    """What the loop reads: the rows of the cost that carry mass, in blocks.

    Attributes:
        cost: ``[patches targets]``; or the rows that carry mass alone.
        index: Where the rows of each block are in ``cost``: the first one, if they
            follow each other, or all, if they are chosen; padding repeats one of them.
            None if they have been gathered.
        source: Row marginals; 0 in the padding.
        target: Column marginals.
        epsilon: The regulariser.
    """

    cost: Float[Array, "_ targets"] | Float[Array, "blocks rows targets"]
    index: Int[Array, " blocks"] | Int[Array, "blocks rows"] | None
    source: Float[Array, "blocks rows classes"]
    target: Float[Array, " targets"]
    epsilon: Float[Array, ""]

    @property
    def blocks(self) -> Array:
        """What a scan goes over; ``read`` makes rows of it."""
        return self.cost if self.index is None else self.index

    def read(self, block: Array) -> Float[Array, "rows targets"]:
        """Rows of the cost. Chosen ones are gathered whenever they are needed."""
        if self.index is None:
            rows = block
        elif self.index.ndim == 2:
            rows = self.cost[block]
        else:
            count = self.source.shape[1]
            rows = jax.lax.dynamic_slice_in_dim(self.cost, block, count)
        return rows.astype(self.source.dtype)

    def exponent(
        self, cost: Float[Array, "rows targets"], shift: Float[Array, " rows"]
    ) -> Array:
        """Logarithm of the kernel of some rows, each shifted by its mean cost."""
        return (shift[:, None] - cost) / self.epsilon

    def extremes(
        self, cost: Float[Array, "rows targets"], shift: Float[Array, " rows"]
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Smallest and largest exponent, which have no gradient."""
        ends = jax.lax.stop_gradient((jnp.max(cost, axis=1), jnp.min(cost, axis=1)))
        low, high = (self.exponent(end[:, None], shift) for end in ends)
        return jnp.min(low), jnp.max(high)


class Known(NamedTuple):
    """What the first look at the rows tells.

    Attributes:
        shift: Mean cost of each row.
        log_range: Span of the logarithm of the kernel.
    """

    shift: Float[Array, "blocks rows"]
    log_range: Float[Array, ""]


class Scalings(NamedTuple):
    """State of the loop."""

    row: Float[Array, "classes blocks rows"]
    column: Float[Array, "classes targets"]
    change: Float[Array, " classes"]


def mean_cost(cost: Float[Array, "rows targets"]) -> Float[Array, " rows"]:
    """Mean of each row. It does not change the plan, and so it has no gradient."""
    return jax.lax.stop_gradient(jnp.mean(cost, axis=1))


def prepare(
    source: Float[Array, "classes patches"],
    cost: Float[Array, "patches targets"],
    target: Float[Array, " targets"] | None,
    epsilon: float | Float[Array, ""],
    *,
    support: int | None,
) -> tuple[Problem, Bool[Array, " classes"]]:
    """Choose what the loop reads, and say which classes can be solved."""
    dtype = compute_dtype(source, cost)
    if target is None:
        target = jnp.full(cost.shape[1], 1 / cost.shape[1], dtype)
    target, epsilon = target.astype(dtype), jnp.asarray(epsilon, dtype)
    usable = usable_classes(source.astype(dtype)) & usable_classes(target[None])
    usable &= epsilon > 0
    source = jnp.where(usable[:, None], source.astype(dtype), 0)
    total = jnp.sum(source, axis=1, keepdims=True)
    source *= jnp.sum(target) / jnp.where(total > 0, total, 1)
    index, is_row, fits = _rows_with_mass(source, support)
    source = jnp.where(is_row[..., None], source.T[index], 0)
    if support is None and index.size == cost.shape[0]:
        # The blocks are the matrix itself. It is sliced, for a scan over the blocks of
        # several images would copy them.
        index = index[:, 0]
    elif is_gathered_once(index.size, cost.shape[1], is_narrow=cost.dtype != dtype):
        cost, index = cost[index], None
    return Problem(cost, index, source, target, epsilon), usable & fits


def is_gathered_once(rows: int, targets: int, *, is_narrow: bool) -> bool:
    """Whether so many rows are gathered together, and not block by block when read."""
    # Gathered later, a narrow cost would be widened by the compiler as a whole.
    return is_narrow or rows * targets <= _AT_ONCE


def _rows_with_mass(
    source: Float[Array, "classes patches"], support: int | None
) -> tuple[Int[Array, "blocks rows"], Bool[Array, "blocks rows"], Bool[Array, ""]]:
    """Indices in blocks, which of them are not padding, and whether all fit."""
    patches = source.shape[1]
    if support is None:
        index, count = jnp.arange(patches), jnp.asarray(patches)
    else:
        carries = jnp.any(source > 0, axis=0)
        count = jnp.sum(carries)
        # Padding repeats a row that is read anyway: others may hold anything.
        (index,) = jnp.nonzero(carries, size=support, fill_value=jnp.argmax(carries))
    blocks, rows = block_shape(index.size)
    fits = count <= index.size
    index = jnp.pad(index, (0, blocks * rows - index.size), mode="edge")
    is_row = jnp.arange(blocks * rows) < count
    return index.reshape(blocks, rows), is_row.reshape(blocks, rows), fits


def block_shape(rows: int) -> tuple[int, int]:
    """Blocks that so many rows are cut into, and the rows of each, padding included."""
    blocks = -(-rows // BLOCK_ROWS)
    return blocks, -(-rows // blocks)


def scale(
    problem: Problem,
    usable: Bool[Array, " classes"],
    *,
    max_steps: int,
    tolerance: float,
) -> tuple[Progress, Known]:
    """Run Eq. 8 from column scaling 1.

    A class whose kernel over- or underflows, or whose subtraction loses too many
    digits, ends with error NaN: the kernel cannot solve it.
    """

    def step(
        given: tuple[Problem, Known], state: Scalings, _: Array
    ) -> tuple[Scalings, Array]:
        problem, known = given
        total = jnp.sum(state.column, axis=1)

        def visit(rows: Array, mass: Array, shift: Array) -> tuple[Array, Array, Array]:
            hole = 1 - kernel(problem.exponent(rows, shift))
            kernel_column = total[None] - _matmul(hole, state.column.T)
            lost = _lost(total, kernel_column, mass)
            return hole, _divide(mass, kernel_column), lost

        row, reached, lost = _sweep(problem, visit, problem.source, known.shift)
        return _finish(problem, row, reached, lost, state, known.log_range)

    start, known = _first_step(problem, usable)
    given = problem, known
    final = iterate(step, given, start, max_steps=max_steps, tolerance=tolerance)
    return final, known


def _first_step(
    problem: Problem, usable: Bool[Array, " classes"]
) -> tuple[Progress, Known]:
    """From column scaling 1, whose product with the kernel all classes share."""
    blocks, rows, classes = problem.source.shape
    targets, dtype = problem.target.size, problem.target.dtype
    ones = jnp.ones((targets, 1), dtype)

    def visit(rows: Array, mass: Array) -> tuple[Array, Array, Any]:
        shift = mean_cost(rows)
        hole = 1 - kernel(problem.exponent(rows, shift))
        # By a product, as the other use of `hole`: for a sum under vmap the compiler
        # would write it a second time, in another shape.
        kernel_column = targets - _matmul(hole, ones)
        row = _divide(mass, kernel_column)
        lost = _lost(targets, kernel_column, mass)
        return hole, row, (shift, lost, *problem.extremes(rows, shift))

    row, reached, found = _sweep(problem, visit, problem.source)
    shift, lost, lows, highs = found
    high = jnp.max(highs)
    known = Known(shift, high - jnp.min(lows))
    start = Scalings(
        jnp.zeros((classes, blocks, rows), dtype),
        jnp.ones((classes, targets), dtype),
        jnp.zeros(classes, dtype),
    )
    state, error = _finish(problem, row, reached, lost, start, known.log_range)
    usable &= high < _log_limit(dtype)
    begun = begin(choose(usable, state, start), jnp.where(usable, error, jnp.nan))
    return begun._replace(num_steps=usable.astype(jnp.int32)), known


def _sweep(
    problem: Problem, visit: Callable[..., tuple[Array, Array, Any]], *given: Array
) -> tuple[Array, Array, Any]:
    """One step of Eq. 8 in one sweep over the blocks, up to the new column scaling.

    Args:
        problem: What is read.
        visit: Maps rows of the cost, and what is given for them, to ``E``, the new row
            scaling, and anything else.
        given: Block by block.

    Returns:
        The new row scaling; its product with ``E``; anything else.
    """
    classes, targets = problem.source.shape[2], problem.target.size

    @jax.checkpoint
    def body(reached: Array, block: tuple[Array, ...]) -> tuple[Array, Any]:
        hole, row, other = visit(problem.read(block[0]), *block[1:])
        return reached + _matmul(row.T, hole), (row, other)

    nothing = jnp.zeros((classes, targets), problem.source.dtype)
    reached, (row, other) = jax.lax.scan(body, nothing, (problem.blocks, *given))
    return row, reached, other


def _finish(
    problem: Problem,
    row: Float[Array, "blocks rows classes"],
    reached: Float[Array, "classes targets"],
    lost: Float[Array, "blocks classes"],
    state: Scalings,
    log_range: Float[Array, ""],
) -> tuple[Scalings, Float[Array, " classes"]]:
    """The new column scaling, and the error of the step."""
    target = problem.target[None]
    row_total = jnp.sum(row, axis=(0, 1))
    kernel_row = row_total[:, None] - reached
    column = _divide(target, kernel_row)
    ratio = jnp.where(target > 0, column / state.column, 1)
    change = jax.lax.stop_gradient(_log_spread(ratio))
    lost_by_columns = _lost(row_total, kernel_row.T, target.T)
    rounding = jnp.maximum(jnp.max(lost, axis=0), lost_by_columns)
    error = remaining(change, state.change, log_range) + rounding
    # An infinite change is an overflow; it must not pass for a large error.
    is_exact = jnp.isfinite(change) & (rounding <= _LOSS)
    state = Scalings(jnp.moveaxis(row, 2, 0), column, change)
    return state, jax.lax.stop_gradient(jnp.where(is_exact, error, jnp.nan))


def kernel(exponent: Float[Array, "rows targets"]) -> Array:
    """Finite: the gradient of an infinite one is NaN."""
    return jnp.exp(jnp.minimum(exponent, _log_limit(exponent.dtype)))


def _log_limit(dtype: jnp.dtype) -> float:
    """Above it sums over the kernel may overflow."""
    return 0.9 * math.log(jnp.finfo(dtype).max)


def _log_spread(ratio: Float[Array, "classes targets"]) -> Float[Array, " classes"]:
    return jnp.log(jnp.max(ratio, axis=1) / jnp.min(ratio, axis=1))


def _divide(mass: Array, reached: Array) -> Array:
    """0 where there is no mass, or none is reached: infinity would break gradients."""
    is_reached = reached > 0
    return jnp.where(is_reached, mass / jnp.where(is_reached, reached, 1), 0)


def _lost(
    total: int | Float[Array, " classes"],
    reached: Float[Array, "places _"],
    mass: Float[Array, "places _"],
) -> Float[Array, " classes"]:
    """Largest relative error of ``sum(v) - E @ v``, which rounds at ``sum(v)``.

    Infinite where a mass was not reached, and so has scaling 0.
    """
    least = jnp.min(jnp.where(mass > 0, reached, jnp.inf), axis=0)
    return jax.lax.stop_gradient(
        jnp.finfo(reached.dtype).eps * total / jnp.maximum(least, 0)
    )


def remaining(
    change: Float[Array, "..."],
    previous: Float[Array, "..."],
    log_range: Float[Array, ""],
) -> Float[Array, "..."]:
    """What is left after a change: ``change * k / (1 - k)``, k^2 = change / previous.

    A kernel whose logarithm spans ``r`` contracts Hilbert's metric by a factor of
    at most ``k = tanh(r / 2)`` (Birkhoff); k / (1 - k) = (exp(r) - 1) / 2.

    The ratio of two changes is the factor of a whole step, two applications of the
    kernel. The first ratio, from an arbitrary start, was up to 7 times smaller than
    the later ones on our scenes; its root counts on one application only.
    Without a change smaller than the one before, there is only the bound.
    """
    bound = jnp.expm1(log_range) / 2
    factor = jnp.sqrt(change / previous)
    observed = jnp.where(change < previous, factor / (1 - factor), jnp.inf)
    return jnp.where(change > 0, change * jnp.minimum(observed, bound), change)


def transport(
    problem: Problem, known: Known, state: Scalings
) -> Float[Array, "classes targets"]:
    """``sum_i plan_ij cost_ij`` (Eq. 3), without the plan."""

    def visit(rows: Array, row: Array, shift: Array) -> tuple[Array, Array, None]:
        return rows * kernel(problem.exponent(rows, shift)), row, None

    row = jnp.moveaxis(state.row, 0, 2)
    _, reached, _ = _sweep(problem, visit, row, known.shift)
    return state.column * reached


def _matmul(left: Float[Array, "m k"], right: Float[Array, "k n"]) -> Array:
    """The product; with a vector, the sum of those with its two halves.

    A CPU takes as long for both as for one, which it sums up less exactly.
    """
    if left.shape[0] == 1:
        return jnp.sum(_multiply(_halves(left[0]), right), axis=0, keepdims=True)
    if right.shape[1] == 1:
        halves = _halves(right[:, 0]).T
        return jnp.sum(_multiply(left, halves), axis=1, keepdims=True)
    return _multiply(left, right)


def _halves(vector: Float[Array, " k"]) -> Float[Array, "2 k"]:
    is_first = jnp.arange(vector.size) < vector.size // 2
    return jnp.where(jnp.stack([is_first, ~is_first]), vector, 0)


def _multiply(left: Array, right: Array) -> Array:
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)
