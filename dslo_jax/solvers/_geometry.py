"""Costs given as an object: a geometry of OTT-JAX, or one that looks like it.

A geometry has the attributes ``cost_matrix`` and ``epsilon`` (ott-jax/ott,
``src/ott/geometry/geometry.py``). OTT is not imported.
"""

from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float


_USUAL_EPSILON = 0.1  # of the paper


def cost_and_epsilon(
    cost: Any, epsilon: float | Float[Array, ""] | None
) -> tuple[Any, Any]:
    """The cost and epsilon of an array or of a geometry.

    Args:
        cost: An array, or an object with ``cost_matrix`` and ``epsilon``.
        epsilon: The epsilon that was given beside it, if any.

    Raises:
        ValueError: A geometry has no dense cost or no fixed epsilon, or epsilon is
            given twice.
    """
    is_array = isinstance(cost, jax.Array | np.ndarray)
    if is_array or not (hasattr(cost, "epsilon") or hasattr(type(cost), "cost_matrix")):
        return cost, _USUAL_EPSILON if epsilon is None else epsilon
    if epsilon is not None:
        raise ValueError(
            f"`epsilon` is {epsilon!r} and the geometry has its own; give it once: "
            "leave `epsilon` out, or pass `geometry.cost_matrix`"
        )
    return _dense_cost(cost), _fixed_epsilon(cost)


def _dense_cost(geometry: Any) -> Any:
    kind = type(geometry).__name__
    try:
        found = geometry.cost_matrix
    except Exception as error:  # a geometry may raise what it likes
        reason = f": {error}" if str(error) else ""
        raise ValueError(_no_cost(kind) + reason) from error
    if found is None:
        raise ValueError(_no_cost(kind))
    return found


def _no_cost(kind: str) -> str:
    return (
        f"the geometry {kind} has no dense `cost_matrix`, which this solver reads; "
        "make one, such as ott.geometry.geometry.Geometry(cost_matrix=..., epsilon=...)"
    )


def _fixed_epsilon(geometry: Any) -> Any:
    found = getattr(geometry, "epsilon", None)
    schedule = getattr(geometry, "epsilon_scheduler", None)
    for each in (found, schedule):
        start, decay = getattr(each, "init", 1.0), getattr(each, "decay", 1.0)
        if (start, decay) != (1.0, 1.0):
            raise ValueError(
                f"the epsilon of the geometry is a schedule ({each!r}); this solver "
                "has one epsilon: pass a geometry with epsilon=geometry.epsilon, the "
                "target of the schedule, whose solution is the same"
            )
    found = getattr(found, "target", found)  # a schedule that stays at its target
    if found is None:
        raise ValueError(
            f"the geometry {type(geometry).__name__} has no `epsilon`; give it one, or "
            "pass `geometry.cost_matrix` and `epsilon`"
        )
    return found
