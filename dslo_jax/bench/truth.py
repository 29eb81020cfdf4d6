"""The same mathematics in float64 NumPy, stated plainly: what errors are measured from.

Independent of the solvers, of which only the options are read: kernels as they stand
in the paper, no subtraction, no blocks. What is exact to leave out is left out: rows
without mass.
"""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from dslo_jax.solvers import (
    Discrepancy,
    Divergence,
    Fused,
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
    """Eq. 3-8, on the rows with mass. Memory: two float64 copies of these rows.

    At the usual epsilon a class is done before 50 steps, in float64 too.
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
    """Eq. 10-12 by saturation. Memory: a float64 copy of the affinity."""
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
    """``f ln(f / t)`` with a uniform target, 0 where f is 0 (Eq. 2)."""
    wide = source.astype(np.float64)
    ratio = np.where(wide > 0, wide * source.shape[1], 1)
    return wide * np.log(ratio)


def true_upsampled(
    values: Float[np.ndarray, "classes h w"],
    photo: Float[np.ndarray, "height width 3"],
    *,
    spatial_variance: float = 1.0,
    range_variance: float = 0.1,
    radius: int = 2,
) -> Float[np.ndarray, "classes height width"]:
    """Eq. 23, one neighbour after another; the photo is a multiple of the grid."""
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
    """Mean self-attention of all heads. Memory: the result, and a block of rows."""
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
    """Largest distance from the truth, each relative to what is true there."""
    return float(np.max(np.abs(found - truth) / np.abs(truth)))


def scaled_error(
    found: Float[np.ndarray, "..."], truth: Float[np.ndarray, "..."]
) -> float:
    """Largest distance from the truth, relative to its largest magnitude."""
    return float(np.max(np.abs(found - truth)) / np.max(np.abs(truth)))


class Truth(NamedTuple):
    """What a discrepancy is measured against.

    Attributes:
        values: Maps a source and an affinity to ``[classes patches]``, in float64.
        error: Distance of values from these.
    """

    values: Callable[[np.ndarray, np.ndarray], np.ndarray]
    error: Callable[[np.ndarray, np.ndarray], float]


def truth_of(discrepancy: Discrepancy) -> Truth | None:
    """The truth of a discrepancy with its options.

    Args:
        discrepancy: Ours, or anybody's.

    Returns:
        None where it is not stated here: for discrepancies of other classes than ours,
        paths that are normalised, velocities in whole steps, and the other direction of
        the divergence.
    """
    stated = _TRUTHS.get(type(discrepancy))
    return None if stated is None else stated(discrepancy)


def _of_path(path: OptimalPath) -> Truth | None:
    if path.norm != "none":
        return None
    steps = max(path.max_steps, OptimalPath.max_steps)  # few are no excuse
    values = partial(true_path, epsilon=path.epsilon, max_steps=steps)
    return Truth(values, relative_error)


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


def _of_kl(divergence: Divergence) -> Truth | None:
    if divergence.direction != "source_to_target":
        return None
    return Truth(lambda source, _: true_kl(source), scaled_error)


def _of_logits(_: Logits) -> Truth:
    return Truth(lambda source, _: source.astype(np.float64), scaled_error)


def _of_fused(fused: Fused) -> Truth | None:
    parts = [truth_of(part) for part in (fused.first, fused.second)]
    if None in parts:
        return None

    def values(source: np.ndarray, affinity: np.ndarray) -> np.ndarray:
        maps = [part.values(source, affinity) for part in parts if part]
        return np.mean([(m - m.min()) / (np.ptp(m) or 1) for m in maps], axis=0)

    return Truth(values, scaled_error)


# By class, as in ``cost/solvers.py``.
_TRUTHS: Mapping[type[Discrepancy], Callable[[Any], Truth | None]] = MappingProxyType(
    {
        OptimalPath: _of_path,
        MaximumVelocity: _of_velocity,
        Divergence: _of_kl,
        Logits: _of_logits,
        Fused: _of_fused,
    }
)
