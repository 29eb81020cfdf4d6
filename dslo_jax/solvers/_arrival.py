"""The criteria by which a patch arrives, and the state that they need."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float


class Walk(NamedTuple):
    """State of the chain: classes and patches, in the order that suits the chain.

    Attributes:
        state: Mass of each class in each patch.
        arrival: Steps until each patch arrived; infinite until then.
    """

    state: Float[Array, "..."]
    arrival: Float[Array, "..."]


Arrive = Callable[[Array, Walk, Array], tuple[Walk, Float[Array, " classes"]]]
"""Function of the new state, the walk and ``num_steps`` to the next walk and error."""

Threshold = float | Float[Array, ""]


def begin_saturation(mass: Array, patch_axis: int, threshold: Threshold) -> Walk:
    """The walk before the first step: patches above the threshold have arrived."""
    peak = jnp.max(mass, axis=patch_axis, keepdims=True)
    state = mass / jnp.where(peak > 0, peak, 1)
    return Walk(state, jnp.where(state > threshold, 0, jnp.full_like(state, jnp.inf)))


def by_saturation(patch_axis: int, threshold: Threshold, interpolate: bool) -> Arrive:
    """A patch arrives when its state, scaled to maximum 1, exceeds the threshold."""

    def arrive(state: Array, walk: Walk, num_steps: Array) -> tuple[Walk, Array]:
        peak = jnp.max(state, axis=patch_axis)
        state /= jnp.expand_dims(jnp.where(peak > 0, peak, 1), patch_axis)
        arrives = (state > threshold) & jnp.isinf(walk.arrival)
        taken = jnp.expand_dims(num_steps, patch_axis)
        arrival = (taken + 1).astype(state.dtype)
        if interpolate:
            gain = jnp.where(taken == 0, 1 - threshold, state - walk.state)
            gain = jnp.where(arrives, gain, 1)  # 0 would make gradients NaN
            # Despite rounding, no patch may arrive before the previous step.
            arrival -= jnp.minimum((state - threshold) / gain, 1)
        walk = Walk(state, jnp.where(arrives, arrival, walk.arrival))
        missing = share_missing(walk, patch_axis)
        return walk, jnp.where(peak > 0, missing, jnp.nan)

    return arrive


def by_increment(patch_axis: int, threshold: Threshold) -> Arrive:
    """A patch arrives when a step moves its state by at most the threshold."""

    def arrive(state: Array, walk: Walk, num_steps: Array) -> tuple[Walk, Array]:
        is_still = jnp.abs(state - walk.state) <= threshold
        arrival = jnp.expand_dims(num_steps + 1, patch_axis).astype(state.dtype)
        arrives = is_still & jnp.isinf(walk.arrival)
        walk = Walk(state, jnp.where(arrives, arrival, walk.arrival))
        is_finite = jnp.isfinite(jnp.max(state, axis=patch_axis))
        missing = share_missing(walk, patch_axis)
        return walk, jnp.where(is_finite, missing, jnp.nan)

    return arrive


def share_missing(walk: Walk, patch_axis: int) -> Float[Array, " classes"]:
    """Share of the patches of each class that have not arrived."""
    missing = jnp.isinf(walk.arrival).astype(walk.state.dtype)
    return jnp.mean(missing, axis=patch_axis)
