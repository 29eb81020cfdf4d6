"""What ``sinkhorn`` and ``optimal_path`` share: scaling a Gibbs kernel (Eq. 6-8).

Three identities carry this file; ``docs/solvers.md`` derives them.

* ``K @ v = sum(v) - E @ v`` with ``E = 1 - K``: a cost that is small against epsilon
  makes ``E`` small, so nothing cancels and few steps reach the float32 limit.
* A row without mass has scaling 0 and is needed nowhere.
* ``sum_i plan_ij cost_ij = column_j * (row @ (cost * K))_j``.

``K`` is recomputed from the cost, one block of rows at a time, wherever it is needed:
no N x N array is held, and a block stays in cache.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from dslo_jax.solvers._arguments import compute_dtype, usable_classes
from dslo_jax.solvers._loop import Progress, begin, iterate


_BLOCK_ROWS = 256
"""Rows of the kernel at a time: 4 MiB at N = 4096, 16 MiB at N = 16384 (float32)."""


class Problem(NamedTuple):
    """Rows that carry mass, cut into blocks; padding repeats a row with source 0."""

    cost: Float[Array, "patches targets"]
    index: Int[Array, "blocks rows"]
    source: Float[Array, "blocks rows classes"]
    target: Float[Array, " targets"]
    shift: Float[Array, ""]
    bound: Float[Array, ""]


class Scalings(NamedTuple):
    """State of the loop."""

    row: Float[Array, "classes blocks rows"]
    column: Float[Array, "classes targets"]
    change: Float[Array, " classes"]


def prepare(
    source: Float[Array, "classes patches"],
    cost: Float[Array, "patches targets"],
    target: Float[Array, " targets"] | None,
    epsilon: float,
    *,
    support: int | None,
) -> tuple[Problem, Bool[Array, " padded"]]:
    """Gather what the loop reads, and say which classes can be solved."""
    dtype = compute_dtype(source, cost)
    if target is None:
        target = jnp.full(cost.shape[1], 1 / cost.shape[1], dtype)
    target = target.astype(dtype)
    mass = jnp.sum(target)
    usable = usable_classes(source.astype(dtype)) & usable_classes(target[None])
    if source.shape[0] == 1:
        # A matrix with one column takes a slow path on CPU; an empty class is free.
        source = jnp.pad(source, ((0, 1), (0, 0)))
        usable = jnp.pad(usable, (0, 1))
    source = jnp.where(usable[:, None], source.astype(dtype), 0)
    source *= mass / jnp.maximum(
        jnp.sum(source, axis=1, keepdims=True), jnp.finfo(dtype).tiny
    )
    index, is_row, fits = _rows_with_mass(source, support)
    source = jnp.where(is_row[..., None], source.T[index], 0)
    shift, bound = _statistics(cost, index, is_row, epsilon, dtype)
    return Problem(cost, index, source, target, shift, bound), usable & fits


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
    blocks = -(-index.size // _BLOCK_ROWS)
    rows = -(-index.size // blocks)
    fits = count <= index.size
    index = jnp.pad(index, (0, blocks * rows - index.size), mode="edge")
    is_row = jnp.arange(blocks * rows) < count
    return index.reshape(blocks, rows), is_row.reshape(blocks, rows), fits


def _statistics(
    cost: Float[Array, "patches targets"],
    index: Int[Array, "blocks rows"],
    is_row: Bool[Array, "blocks rows"],
    epsilon: float,
    dtype: jax.typing.DTypeLike,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Mean cost without padding, and Birkhoff's bound on what is left after a change.

    A kernel whose logarithm spans ``r`` contracts Hilbert's metric by a factor of
    at most ``k = tanh(r / 2)``; k / (1 - k) = (exp(r) - 1) / 2.
    """

    def visit(
        _: None, rows: tuple[Array, Array]
    ) -> tuple[None, tuple[Array, Array, Array]]:
        block = cost[rows[0]].astype(dtype)
        means = jnp.where(rows[1], jnp.mean(block, axis=1), 0)
        return None, (means, jnp.min(block), jnp.max(block))

    _, (means, lows, highs) = jax.lax.scan(visit, None, (index, is_row))
    log_range = (jnp.max(highs) - jnp.min(lows)) / epsilon
    count = jnp.maximum(jnp.sum(is_row), 1).astype(dtype)
    return jnp.sum(means) / count, jnp.expm1(log_range) / 2


def scale(
    problem: Problem,
    usable: Bool[Array, " classes"],
    epsilon: float,
    max_steps: int,
    tolerance: float,
) -> Progress:
    """Run Eq. 8 from column scaling 1."""
    blocks, rows, classes = problem.source.shape
    dtype = problem.source.dtype
    state = Scalings(
        jnp.zeros((classes, blocks, rows), dtype),
        jnp.ones((classes, problem.target.size), dtype),
        jnp.zeros(classes, dtype),
    )

    def step(state: Scalings, _: Array) -> tuple[Scalings, Array]:
        row, column, rounding = _update(problem, state.column, epsilon)
        ratio = jnp.where(problem.target[None] > 0, column / state.column, 1)
        change = jnp.log(jnp.max(ratio, axis=1) / jnp.min(ratio, axis=1))
        error = _remaining(change, state.change, problem.bound) + rounding
        # An infinite change is an overflow; it must not pass for a large error.
        error = jnp.where(jnp.isfinite(change), error, jnp.nan)
        return Scalings(row, column, change), error

    error = jnp.where(usable, jnp.asarray(jnp.inf, dtype), jnp.nan)
    return iterate(step, begin(state, error), max_steps=max_steps, tolerance=tolerance)


def _update(
    problem: Problem, column: Float[Array, "classes targets"], epsilon: float
) -> tuple[Array, Array, Array]:
    """One step of Eq. 8 in one sweep over the blocks, and its rounding error."""
    source, target = problem.source, problem.target[None]
    total = jnp.sum(column, axis=1)

    def visit(reached: Array, block: tuple[Array, Array]) -> tuple[Array, Array]:
        index, mass = block
        hole = 1 - jnp.exp(_exponent(problem, index, epsilon))
        kernel_column = total[None] - _dot(hole, column, 1, 1)
        row = jnp.where(mass > 0, mass / kernel_column, 0)
        return reached + _dot(row, hole, 0, 0), row

    reached, row = jax.lax.scan(visit, jnp.zeros_like(column), (problem.index, source))
    row_total = jnp.sum(row, axis=(0, 1))
    kernel_row = row_total[:, None] - reached
    new = jnp.where(target > 0, target / kernel_row, 0)
    # sum(v) - E @ v rounds at sum(v): relative to the difference it is the quotient.
    lost_row = jnp.max(
        jnp.where(source > 0, row * total[None, None] / source, 0), axis=(0, 1)
    )
    lost_column = jnp.max(
        jnp.where(target > 0, row_total[:, None] / kernel_row, 0), axis=1
    )
    rounding = jnp.finfo(column.dtype).eps * jnp.maximum(lost_row, lost_column)
    return jnp.moveaxis(row, 2, 0), new, rounding


def _remaining(
    change: Float[Array, " classes"],
    previous: Float[Array, " classes"],
    bound: Float[Array, ""],
) -> Float[Array, " classes"]:
    """What is left after a change: ``change * k / (1 - k)``, k^2 = change / previous.

    The ratio of two changes is the factor of a whole step, two applications of the
    kernel. The first ratio, from an arbitrary start, was up to 7 times smaller than
    the later ones on our scenes; its root counts on one application only.
    Without a change smaller than the one before, there is only the bound.
    """
    factor = jnp.sqrt(change / previous)
    observed = jnp.where(change < previous, factor / (1 - factor), jnp.inf)
    return jnp.where(change > 0, change * jnp.minimum(observed, bound), change)


def transport(
    problem: Problem, state: Scalings, epsilon: float
) -> Float[Array, "classes targets"]:
    """``sum_i plan_ij cost_ij`` (Eq. 3), without the plan."""

    def visit(reached: Array, block: tuple[Array, Array]) -> tuple[Array, None]:
        index, row = block
        carried = problem.cost[index].astype(row.dtype) * jnp.exp(
            _exponent(problem, index, epsilon)
        )
        return reached + _dot(row, carried, 1, 0), None

    row = jnp.moveaxis(state.row, 1, 0)
    reached, _ = jax.lax.scan(visit, jnp.zeros_like(state.column), (problem.index, row))
    return state.column * reached


def _exponent(
    problem: Problem, index: Int[Array, " rows"], epsilon: float
) -> Float[Array, "rows targets"]:
    cost = problem.cost[index].astype(problem.shift.dtype)
    return (problem.shift - cost) / epsilon


def _dot(left: Array, right: Array, left_axis: int, right_axis: int) -> Array:
    """Contract one axis of two matrices without writing a transpose."""
    axes = (((left_axis,), (right_axis,)), ((), ()))
    return jax.lax.dot_general(left, right, axes, precision=jax.lax.Precision.HIGHEST)
