"""Checks of arguments before anything is traced, and the one cast at the boundary."""

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float


def require_positive(name: str, value: float, remedy: str) -> None:
    """Refuse zero, negative values, NaN and infinity."""
    if not 0 < value < float("inf"):
        raise ValueError(f"`{name}` is {value}, expected a number > 0; {remedy}")


def require_tolerance(value: float) -> None:
    """Refuse negative values, NaN and infinity."""
    if not 0 <= value < float("inf"):
        raise ValueError(
            f"`tolerance` is {value}, expected a number >= 0; "
            "0 runs exactly `max_steps`, 1e-6 is near the float32 limit"
        )


def require_steps(name: str, value: int) -> None:
    """Refuse less than one step."""
    if value < 1:
        raise ValueError(f"`{name}` is {value}, expected an integer >= 1")


def require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a word that is not on the list."""
    if value not in choices:
        raise ValueError(f"`{name}` is {value!r}, expected one of {choices}")


def require_source(source: Array) -> None:
    """Refuse anything but [classes, patches] with at least one of each."""
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


def compute_dtype(*arrays: Array) -> DTypeLike:
    """float32, whatever the networks used; float64 if that is what came."""
    wide = any(array.dtype == jnp.float64 for array in arrays)
    return jnp.float64 if wide else jnp.float32


def usable_classes(source: Float[Array, "classes patches"]) -> Bool[Array, " classes"]:
    """True where a class is finite, nowhere negative, and carries mass."""
    total = jnp.sum(source, axis=1)  # finite only if every entry is
    return jnp.isfinite(total) & (total > 0) & jnp.all(source >= 0, axis=1)
