"""Scaling a Gibbs kernel to the marginals of every class (Eq. 6-8).

Three identities carry this file; ``docs/solvers.md`` derives them.

* ``K @ v = sum(v) - E @ v`` with ``E = 1 - K``: a cost that is small against epsilon
  makes ``E`` small, so nothing cancels and few steps reach the float32 limit.
* A row without mass has scaling 0 and is needed nowhere.
* ``sum_i plan_ij cost_ij = column_j * (row @ (cost * K))_j``.

``K`` is recomputed from the cost, one block of rows at a time, wherever it is needed:
no second N x N array is held, and a block stays in cache.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from dslo_jax.solvers._arguments import compute_dtype, usable_classes
from dslo_jax.solvers._loop import Progress, begin, iterate


BLOCK_ROWS = 256
"""Rows of the kernel at a time: 4 MiB at N = 4096, 16 MiB at N = 16384 (float32)."""


_LOSS = 1e-5
"""Relative error by cancellation from which on a class is left to the log domain."""


class Problem(NamedTuple):
    """Rows that carry mass, cut into blocks; padding repeats a row with source 0.

    The logarithm of the kernel spans ``log_range`` up to ``log_largest``.
    """

    cost: Float[Array, "blocks rows targets"]
    source: Float[Array, "blocks rows classes"]
    target: Float[Array, " targets"]
    epsilon: Float[Array, ""]
    shift: Float[Array, ""]
    log_range: Float[Array, ""]
    log_largest: Float[Array, ""]

    def exponent(self, cost: Float[Array, "rows targets"]) -> Array:
        """Logarithm of the kernel of some rows."""
        return (self.shift - cost.astype(self.shift.dtype)) / self.epsilon


class Scalings(NamedTuple):
    """State of the loop."""

    row: Float[Array, "classes blocks rows"]
    column: Float[Array, "classes targets"]
    change: Float[Array, " classes"]


def prepare(
    source: Float[Array, "classes patches"],
    cost: Float[Array, "patches targets"],
    target: Float[Array, " targets"] | None,
    epsilon: float | Float[Array, ""],
    *,
    support: int | None,
) -> tuple[Problem, Bool[Array, " padded"]]:
    """Gather what the loop reads, and say which classes can be solved."""
    dtype = compute_dtype(source, cost)
    if target is None:
        target = jnp.full(cost.shape[1], 1 / cost.shape[1], dtype)
    target, epsilon = target.astype(dtype), jnp.asarray(epsilon, dtype)
    usable = usable_classes(source.astype(dtype)) & usable_classes(target[None])
    usable &= epsilon > 0
    if source.shape[0] == 1:
        # A matrix with one column takes a slow path on CPU; an empty class is free.
        source = jnp.pad(source, ((0, 1), (0, 0)))
        usable = jnp.pad(usable, (0, 1))
    source = jnp.where(usable[:, None], source.astype(dtype), 0)
    total = jnp.sum(source, axis=1, keepdims=True)
    source *= jnp.sum(target) / jnp.where(total > 0, total, 1)
    index, is_row, fits = _rows_with_mass(source, support)
    source = jnp.where(is_row[..., None], source.T[index], 0)
    # Without a choice of rows the blocks are the matrix itself, not a copy.
    is_whole = support is None and index.size == cost.shape[0]
    rows = cost.reshape(*index.shape, -1) if is_whole else cost[index]
    statistics = _statistics(rows, is_row, epsilon)
    return Problem(rows, source, target, epsilon, *statistics), usable & fits


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
    blocks = -(-index.size // BLOCK_ROWS)
    rows = -(-index.size // blocks)
    fits = count <= index.size
    index = jnp.pad(index, (0, blocks * rows - index.size), mode="edge")
    is_row = jnp.arange(blocks * rows) < count
    return index.reshape(blocks, rows), is_row.reshape(blocks, rows), fits


def _statistics(
    cost: Float[Array, "blocks rows targets"],
    is_row: Bool[Array, "blocks rows"],
    epsilon: Float[Array, ""],
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """Mean cost without padding; span and maximum of the logarithm of the kernel."""

    def visit(
        _: None, block: tuple[Array, Array]
    ) -> tuple[None, tuple[Array, Array, Array]]:
        rows = block[0].astype(epsilon.dtype)
        means = jnp.where(block[1], jnp.mean(rows, axis=1), 0)
        return None, (means, jnp.min(rows), jnp.max(rows))

    # Neither changes the solution, so neither has a gradient.
    blocks = jax.lax.stop_gradient((cost, is_row))
    _, (means, lows, highs) = jax.lax.scan(visit, None, blocks)
    epsilon, low = jax.lax.stop_gradient(epsilon), jnp.min(lows)
    count = jnp.maximum(jnp.sum(is_row), 1).astype(epsilon.dtype)
    mean = jnp.sum(means) / count
    return mean, (jnp.max(highs) - low) / epsilon, (mean - low) / epsilon


def scale(
    problem: Problem,
    usable: Bool[Array, " classes"],
    *,
    max_steps: int,
    tolerance: float,
) -> Progress:
    """Run Eq. 8 from column scaling 1.

    A class whose kernel over- or underflows, or whose subtraction loses too many
    digits, ends with error NaN: the kernel cannot solve it.
    """
    blocks, rows, classes = problem.source.shape
    dtype = problem.source.dtype
    state = Scalings(
        jnp.zeros((classes, blocks, rows), dtype),
        jnp.ones((classes, problem.target.size), dtype),
        jnp.zeros(classes, dtype),
    )

    def step(problem: Problem, state: Scalings, _: Array) -> tuple[Scalings, Array]:
        row, column, rounding = _update(problem, state.column)
        ratio = jnp.where(problem.target[None] > 0, column / state.column, 1)
        change = _log_spread(jax.lax.stop_gradient(ratio))
        error = remaining(change, state.change, problem.log_range) + rounding
        # An infinite change is an overflow; it must not pass for a large error.
        is_exact = jnp.isfinite(change) & (rounding <= _LOSS)
        return Scalings(row, column, change), jnp.where(is_exact, error, jnp.nan)

    usable &= problem.log_largest < 0.9 * jnp.log(jnp.finfo(dtype).max)
    error = jnp.where(usable, jnp.asarray(jnp.inf, dtype), jnp.nan)
    start = begin(state, error)
    return iterate(step, problem, start, max_steps=max_steps, tolerance=tolerance)


def _log_spread(ratio: Float[Array, "classes targets"]) -> Float[Array, " classes"]:
    return jnp.log(jnp.max(ratio, axis=1) / jnp.min(ratio, axis=1))


def _update(
    problem: Problem, column: Float[Array, "classes targets"]
) -> tuple[Array, Array, Array]:
    """One step of Eq. 8 in one sweep over the blocks, and its rounding error."""
    source, target = problem.source, problem.target[None]
    total = jnp.sum(column, axis=1)

    @jax.checkpoint
    def visit(reached: Array, block: tuple[Array, Array]) -> tuple[Array, Array]:
        cost, mass = block
        hole = 1 - jnp.exp(problem.exponent(cost))
        kernel_column = total[None] - _dot(hole, column, 1, 1)
        row = _divide(mass, kernel_column)
        return reached + _dot(row, hole, 0, 0), row

    reached, row = jax.lax.scan(visit, jnp.zeros_like(column), (problem.cost, source))
    row_total = jnp.sum(row, axis=(0, 1))
    kernel_row = row_total[:, None] - reached
    new = _divide(target, kernel_row)
    kept = jax.lax.stop_gradient((row, total, row_total, kernel_row))
    return jnp.moveaxis(row, 2, 0), new, _rounding(problem, *kept)


def _divide(mass: Array, reached: Array) -> Array:
    """0 where there is no mass, or none is reached: infinity would break gradients."""
    is_reached = reached > 0
    return jnp.where(is_reached, mass / jnp.where(is_reached, reached, 1), 0)


def _rounding(
    problem: Problem,
    row: Float[Array, "blocks rows classes"],
    total: Float[Array, " classes"],
    row_total: Float[Array, " classes"],
    kernel_row: Float[Array, "classes targets"],
) -> Float[Array, " classes"]:
    """Largest relative error of ``sum(v) - E @ v``, which rounds at ``sum(v)``.

    Infinite where a mass was not reached, and so has scaling 0.
    """
    source, target = problem.source, problem.target[None]
    lost = jnp.where(row > 0, row * total[None, None] / source, jnp.inf)
    lost_row = jnp.max(jnp.where(source > 0, lost, 0), axis=(0, 1))
    lost_column = jnp.max(
        jnp.where(target > 0, row_total[:, None] / kernel_row, 0), axis=1
    )
    return jnp.finfo(row.dtype).eps * jnp.maximum(lost_row, lost_column)


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


def transport(problem: Problem, state: Scalings) -> Float[Array, "classes targets"]:
    """``sum_i plan_ij cost_ij`` (Eq. 3), without the plan."""

    @jax.checkpoint
    def visit(reached: Array, block: tuple[Array, Array]) -> tuple[Array, None]:
        cost, row = block
        carried = cost.astype(row.dtype) * jnp.exp(problem.exponent(cost))
        return reached + _dot(row, carried, 1, 0), None

    row = jnp.moveaxis(state.row, 1, 0)
    reached, _ = jax.lax.scan(visit, jnp.zeros_like(state.column), (problem.cost, row))
    return state.column * reached


def _dot(left: Array, right: Array, left_axis: int, right_axis: int) -> Array:
    """Contract one axis of two matrices without writing a transpose."""
    axes = (((left_axis,), (right_axis,)), ((), ()))
    return jax.lax.dot_general(left, right, axes, precision=jax.lax.Precision.HIGHEST)
