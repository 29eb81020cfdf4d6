"""The one loop of all solvers: a cap, a tolerance, and a status per class."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class Progress(NamedTuple):
    """What a loop carries.

    ``error`` and ``num_steps`` have one entry per class (or none at all, for a loop
    that serves all classes at once); the leaves of ``state`` start with that axis.
    """

    state: Any
    num_steps: Int[Array, "..."]
    error: Float[Array, "..."]


def begin(state: Any, error: Float[Array, "..."]) -> Progress:
    """Zero steps taken. A class whose ``error`` is NaN already will never start."""
    return Progress(state, jnp.zeros(error.shape, jnp.int32), error)


def iterate(
    step: Callable[[Any, Int[Array, "..."]], tuple[Any, Float[Array, "..."]]],
    progress: Progress,
    *,
    max_steps: int,
    tolerance: float,
    leave_at: int = 0,
) -> Progress:
    """Repeat ``step`` until every class is done.

    A class is done when its error is at most ``tolerance``, when it is NaN, or after
    ``max_steps``; a class that is done keeps its state while the others go on, so its
    result does not depend on which classes share the loop. ``tolerance=0`` never
    ends a class: it asks for exactly ``max_steps``.

    Args:
        step: Maps the state and the steps taken so far to the next state and its
            error. A state that is not finite must report NaN.
        progress: Where to begin, or to go on.
        max_steps: Cap on the number of steps of each class.
        tolerance: Error at which a class is done.
        leave_at: Leave as soon as no more than this many classes still run.

    Returns:
        The state, number of steps and error of every class.
    """

    def body(current: Progress) -> Progress:
        active = is_running(current, max_steps=max_steps, tolerance=tolerance)

        def keep(new: Array, old: Array) -> Array:
            axes = tuple(range(active.ndim, new.ndim))
            return jnp.where(jnp.expand_dims(active, axes), new, old)

        state, error = step(current.state, current.num_steps)
        return Progress(
            jax.tree.map(keep, state, current.state),
            current.num_steps + active.astype(jnp.int32),
            keep(error, current.error),
        )

    def go_on(current: Progress) -> Bool[Array, ""]:
        active = is_running(current, max_steps=max_steps, tolerance=tolerance)
        return jnp.sum(active) > leave_at

    return jax.lax.while_loop(go_on, body, progress)


def is_running(
    progress: Progress, *, max_steps: int, tolerance: float
) -> Bool[Array, "..."]:
    """True for each class that is not done (see ``iterate``)."""
    done = jnp.isnan(progress.error) | (progress.num_steps >= max_steps)
    if tolerance > 0:
        done |= progress.error <= tolerance
    return ~done


def has_converged(error: Float[Array, "..."], tolerance: float) -> Bool[Array, "..."]:
    """True where the error is a number at most ``tolerance``; NaN never converges."""
    return jnp.isfinite(error) & (error <= tolerance)
