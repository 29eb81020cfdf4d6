"""Checks of arguments before tracing, and the conversion of arrays."""

import math
from numbers import Integral
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int32

from dslo_jax.solvers.solution import Reason, choose_reason


def require_positive(name: str, value: Any, remedy: str) -> None:
    """Refuse everything but a positive finite number."""
    if not 0 < _as_number(value) < math.inf:
        raise ValueError(f"`{name}` is {value!r}, expected a number > 0; {remedy}")


def require_tolerance(value: Any) -> None:
    """Refuse everything but a finite number of at least 0."""
    if not 0 <= _as_number(value) < math.inf:
        raise ValueError(
            f"`tolerance` is {value!r}, expected a number >= 0; "
            "0 runs exactly `max_steps`, 1e-6 is near the float32 limit"
        )


def require_threshold(value: Any) -> None:
    """Refuse everything but a number in (0, 1]; a traced one has no value yet."""
    if not isinstance(value, jax.core.Tracer) and not 0 < _as_number(value) <= 1:
        raise ValueError(
            f"`threshold` is {value!r}, expected a number in (0, 1]; the paper uses 0.3"
        )


def require_steps(name: str, value: Any) -> None:
    """Refuse everything but a whole number of at least 1."""
    if not isinstance(value, Integral) or value < 1:
        raise ValueError(f"`{name}` is {value!r}, expected an integer >= 1")


def _as_number(value: Any) -> float:
    """The value as a float; NaN if it is no number."""
    try:
        return math.nan if isinstance(value, str) else float(value)
    except TypeError:
        return math.nan


def require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a value that is not one of the choices."""
    if value not in choices:
        raise ValueError(f"`{name}` is {value!r}, expected one of {choices}")


def as_arrays(*arrays: Any) -> tuple[Array, ...]:
    """Convert to JAX arrays; float64 is kept only if ``jax_enable_x64`` is on."""
    return tuple(map(jnp.asarray, arrays))


def require_source(source: Array) -> None:
    """Refuse a source that is not [classes, patches] with at least one of each."""
    if source.ndim != 2 or 0 in source.shape:
        raise ValueError(
            f"`source` has shape {source.shape}, expected [classes, patches] with at "
            "least one of each; reshape a [classes, height, width] map to two axes"
        )


def require_affinity(affinity: Array, source: Array) -> None:
    """Refuse an affinity that is not [patches, patches]."""
    patches = source.shape[1]
    if affinity.shape != (patches, patches):
        raise ValueError(
            f"`affinity` has shape {affinity.shape}, expected {(patches, patches)} "
            f"for a `source` of shape {source.shape}; bring both to one patch grid"
        )


def require_given(affinity: Array | np.ndarray | None) -> Array | np.ndarray:
    """The affinity, for a discrepancy that needs it; refuse ``None``."""
    if affinity is None:
        raise ValueError(
            "`affinity` is None, expected [patches, patches]: this discrepancy reads it"
        )
    return affinity


def compute_dtype(*arrays: Array) -> DTypeLike:
    """Type of the computation: float64 if an array has it, otherwise float32."""
    wide = any(array.dtype == jnp.float64 for array in arrays)
    return jnp.float64 if wide else jnp.float32


def find_fault(source: Float[Array, "classes patches"]) -> Int32[Array, " classes"]:
    """The reason why each class cannot be solved; ``CONVERGED`` for a distribution."""
    total = jnp.sum(source, axis=1)  # finite only if every entry is
    return choose_reason(
        (~jnp.isfinite(total), Reason.SOURCE_NOT_FINITE),
        (jnp.any(source < 0, axis=1), Reason.SOURCE_NEGATIVE),
        (total <= 0, Reason.NO_MASS),
    )
