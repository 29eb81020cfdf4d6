"""The same mathematics in float64 NumPy, as a reference for errors.

The code is independent of the solvers and reads only their options. It uses the kernels
of the paper, without subtraction and without blocks. Only rows without mass are left
out, which does not change the result.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from dslo_jax.solvers import (
    Discrepancy,
    Divergence,
    Fused,
    LabelPropagation,
    Logits,
    MaximumVelocity,
    OptimalPath,
)


_ROWS = 1024


def true_path(
    source: Float[np.ndarray, "classes patches"],
    affinity: Float[np.ndarray, "patches patches"],
    *,
    epsilon: float = 0.1,
    max_steps: int = 50,
) -> Float[np.ndarray, "classes patches"]:
    """Eq. 3-8, from the rows with mass.

    With the usual epsilon a class converges before 50 steps, also in float64.

    Memory:
        Two float64 copies of the rows with mass.
    """
    rows = np.flatnonzero((source > 0).any(axis=0))
    mass, cost = source[:, rows].astype(np.float64), affinity[rows].astype(np.float64)
    mass /= mass.sum(axis=1, keepdims=True)
    patches = cost.shape[1]
    kernel = np.exp((cost.mean() - cost) / epsilon)
    column = np.ones((len(mass), patches))
    for _ in range(max_steps):
        row = mass / (column @ kernel.T)
        new = (1 / patches) / (row @ kernel)
        ratio = new / column
        column = new
        if np.max(ratio.max(axis=1) / ratio.min(axis=1)) < 1 + 1e-14:
            break
    return column * (row @ (cost * kernel))


def true_velocity(
    source: Float[np.ndarray, "classes patches"],
    affinity: Float[np.ndarray, "patches patches"],
    *,
    threshold: float = 0.3,
    rounds: int = 15,
    max_steps: int = 1000,
) -> Float[np.ndarray, "classes patches"]:
    """Eq. 10-12, by saturation. Memory: a float64 copy of the affinity."""
    affinity = affinity.astype(np.float64)
    row = np.ones(len(affinity))
    for _ in range(rounds):
        column = 1 / (row @ affinity)
        row = 1 / (affinity @ column)
    state = source.astype(np.float64) / source.max(axis=1, keepdims=True)
    arrival = np.where(state > threshold, 0.0, np.inf)
    for step in range(1, max_steps + 1):
        on_way = np.flatnonzero(np.isinf(arrival).any(axis=1))
        if not on_way.size:
            break
        last, known = state[on_way], arrival[on_way]
        new = ((last * row) @ affinity) * column
        new /= new.max(axis=1, keepdims=True)
        arrives = (new > threshold) & np.isinf(known)
        gain = np.where(arrives, 1 - threshold if step == 1 else new - last, 1)
        arrival[on_way] = np.where(arrives, step - (new - threshold) / gain, known)
        state[on_way] = new
    return 1 / (1 + np.minimum(arrival, max_steps))


def true_kl(
    source: Float[np.ndarray, "classes patches"],
) -> Float[np.ndarray, "classes patches"]:
    """``f ln(f / t)`` with a uniform target, and 0 where f is 0 (Eq. 2)."""
    wide = source.astype(np.float64)
    ratio = np.where(wide > 0, wide * source.shape[1], 1)
    return wide * np.log(ratio)


def true_propagation(
    source: Float[np.ndarray, "classes patches"],
    affinity: Float[np.ndarray, "patches patches"],
    *,
    alpha: float = 0.9,
) -> Float[np.ndarray, "classes patches"]:
    """(1 - alpha) f (I - alpha A)^-1. Memory: three float64 copies of the affinity."""
    system = affinity.astype(np.float64)
    system /= system.sum(axis=1, keepdims=True)
    system = np.eye(len(system)) - alpha * system
    start = source / source.sum(axis=1, keepdims=True, dtype=np.float64)
    return (1 - alpha) * np.linalg.solve(system.T, start.T).T


def true_upsampled(
    values: Float[np.ndarray, "classes h w"],
    photo: Float[np.ndarray, "height width 3"],
    *,
    spatial_variance: float = 1.0,
    range_variance: float = 0.1,
    radius: int = 2,
) -> Float[np.ndarray, "classes height width"]:
    """Eq. 23, for each neighbour; the sides of the photo are multiples of the grid."""
    _, h, w = values.shape
    height, width, _ = photo.shape
    photo = photo.astype(np.float64)
    means = photo.reshape(h, height // h, w, width // w, 3).mean(axis=(1, 3))
    row, column = np.arange(height) * h // height, np.arange(width) * w // width
    y, x = (np.arange(height) + 0.5) * h / height, (np.arange(width) + 0.5) * w / width
    total, result = np.zeros((height, width)), np.zeros((len(values), height, width))
    for down in range(-radius, radius + 1):
        for right in range(-radius, radius + 1):
            near_row, near_column = row + down, column + right
            inside = ((near_row >= 0) & (near_row < h))[:, None] & (
                (near_column >= 0) & (near_column < w)
            )
            near = near_row.clip(0, h - 1)[:, None], near_column.clip(0, w - 1)[None]
            distance = (y - near_row - 0.5)[:, None] ** 2 + (x - near_column - 0.5) ** 2
            contrast = ((photo - means[near]) ** 2).sum(axis=2)
            weight = np.exp(-distance / spatial_variance - contrast / range_variance)
            weight *= inside
            total += weight
            result += weight * values[:, *near]
    return result / total


def true_attention(
    queries: Float[np.ndarray, "layers patches heads channels"],
    keys: Float[np.ndarray, "layers patches heads channels"],
) -> Float[np.ndarray, "patches patches"]:
    """Mean self-attention of all heads. Memory: the result and a block of rows."""
    layers, patches, heads, channels = queries.shape
    total = np.zeros((patches, patches))
    for layer, head in np.ndindex(layers, heads):
        query, key = (
            part[layer, :, head].astype(np.float64) for part in (queries, keys)
        )
        for first in range(0, patches, _ROWS):
            scores = query[first : first + _ROWS] @ key.T / channels**0.5
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            total[first : first + _ROWS] += weights / weights.sum(axis=1, keepdims=True)
    return total / (layers * heads)


def relative_error(
    found: Float[np.ndarray, "..."], truth: Float[np.ndarray, "..."]
) -> float:
    """Largest distance from the truth, relative to the true value at this place."""
    return float(np.max(np.abs(found - truth) / np.abs(truth)))


def scaled_error(
    found: Float[np.ndarray, "..."], truth: Float[np.ndarray, "..."]
) -> float:
    """Largest distance from the truth, relative to the greatest true magnitude."""
    return float(np.max(np.abs(found - truth)) / np.max(np.abs(truth)))


class Truth(NamedTuple):
    """The reference for the values of a discrepancy.

    Attributes:
        values: Function of a source and an affinity to ``[classes patches]``, in
            float64.
        error: Function of values and true values to the error.
    """

    values: Callable[[np.ndarray, np.ndarray], np.ndarray]
    error: Callable[[np.ndarray, np.ndarray], float]


def truth_of(discrepancy: Discrepancy) -> Truth | None:
    """The truth of a discrepancy with its options.

    Args:
        discrepancy: Any discrepancy.

    Returns:
        The truth; ``None`` where there is none: for discrepancies that are not ours,
        paths that are normalised, velocities by ``"increment"`` or in whole steps, and
        the divergence ``"target_to_source"``.
    """
    # By class: a subclass, or another class with the same name, may compute otherwise.
    if type(discrepancy) is OptimalPath and discrepancy.norm == "none":
        # Too few steps are an error of the discrepancy, not of the truth.
        steps = max(discrepancy.max_steps, OptimalPath.max_steps)
        path = partial(true_path, epsilon=discrepancy.epsilon, max_steps=steps)
        return Truth(path, relative_error)
    if type(discrepancy) is MaximumVelocity:
        return _of_velocity(discrepancy)
    if type(discrepancy) is Divergence and discrepancy.direction == "source_to_target":
        return Truth(lambda source, _: true_kl(source), scaled_error)
    if type(discrepancy) is Logits:
        return Truth(lambda source, _: source.astype(np.float64), scaled_error)
    if type(discrepancy) is LabelPropagation:
        return Truth(partial(true_propagation, alpha=discrepancy.alpha), scaled_error)
    if type(discrepancy) is Fused:
        return _of_fused(discrepancy)
    return None


def _of_velocity(velocity: MaximumVelocity) -> Truth | None:
    if velocity.criterion != "saturation" or not velocity.interpolate:
        return None
    values = partial(
        true_velocity,
        threshold=velocity.threshold,
        rounds=velocity.balancing_steps,
        max_steps=velocity.max_steps,
    )
    return Truth(values, relative_error)


def _of_fused(fused: Fused) -> Truth | None:
    parts = [truth_of(part) for part in (fused.first, fused.second)]
    if None in parts:
        return None

    def values(source: np.ndarray, affinity: np.ndarray) -> np.ndarray:
        maps = [part.values(source, affinity) for part in parts if part]
        return np.mean([(m - m.min()) / (np.ptp(m) or 1) for m in maps], axis=0)

    return Truth(values, scaled_error)
