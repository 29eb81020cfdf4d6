"""A loop for discrepancies of one's own: a step, repeated until every class is done."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Int32

from dslo_jax.solvers import _loop
from dslo_jax.solvers._arguments import require_steps, require_tolerance
from dslo_jax.solvers.solution import Reason, Solution, choose_reason


class Iteration(NamedTuple):
    """The end of a loop.

    Attributes:
        state: The state of every class after its last step.
        num_steps: Steps that each class took.
        error: Error of each class after its last step; NaN if the state became NaN.
        converged: Where the error is at most the tolerance.
        reason: Why each class ended: ``CONVERGED``, ``STEP_CAP`` or ``NOT_FINITE``.
        history: With ``record``, the error after each step; NaN after the last.
    """

    state: Any
    num_steps: Int[Array, " classes"]
    error: Float[Array, " classes"]
    converged: Bool[Array, " classes"]
    reason: Int32[Array, " classes"]
    history: Float[Array, "steps classes"] | None = None

    def solution(
        self, value: Float[Array, "classes patches"] | None = None
    ) -> Solution:
        """The result of ``Discrepancy.solve``.

        Args:
            value: Map of each class; default: the state. A class whose map is NaN or
                infinite somewhere is not solved: its map is 0, its error NaN, and its
                reason ``NOT_FINITE``.

        Raises:
            ValueError: The state is no single array, and no map is given.
        """
        maps: Any = self.state if value is None else value
        if not hasattr(maps, "shape"):
            raise ValueError(
                f"the state is a {type(maps).__name__}, not a map; pass the maps of "
                "the classes: `solution(value)`"
            )
        is_finite = jnp.all(jnp.isfinite(maps), axis=1) & ~jnp.isnan(self.error)
        return Solution(
            jnp.where(is_finite[:, None], maps, 0),
            self.num_steps,
            jnp.where(is_finite, self.error, jnp.nan),
            self.converged & is_finite,
            choose_reason((~is_finite, Reason.NOT_FINITE), otherwise=self.reason),
        )


def iterate(
    step: Callable[[Any], tuple[Any, Float[Array, " classes"]]],
    start: Any,
    *,
    max_steps: int,
    tolerance: float,
    record: bool = False,
) -> Iteration:
    """Repeat a step until the error of every class is at most the tolerance.

    A class that is done keeps its state while others go on. So its result does not
    depend on the classes, and the padding, that share the loop. It runs under
    ``jax.jit`` and ``jax.vmap``.

    The result has the gradient of the steps that were taken, for ``start`` and for
    every array that ``step`` reads (reverse mode, once); the number of steps and the
    error have none. The backward pass holds about ``2 * sqrt(max_steps)`` states.

    Args:
        step: Function of the state to the next state and its error ``[classes]``: at
            least 0, and NaN ends a class. It may read any array around it.
        start: Array ``[classes, ...]``, or a tree of arrays whose first axis are the
            classes, all floats. A counter is a float array ``[classes]``.
        max_steps: Greatest number of steps, at least 1.
        tolerance: Error at which a class stops; 0 runs exactly ``max_steps``.
        record: Whether to return the error after every step.

    Returns:
        The state and the status of every class.

    Raises:
        ValueError: An option is out of range, or the step changes the shape or the type
            of the state, or its error is not ``[classes]``.

    Example:
        >>> half = lambda state: (state / 2, jnp.abs(state / 2).max(axis=1))
        >>> found = iterate(half, jnp.ones((1, 4)), max_steps=99, tolerance=0.1)
        >>> found.num_steps.tolist(), found.error.tolist()
        ([4], [0.0625])
    """
    require_steps("max_steps", max_steps)
    require_tolerance(tolerance)
    start = jax.tree.map(jnp.asarray, start)
    error = _error_of(step, start)
    # The arrays that the step reads become arguments, so that they have gradients.
    step, given = jax.closure_convert(step, start)

    def take(given: Any, state: Any, _: Array) -> tuple[Any, Array]:
        return step(state, *given)

    progress = _loop.begin(start, jnp.full(error.shape, jnp.inf, error.dtype))
    if record:
        progress = _loop.recorded(progress, max_steps)
    rule = _loop.Rule(max_steps, tolerance)
    final = _loop.iterate(take, given, progress, rule)
    converged = _loop.has_converged(final.error, tolerance)
    reason = choose_reason(
        (jnp.isnan(final.error), Reason.NOT_FINITE),
        (converged, Reason.CONVERGED),
        otherwise=Reason.STEP_CAP,
    )
    history = None if final.history is None else final.history.T  # steps first
    return Iteration(
        final.state, final.num_steps, final.error, converged, reason, history
    )


def _error_of(step: Callable[..., Any], start: Any) -> jax.ShapeDtypeStruct:
    """Shape and type of the error of a step; refuse a step that does not fit."""
    found: Any = jax.eval_shape(step, start)
    if type(found) is not tuple or len(found) != 2:
        raise ValueError(
            f"`step` returned {type(found).__name__}, expected a tuple of two: the "
            "next state, and its error for each class"
        )
    state, error = found
    before, after = map(_shapes, (start, state))
    if before != after:
        raise ValueError(
            f"`step` made a state {after} of a state {before}; shapes and types must "
            "stay as they are"
        )
    classes = jax.tree.leaves(start)[0].shape[:1]
    if error.shape != classes or not jnp.issubdtype(error.dtype, jnp.floating):
        raise ValueError(
            f"the error of `step` is {error.dtype} {list(error.shape)}, expected "
            f"floats {list(classes)}: one for each class, such as "
            "`jnp.abs(new - old).max(axis=1)`"
        )
    return error


def _shapes(tree: Any) -> str:
    return str(jax.tree.map(lambda leaf: f"{leaf.dtype} {list(leaf.shape)}", tree))
