"""The one loop of all solvers: a cap, a tolerance, a status per class, a gradient."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from dslo_jax.solvers._derivatives import backward_only, once_only


class Progress(NamedTuple):
    """What a loop carries.

    ``error`` and ``num_steps`` have one entry per class (or none at all, for a loop
    that serves all classes at once); all leaves of ``state`` have that axis in one
    place. ``history`` has it in the same place, and one more axis for the error after
    each step, NaN where there was none; or it is ``None``, and nothing is recorded.
    """

    state: Any
    num_steps: Int[Array, "..."]
    error: Float[Array, "..."]
    history: Float[Array, "..."] | None = None


Step = Callable[[Any, Any, Array], tuple[Any, Float[Array, "..."]]]
"""Maps what is given, the state and the steps taken to the next state and its error."""

GivesUp = Callable[[Any], Bool[Array, "..."]]
"""Tells from a state which classes no step would improve."""


def begin(state: Any, error: Float[Array, "..."]) -> Progress:
    """Zero steps taken. A class whose ``error`` is NaN already will never start."""
    return Progress(state, jnp.zeros(error.shape, jnp.int32), error)


def recorded(progress: Progress, max_steps: int, *, class_axis: int = 0) -> Progress:
    """With an empty history for so many steps."""
    shape = list(progress.error.shape)
    shape.insert(len(shape) if class_axis == 0 else 0, max_steps)
    nothing = jnp.full(shape, jnp.nan, progress.error.dtype)
    return progress._replace(history=nothing)


def note(
    history: Float[Array, "..."] | None,
    error: Float[Array, "..."],
    num_steps: Int[Array, "..."],
    which: Bool[Array, "..."],
    *,
    class_axis: int = 0,
) -> Float[Array, "..."] | None:
    """Write down the error after one more than ``num_steps``, of the classes given."""
    if history is None:
        return None
    axis = history.ndim - 1 if class_axis == 0 else 0  # of the steps
    steps = jnp.arange(history.shape[axis], dtype=jnp.int32)
    steps = jnp.expand_dims(steps, [a for a in range(history.ndim) if a != axis])
    error, num_steps, which = (
        jnp.expand_dims(part, axis) for part in (error, num_steps, which)
    )
    return jnp.where((steps == num_steps) & which, error, history)


def iterate(
    step: Step,
    given: Any,
    progress: Progress,
    *,
    max_steps: int,
    tolerance: float,
    leave_at: int = 0,
    class_axis: int = 0,
    gives_up: GivesUp | None = None,
) -> Progress:
    """Repeat ``step`` until every class is done.

    A class is done when its error is at most ``tolerance``, when it is NaN, or after
    ``max_steps``; a class that is done keeps its state while the others go on, so its
    result does not depend on which classes share the loop. ``tolerance=0`` never
    ends a class: it asks for exactly ``max_steps``.

    The gradient is that of the steps taken; the number of steps and the error have
    none. Going back, the states are computed again from some of them: memory for
    about ``2 * sqrt(max_steps)`` states, however many steps there were.

    Args:
        step: Maps what is given, the state and the steps taken so far to the next
            state and its error. A state that is not finite must report NaN.
        given: Arrays that every step reads; only what is in here and in ``progress``
            can have a gradient.
        progress: Where to begin, or to go on; with a history, if one is wanted.
        max_steps: Cap on the number of steps of each class.
        tolerance: Error at which a class is done.
        leave_at: Leave as soon as no more than this many classes still run.
        class_axis: The axis of classes of the leaves of the state.
        gives_up: Tells from the state which classes no step would improve; these are
            done as well, unless ``tolerance`` is 0.

    Returns:
        The state, number of steps, error and history of every class.
    """
    rule = _Rule(max_steps, tolerance, leave_at, class_axis, gives_up)
    given, progress = backward_only((given, progress))
    return _iterate(step, rule, given, progress)


def is_running(
    progress: Progress,
    *,
    max_steps: int,
    tolerance: float,
    gives_up: GivesUp | None = None,
) -> Bool[Array, "..."]:
    """True for each class that is not done (see ``iterate``)."""
    done = jnp.isnan(progress.error) | (progress.num_steps >= max_steps)
    if tolerance > 0:
        done |= progress.error <= tolerance
        if gives_up is not None:
            done |= gives_up(progress.state)
    return ~done


def has_converged(error: Float[Array, "..."], tolerance: float) -> Bool[Array, "..."]:
    """True where the error is a number at most ``tolerance``; NaN never converges."""
    return jnp.isfinite(error) & (error <= tolerance)


def choose(
    which: Bool[Array, "..."], these: Any, those: Any, *, class_axis: int = 0
) -> Any:
    """Class by class, ``these`` where ``which`` holds, elsewhere ``those``."""

    def leaf(this: Array, that: Array) -> Array:
        others = [axis for axis in range(this.ndim) if axis != class_axis]
        axes = others if which.ndim else ()  # a scalar holds for all classes
        return jnp.where(jnp.expand_dims(which, axes), this, that)

    return jax.tree.map(leaf, these, those)


class _Rule(NamedTuple):
    """When to stop; see ``iterate``."""

    max_steps: int
    tolerance: float
    leave_at: int
    class_axis: int
    gives_up: GivesUp | None

    def active(self, progress: Progress) -> Bool[Array, "..."]:
        return is_running(
            progress,
            max_steps=self.max_steps,
            tolerance=self.tolerance,
            gives_up=self.gives_up,
        )

    def choose(self, which: Bool[Array, "..."], these: Any, those: Any) -> Any:
        return choose(which, these, those, class_axis=self.class_axis)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _iterate(step: Step, rule: _Rule, given: Any, start: Progress) -> Progress:
    def body(current: Progress) -> Progress:
        active = rule.active(current)
        state, error = step(given, current.state, current.num_steps)
        return Progress(
            rule.choose(active, state, current.state),
            current.num_steps + active.astype(jnp.int32),
            jnp.where(active, error, current.error),
            note(
                current.history,
                error,
                current.num_steps,
                active,
                class_axis=rule.class_axis,
            ),
        )

    def go_on(current: Progress) -> Bool[Array, ""]:
        return jnp.sum(rule.active(current)) > rule.leave_at

    return jax.lax.while_loop(go_on, body, start)


def _forward(
    step: Step, rule: _Rule, given: Any, start: Progress
) -> tuple[Progress, Any]:
    given, start = backward_only((given, start))
    final: Any = _iterate(step, rule, given, start)
    return final, (given, start, final.num_steps - start.num_steps)


def _backward(
    step: Step, rule: _Rule, kept: tuple[Any, Progress, Array], cotangent: Progress
) -> tuple[Any, Progress]:
    """Go back segment by segment, each computed again from the state it began with."""
    (given, start, taken), cotangent = once_only((kept, cotangent))
    # Of a segment; there are no more of them.
    length = math.isqrt(max(rule.max_steps - 1, 0)) + 1
    total = jnp.max(taken)

    def advance(given: Any, state: Any, index: Array) -> Any:
        """Step number ``index`` of this loop, by the classes that took it."""
        num_steps = start.num_steps + jnp.minimum(index, taken)
        new, _ = step(given, state, num_steps)
        return rule.choose(index < taken, new, state)

    def states_from(state: Any, first: Array, stride: int) -> Any:
        """The states before the steps ``first + k * stride`` for every k."""

        def visit(offset: Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
            state, rows = carry
            is_kept = offset % stride == 0
            row = offset // stride
            rows = jax.tree.map(
                lambda rows, leaf: rows.at[row].set(
                    jnp.where(is_kept, leaf, rows[row])
                ),
                rows,
                state,
            )
            return advance(given, state, first + offset), rows

        empty = jax.tree.map(
            lambda leaf: jnp.zeros((length, *leaf.shape), leaf.dtype), state
        )
        count = jnp.minimum(total - first, length * stride)
        return jax.lax.fori_loop(0, count, visit, (state, empty))[1]

    begun = states_from(start.state, jnp.zeros_like(total), length)

    def undo_segment(number: Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        segment = (total - 1) // length - number
        first = segment * length
        states = states_from(_row(begun, segment), first, 1)
        count = jnp.minimum(length, total - first)

        def undo(number: Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
            sums, flow = carry
            offset = count - 1 - number
            take = partial(advance, index=first + offset)
            _, pull = jax.vjp(take, given, _row(states, offset))
            parts, flow = pull(flow)
            return jax.tree.map(_add_gradient, sums, parts), flow

        return jax.lax.fori_loop(0, count, undo, carry)

    nothing = jax.tree.map(jnp.zeros_like, given)
    sums, flow = jax.lax.fori_loop(
        0, -(-total // length), undo_segment, (nothing, cotangent.state)
    )
    # Indices are not differentiated.
    sums = jax.tree.map(
        lambda leaf, total: total if _has_gradient(leaf) else None, given, sums
    )
    # Steps are counted, errors reported: neither has a gradient.
    nothing = jax.tree.map(jnp.zeros_like, (start.error, start.history))
    return sums, cotangent._replace(state=flow, error=nothing[0], history=nothing[1])


def _has_gradient(leaf: Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.floating)


def _add_gradient(total: Array, part: Array) -> Array:
    return total + part if _has_gradient(total) else total


def _row(rows: Any, index: Array) -> Any:
    return jax.tree.map(lambda leaf: leaf[index], rows)


_iterate.defvjp(_forward, _backward)
