"""The two ways to solve a transport problem: with the kernel, or in the log domain."""

from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.core
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Int32

from dslo_jax.solvers._arguments import (
    require_choice,
    require_positive,
    require_steps,
    require_tolerance,
)
from dslo_jax.solvers._log_domain import (
    NOTHING,
    log_or_nothing,
    look,
    scale_logs,
)
from dslo_jax.solvers._loop import Progress, choose, has_converged
from dslo_jax.solvers._one_row import solve_one_row
from dslo_jax.solvers._rows import Problem
from dslo_jax.solvers._scaling import Known, Options, scale, transport
from dslo_jax.solvers.solution import Reason, choose_reason


Domain = Literal["auto", "kernel", "log"]


class Solved(NamedTuple):
    """The result of either domain; a class that failed has no mass in any patch."""

    row_log: Float[Array, "classes blocks rows"]
    column_log: Float[Array, "classes targets"]
    path: Float[Array, "classes targets"]
    num_steps: Int[Array, " classes"]
    error: Float[Array, " classes"]
    reason: Int32[Array, " classes"]
    history: Float[Array, "classes steps"] | None


def require_options(epsilon: Any, options: Options) -> None:
    """Refuse options that are out of range."""
    # A traced epsilon has no value yet; `prepare` checks it when it has one.
    if not isinstance(epsilon, jax.core.Tracer):
        require_positive("epsilon", epsilon, "the paper uses 0.1")
    require_steps("max_steps", options.max_steps)
    require_tolerance(options.tolerance)
    require_choice("domain", options.domain, get_args(Domain))


def solve(
    problem: Problem, fault: Int32[Array, " classes"], options: Options
) -> Solved:
    """Solve every class whose ``fault`` is ``CONVERGED``; others keep it as reason."""
    usable = fault == Reason.CONVERGED.value
    solved = _solve(problem, usable, options)
    return solved._replace(
        reason=choose_reason((~usable, fault), otherwise=solved.reason)
    )


def _solve(
    problem: Problem, usable: Bool[Array, " classes"], options: Options
) -> Solved:
    if options.domain == "log":
        return _in_log_domain(problem, usable, options)
    solved = _with_kernel(problem, usable, options)
    if options.domain == "kernel":
        return solved
    lost = usable & jnp.isnan(solved.error)
    return jax.lax.cond(
        jnp.any(lost),
        lambda: choose(lost, _in_log_domain(problem, lost, options), solved),
        lambda: solved,
    )


def _with_kernel(problem: Problem, usable: Array, options: Options) -> Solved:
    final, known = scale(problem, usable, options)
    # Numbers that overflowed must reach neither the result nor a gradient.
    failed = jnp.isnan(final.error)
    nothing = jax.tree.map(jnp.zeros_like, final.state)
    state = choose(failed, nothing, final.state)
    path = jnp.where(failed[:, None], 0, transport(problem, known, state))
    logs = log_or_nothing(state.row), log_or_nothing(state.column)
    reason = _reason(final, known, options, Reason.KERNEL_UNDERFLOW)
    solved = Solved(*logs, path, final.num_steps, final.error, reason, final.history)
    has_one_row, exact = _with_one_row(problem, known, usable, options)
    return choose(failed & has_one_row, exact, solved)


def _in_log_domain(problem: Problem, needed: Array, options: Options) -> Solved:
    known = look(problem)
    has_one_row, exact = _with_one_row(problem, known, needed, options)
    final, path = scale_logs(problem, known, needed & ~has_one_row, options)
    nothing = jax.tree.map(lambda leaf: jnp.full_like(leaf, NOTHING), final.state)
    state = choose(jnp.isnan(final.error), nothing, final.state)
    reason = _reason(final, known, options, Reason.EPSILON_TOO_SMALL)
    logs = state.row, state.column
    solved = Solved(*logs, path, final.num_steps, final.error, reason, final.history)
    return choose(has_one_row, exact, solved)


def _with_one_row(
    problem: Problem, known: Known, usable: Array, options: Options
) -> tuple[Bool[Array, " classes"], Solved]:
    """True for each class with all its mass in one row, and the exact solution."""
    one = solve_one_row(problem, known, usable.size)
    # The first step is exact, and further steps change nothing.
    steps = options.max_steps if options.tolerance == 0 else 1
    error = jnp.full(usable.size, jnp.finfo(one.path.dtype).eps, one.path.dtype)
    reason = choose_reason(
        (has_converged(error, options.tolerance), Reason.CONVERGED),
        otherwise=Reason.STEP_CAP,
    )
    num_steps = jnp.full(usable.size, steps, jnp.int32)
    logs = one.row_log, one.column_log
    history = None
    if options.record:
        is_taken = jnp.arange(options.max_steps) < steps
        history = jnp.where(is_taken[None], error[:, None], jnp.nan)
    exact = Solved(*logs, one.path, num_steps, error, reason, history)
    return usable & one.holds, exact


def _reason(
    final: Progress, known: Known, options: Options, failure: Reason
) -> Int32[Array, " classes"]:
    """The reason of each class; ``failure`` where it failed with finite costs."""
    is_finite = jnp.all(jnp.isfinite(known.shift))
    is_stalled = final.state.estimate.is_stalled & (options.tolerance > 0)
    return choose_reason(
        (has_converged(final.error, options.tolerance), Reason.CONVERGED),
        (is_stalled & ~jnp.isnan(final.error), Reason.STALLED),
        (~jnp.isnan(final.error), Reason.STEP_CAP),
        (~is_finite, Reason.AFFINITY_NOT_FINITE),
        otherwise=failure,
    )


def by_steps(
    history: Float[Array, "classes steps"] | None,
) -> Float[Array, "steps classes"] | None:
    """The history with the axis of the steps first."""
    return None if history is None else history.T
