"""The loop of all solvers: a cap, a tolerance, a status for each class, a gradient."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from dslo_jax.solvers._derivatives import backward_only, once_only


class Progress(NamedTuple):
    """State of a loop between two steps.

    ``error`` and ``num_steps`` have one entry for each class; they are scalars if the
    loop serves all classes at once. Every leaf of ``state`` has the axis of the classes
    in the same place.

    Attributes:
        state: Arrays that a step changes.
        num_steps: Steps that each class has taken.
        error: Error of each class after its last step.
        history: Errors after every step, NaN for steps that were not taken; the axis of
            the steps is added to the axis of the classes. ``None`` records nothing.
    """

    state: Any
    num_steps: Int[Array, "..."]
    error: Float[Array, "..."]
    history: Float[Array, "..."] | None = None


Step = Callable[[Any, Any, Array], tuple[Any, Float[Array, "..."]]]
"""Function of constants, a state and ``num_steps`` to the next state and its error."""


class Rule(NamedTuple):
    """The conditions under which a class stops.

    Attributes:
        max_steps: Greatest number of steps of a class.
        tolerance: Error at which a class stops; 0 asks for exactly ``max_steps``.
        leave_at: The loop ends when no more than this many classes still run.
        class_axis: Axis of the classes in the leaves of the state.
        gives_up: Function of the state: the classes that no step would improve. They
            stop as well, unless ``tolerance`` is 0.
    """

    max_steps: int
    tolerance: float
    leave_at: int = 0
    class_axis: int = 0
    gives_up: Callable[[Any], Bool[Array, "..."]] | None = None

    def is_running(self, progress: Progress) -> Bool[Array, "..."]:
        """Whether each class takes another step."""
        done = jnp.isnan(progress.error) | (progress.num_steps >= self.max_steps)
        if self.tolerance > 0:
            done |= progress.error <= self.tolerance
            if self.gives_up is not None:
                done |= self.gives_up(progress.state)
        return ~done

    def choose(self, which: Bool[Array, "..."], these: Any, those: Any) -> Any:
        """See ``choose``, with the axis of this rule."""
        return choose(which, these, those, class_axis=self.class_axis)


def begin(state: Any, error: Float[Array, "..."]) -> Progress:
    """Progress before the first step; a class whose ``error`` is NaN takes no step."""
    return Progress(state, jnp.zeros(error.shape, jnp.int32), error)


def recorded(progress: Progress, max_steps: int, *, class_axis: int = 0) -> Progress:
    """The same progress with an empty history for ``max_steps`` steps."""
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
    """Record the error after step ``num_steps + 1`` of the classes in ``which``."""
    if history is None:
        return None
    axis = history.ndim - 1 if class_axis == 0 else 0  # the axis of the steps
    steps = jnp.arange(history.shape[axis], dtype=jnp.int32)
    steps = jnp.expand_dims(steps, [a for a in range(history.ndim) if a != axis])
    error, num_steps, which = (
        jnp.expand_dims(part, axis) for part in (error, num_steps, which)
    )
    return jnp.where((steps == num_steps) & which, error, history)


def iterate(step: Step, given: Any, progress: Progress, rule: Rule) -> Progress:
    """Repeat ``step`` until every class stops.

    A class stops when its error is at most the tolerance or NaN, and after
    ``max_steps``. It keeps its state while other classes go on, so its result does not
    depend on the classes that share the loop.

    The gradient is that of the steps taken; the number of steps and the error have
    none. The backward pass computes most states again, and holds about
    ``2 * sqrt(max_steps)`` of them.

    Args:
        step: Must return the error NaN for a state that is not finite.
        given: Constant arrays that every step reads. Only ``given`` and ``progress``
            can have a gradient.
        progress: Progress to start from, with a history if one is wanted.
        rule: When a class stops.

    Returns:
        The state, number of steps, error and history of every class.
    """
    given, progress = backward_only((given, progress))
    return _iterate(step, rule, given, progress)


def has_converged(error: Float[Array, "..."], tolerance: float) -> Bool[Array, "..."]:
    """Whether the error is at most ``tolerance``; NaN is not."""
    return jnp.isfinite(error) & (error <= tolerance)


def choose(
    which: Bool[Array, "..."], these: Any, those: Any, *, class_axis: int = 0
) -> Any:
    """Choose for each class: ``these`` where ``which`` holds, ``those`` elsewhere."""

    def leaf(this: Array, that: Array) -> Array:
        others = [axis for axis in range(this.ndim) if axis != class_axis]
        axes = others if which.ndim else ()  # a scalar holds for all classes
        return jnp.where(jnp.expand_dims(which, axes), this, that)

    return jax.tree.map(leaf, these, those)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _iterate(step: Step, rule: Rule, given: Any, start: Progress) -> Progress:
    def body(current: Progress) -> Progress:
        runs, taken, axis = rule.is_running(current), current.num_steps, rule.class_axis
        state, error = step(given, current.state, taken)
        return Progress(
            rule.choose(runs, state, current.state),
            taken + runs.astype(jnp.int32),
            jnp.where(runs, error, current.error),
            note(current.history, error, taken, runs, class_axis=axis),
        )

    def go_on(current: Progress) -> Bool[Array, ""]:
        return jnp.sum(rule.is_running(current)) > rule.leave_at

    return jax.lax.while_loop(go_on, body, start)


def _forward(
    step: Step, rule: Rule, given: Any, start: Progress
) -> tuple[Progress, Any]:
    given, start = backward_only((given, start))
    final: Any = _iterate(step, rule, given, start)
    return final, (given, start, final.num_steps - start.num_steps)


class _Replay(NamedTuple):
    """The steps of a loop that has ended, to be taken again.

    Attributes:
        step: Step of the loop.
        rule: Rule of the loop.
        num_steps: Steps that each class had taken before the loop.
        taken: Steps that each class took in the loop.
    """

    step: Step
    rule: Rule
    num_steps: Int[Array, "..."]
    taken: Int[Array, "..."]

    def advance(self, given: Any, state: Any, index: Array) -> Any:
        """Take step ``index`` of the loop, with the classes that took it."""
        num_steps = self.num_steps + jnp.minimum(index, self.taken)
        new, _ = self.step(given, state, num_steps)
        return self.rule.choose(index < self.taken, new, state)

    def states(
        self, given: Any, state: Any, first: Array, *, count: int, stride: int
    ) -> Any:
        """The states before the steps ``first + k * stride``, for k below ``count``.

        ``state`` is the state before step ``first``.
        """

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
            return self.advance(given, state, first + offset), rows

        empty = jax.tree.map(
            lambda leaf: jnp.zeros((count, *leaf.shape), leaf.dtype), state
        )
        steps = jnp.minimum(jnp.max(self.taken) - first, count * stride)
        return jax.lax.fori_loop(0, steps, visit, (state, empty))[1]


def _backward(
    step: Step, rule: Rule, kept: tuple[Any, Progress, Array], cotangent: Progress
) -> tuple[Any, Progress]:
    """Go back segment by segment; the states of a segment are computed again."""
    (given, start, taken), cotangent = once_only((kept, cotangent))
    replay = _Replay(step, rule, start.num_steps, taken)
    total = jnp.max(taken)
    # Steps of a segment, and the greatest number of segments.
    length = math.isqrt(max(rule.max_steps - 1, 0)) + 1
    zero = jnp.zeros_like(total)
    begun = replay.states(given, start.state, zero, count=length, stride=length)

    def undo_segment(number: Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        segment = (total - 1) // length - number
        first = segment * length
        before = _row(begun, segment)
        states = replay.states(given, before, first, count=length, stride=1)
        count = jnp.minimum(length, total - first)

        def undo(number: Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
            sums, flow = carry
            offset = count - 1 - number
            take = partial(replay.advance, index=first + offset)
            _, pull = jax.vjp(take, given, _row(states, offset))
            parts, flow = pull(flow)
            return jax.tree.map(_add_gradient, sums, parts), flow

        return jax.lax.fori_loop(0, count, undo, carry)

    nothing = jax.tree.map(jnp.zeros_like, given)
    sums, flow = jax.lax.fori_loop(
        0, -(-total // length), undo_segment, (nothing, cotangent.state)
    )
    # Integers, which are indices, have no gradient.
    sums = jax.tree.map(
        lambda leaf, total: total if _has_gradient(leaf) else None, given, sums
    )
    # Neither have the number of steps, the error and the history.
    error, history = jax.tree.map(jnp.zeros_like, (start.error, start.history))
    return sums, cotangent._replace(state=flow, error=error, history=history)


def _has_gradient(leaf: Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.floating)


def _add_gradient(total: Array, part: Array) -> Array:
    return total + part if _has_gradient(total) else total


def _row(rows: Any, index: Array) -> Any:
    return jax.tree.map(lambda leaf: leaf[index], rows)


_iterate.defvjp(_forward, _backward)
