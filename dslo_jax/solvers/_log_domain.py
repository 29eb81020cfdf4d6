"""Scaling in the log domain: slower, one class at a time, for any epsilon (Eq. 8).

It is used where the kernel underflows or overflows, or where ``sum(v) - E @ v`` loses
too many digits. The loop computes the logarithms of the scalings: every product with
the kernel becomes a logarithm of a sum of exponentials.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dslo_jax.solvers._error import Estimate, begin_estimate
from dslo_jax.solvers._loop import Progress, Rule, begin, iterate, recorded
from dslo_jax.solvers._rows import Block, Problem
from dslo_jax.solvers._scaling import Known, Options, mean_cost


NOTHING = -1e30
"""Logarithm of no mass. It is finite, because infinity would make gradients NaN."""


class LogScalings(NamedTuple):
    """State of the loop, of one class or of all."""

    row: Float[Array, "*classes blocks rows"]
    column: Float[Array, "*classes targets"]
    estimate: Estimate


def scale_logs(
    problem: Problem,
    known: Known,
    needed: Bool[Array, " classes"],
    options: Options,
) -> tuple[Progress, Float[Array, "classes targets"]]:
    """Run Eq. 8 for the classes in ``needed``; the others take no time.

    Returns:
        The logarithms of the scalings with their status, and the paths (Eq. 3). A
        class that is not needed or fails has error NaN and path 0.
    """
    # Beyond this the exponents are rounded by more than 1, and no digit is right.
    needed &= known.log_range * jnp.finfo(known.shift.dtype).eps < 1

    def solve(one: tuple[Array, Array]) -> tuple[Progress, Array]:
        mass, needed = one
        start = _begin(problem, mass, needed)
        start = recorded(start, options.max_steps) if options.record else start
        final = _scale(problem, known, mass, start, options)
        return final, _transport(problem, known, final)

    masses = problem.by_class(problem.source, needed.size)
    return jax.lax.map(solve, (masses, needed))


def look(problem: Problem) -> Known:
    """Read the rows once, before the first step."""

    def visit(_: None, block: Block) -> tuple[None, tuple[Array, Array, Array]]:
        rows = problem.read(block)
        shift = mean_cost(rows)
        return None, (shift, *problem.extremes(rows, shift))

    _, found = jax.lax.scan(visit, None, problem.blocks)
    return Known.of(*found)


def _begin(
    problem: Problem, mass: Float[Array, "blocks rows"], needed: Bool[Array, ""]
) -> Progress:
    dtype = mass.dtype
    state = LogScalings(
        jnp.full(mass.shape, NOTHING, dtype),
        jnp.zeros(problem.target.size, dtype),
        begin_estimate((), dtype),
    )
    return begin(state, jnp.where(needed, jnp.asarray(jnp.inf, dtype), jnp.nan))


def _scale(
    problem: Problem,
    known: Known,
    mass: Float[Array, "blocks rows"],
    start: Progress,
    options: Options,
) -> Progress:
    def step(
        given: tuple[Problem, Known, Array], state: LogScalings, _: Array
    ) -> tuple[LogScalings, Array]:
        problem, known, mass = given
        row, column = _update(problem, known, mass, state.column)
        moved = column - state.column
        some = problem.target > 0
        change = jnp.max(moved, where=some, initial=-jnp.inf)
        change -= jnp.min(moved, where=some, initial=jnp.inf)
        # Logarithms are rounded at their own size.
        largest = jnp.maximum(_largest(row, mass > 0), _largest(column, some))
        rounding = jnp.finfo(mass.dtype).eps * jnp.maximum(largest, 1)
        estimate = state.estimate.after(change, rounding)
        error = jax.lax.stop_gradient(estimate.error(known.log_range))
        error = jnp.where(jnp.isfinite(change), error, jnp.nan)
        return LogScalings(row, column, estimate), error

    return iterate(step, (problem, known, mass), start, options.rule)


def _largest(logs: Float[Array, "..."], where: Bool[Array, "..."]) -> Array:
    return jnp.max(jnp.abs(logs), where=where, initial=0)


def _update(
    problem: Problem,
    known: Known,
    mass: Float[Array, "blocks rows"],
    column: Float[Array, " targets"],
) -> tuple[Float[Array, "blocks rows"], Float[Array, " targets"]]:
    """One step of Eq. 8 on logarithms, in one sweep over the blocks."""

    @jax.checkpoint
    def visit(reached: Array, block: tuple[Any, ...]) -> tuple[Array, Array]:
        rows, mass, shift = block
        exponent = problem.exponent(problem.read(rows), shift)
        sums = jax.nn.logsumexp(column[None] + exponent, axis=1)
        row = jnp.where(mass > 0, log_or_nothing(mass) - sums, NOTHING)
        arriving = jax.nn.logsumexp(row[:, None] + exponent, axis=0)
        return jnp.logaddexp(reached, arriving), row

    nothing = jnp.full_like(column, NOTHING)
    blocks = problem.blocks, mass, known.shift
    reached, row = jax.lax.scan(visit, nothing, blocks)
    target = problem.target
    column = jnp.where(target > 0, log_or_nothing(target) - reached, NOTHING)
    return row, column


def _transport(
    problem: Problem, known: Known, final: Progress
) -> Float[Array, " targets"]:
    """``sum_i plan_ij cost_ij``, by a loop of one step; of none for a failed class."""

    def step(
        given: tuple[Problem, Known, LogScalings], reached: Array, _: Array
    ) -> tuple[Array, Array]:
        problem, known, scalings = given

        @jax.checkpoint
        def visit(reached: Array, block: tuple[Any, ...]) -> tuple[Array, None]:
            rows, row, shift = block
            cost = problem.read(rows)
            exponent = problem.exponent(cost, shift)
            exponent = row[:, None] + exponent + scalings.column[None]
            return reached + jnp.sum(cost * jnp.exp(exponent), axis=0), None

        blocks = problem.blocks, scalings.row, known.shift
        reached, _ = jax.lax.scan(visit, reached, blocks)
        return reached, jnp.zeros_like(final.error)

    start = begin(jnp.zeros_like(final.state.column), final.error)
    given = problem, known, final.state
    return iterate(step, given, start, Rule(1, 0.0)).state


def log_or_nothing(mass: Float[Array, "..."]) -> Float[Array, "..."]:
    """The logarithm of each positive number, and ``NOTHING`` for all others."""
    return jnp.where(mass > 0, jnp.log(jnp.where(mass > 0, mass, 1)), NOTHING)
