"""Scaling in the log domain: slower, one class at a time, at any epsilon (Eq. 8).

Where the kernel would under- or overflow, or ``sum(v) - E @ v`` cancel, the logarithms
of the scalings are iterated instead: every product with the kernel becomes a
logarithm of a sum of exponentials.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dslo_jax.solvers._loop import Progress, begin, iterate
from dslo_jax.solvers._scaling import Problem, remaining


NOTHING = -1e30
"""Logarithm of no mass: finite, for the gradient of an infinite one is NaN."""


class LogScalings(NamedTuple):
    """State of the loop, of one class or of all."""

    row: Float[Array, "*classes blocks rows"]
    column: Float[Array, "*classes targets"]
    change: Float[Array, "*classes"]


def scale_logs(
    problem: Problem,
    needed: Bool[Array, " classes"],
    *,
    max_steps: int,
    tolerance: float,
) -> tuple[Progress, Float[Array, "classes targets"]]:
    """Run Eq. 8 for the classes that need it; the others cost nothing.

    Returns:
        The logarithms of the scalings with their status, and the paths (Eq. 3). A
        class that was not needed, or failed, has error NaN and path 0.
    """

    def solve(one: tuple[Array, Array]) -> tuple[Progress, Array]:
        mass, needed = one
        final = _scale(problem, mass, needed, max_steps, tolerance)
        return final, _transport(problem, final)

    masses = jnp.moveaxis(problem.source, 2, 0)
    return jax.lax.map(solve, (masses, needed))


def _scale(
    problem: Problem,
    mass: Float[Array, "blocks rows"],
    needed: Bool[Array, ""],
    max_steps: int,
    tolerance: float,
) -> Progress:
    dtype = mass.dtype
    state = LogScalings(
        jnp.full(mass.shape, NOTHING, dtype),
        jnp.zeros(problem.target.size, dtype),
        jnp.zeros((), dtype),
    )

    def step(
        given: tuple[Problem, Array], state: LogScalings, _: Array
    ) -> tuple[LogScalings, Array]:
        problem, mass = given
        row, column = _update(problem, mass, state.column)
        moved = jax.lax.stop_gradient(column - state.column)
        some = problem.target > 0
        change = jnp.max(moved, where=some, initial=-jnp.inf)
        change -= jnp.min(moved, where=some, initial=jnp.inf)
        error = remaining(change, state.change, problem.log_range)
        error = jnp.where(jnp.isfinite(change), error, jnp.nan)
        return LogScalings(row, column, change), error

    # Beyond this the exponents are rounded by more than 1: nothing would be right.
    needed &= problem.log_range * jnp.finfo(dtype).eps < 1
    error = jnp.where(needed, jnp.asarray(jnp.inf, dtype), jnp.nan)
    start, given = begin(state, error), (problem, mass)
    return iterate(step, given, start, max_steps=max_steps, tolerance=tolerance)


def _update(
    problem: Problem,
    mass: Float[Array, "blocks rows"],
    column: Float[Array, " targets"],
) -> tuple[Float[Array, "blocks rows"], Float[Array, " targets"]]:
    """One step of Eq. 8 on logarithms, in one sweep over the blocks."""

    @jax.checkpoint
    def visit(reached: Array, block: tuple[Array, Array]) -> tuple[Array, Array]:
        cost, mass = block
        exponent = problem.exponent(cost)
        sums = jax.nn.logsumexp(column[None] + exponent, axis=1)
        row = jnp.where(mass > 0, log_or_nothing(mass) - sums, NOTHING)
        arriving = jax.nn.logsumexp(row[:, None] + exponent, axis=0)
        return jnp.logaddexp(reached, arriving), row

    nothing = jnp.full_like(column, NOTHING)
    reached, row = jax.lax.scan(visit, nothing, (problem.cost, mass))
    target = problem.target
    column = jnp.where(target > 0, log_or_nothing(target) - reached, NOTHING)
    return row, column


def _transport(problem: Problem, final: Progress) -> Float[Array, " targets"]:
    """``sum_i plan_ij cost_ij``, by a loop of one step or, if not needed, of none."""

    def step(
        given: tuple[Problem, LogScalings], reached: Array, _: Array
    ) -> tuple[Array, Array]:
        problem, scalings = given

        @jax.checkpoint
        def visit(reached: Array, block: tuple[Array, Array]) -> tuple[Array, None]:
            cost, row = block
            exponent = row[:, None] + problem.exponent(cost) + scalings.column[None]
            carried = cost.astype(row.dtype) * jnp.exp(exponent)
            return reached + jnp.sum(carried, axis=0), None

        reached, _ = jax.lax.scan(visit, reached, (problem.cost, scalings.row))
        return reached, jnp.zeros_like(final.error)

    start = begin(jnp.zeros_like(final.state.column), final.error)
    given = problem, final.state
    return iterate(step, given, start, max_steps=1, tolerance=0.0).state


def log_or_nothing(mass: Float[Array, "..."]) -> Float[Array, "..."]:
    """The logarithm of what is positive, ``NOTHING`` of what is not."""
    return jnp.where(mass > 0, jnp.log(jnp.where(mass > 0, mass, 1)), NOTHING)
