"""What is looked at on the host between two stages."""

import jax
import numpy as np

from dslo_jax import solvers
from dslo_jax.config import SegmenterConfig
from dslo_jax.errors import SolverError
from dslo_jax.images import Photo
from dslo_jax.pipeline import Discrepancy, Sources
from dslo_jax.prompts import ClassList
from dslo_jax.solvers import Reading


READING_STEPS = 8
"""Sizes that a path compiles for, as parts of all patches: finer steps would save less
time than another compilation costs. (Active classes come in powers of two.)"""


def check_logits(
    non_finite: np.ndarray, classes: ClassList, photos: list[Photo]
) -> None:
    """Refuse NaN, which would win every argmax.

    Args:
        non_finite: Patches with a NaN or infinite logit, per photo and class.
        classes: All classes.
        photos: The photos of the batch.

    Raises:
        SolverError: There is one (``S01``).
    """
    if non_finite.any():
        photo, worst = np.argwhere(non_finite)[0]
        raise SolverError(
            "S01",
            f"class {classes.titles[worst]!r} has {non_finite[photo, worst]} patches "
            f"with NaN or infinite logits in {photos[photo].path or 'the photo'}; the "
            "CLIP checkpoint overflows in this precision, use float32",
        )


def check_maps(solved: Discrepancy, config: SegmenterConfig) -> None:
    """Refuse maps that the solver could not find; their error is NaN.

    Args:
        solved: Maps and status of every photo.
        config: Choices of the method.

    Raises:
        SolverError: A class was not solved (``S03``).
    """
    if np.isnan(solved.error).any() or not np.isfinite(solved.values).all():
        small = f" or epsilon = {config.epsilon} is too small (0.0125 suits every one),"
        raise SolverError(
            "S03",
            f"mode {config.mode!r} has no solution: the affinity is not finite or has "
            f"an empty row or column,{small if config.mode != 'velocity' else ''} or "
            f"affinity_temperature = {config.affinity_temperature} is too far from 1. "
            "Half precision may overflow: use float32 or bfloat16",
        )


def choose_classes(active: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The surviving classes of each photo, padded to a bucket that all share.

    Padding repeats the first survivor: the solver meets nothing unusual in it, and the
    labels leave it out.
    """
    counts = active.sum(axis=1)
    order = np.empty((len(active), _bucket(int(counts.max()))), np.int32)
    for row, survivors in zip(order, active, strict=True):
        indices = np.flatnonzero(survivors)
        row[:] = indices[0]
        row[: len(indices)] = indices
    return order, counts


def choose_reading(sources: Sources, order: np.ndarray, platform: str) -> Reading:
    """What a path reads of the affinity of every photo; the largest counts decide.

    Args:
        sources: Of the batch.
        order: From ``choose_classes``; classes that fill a bucket have pairs like any.
        platform: Of the device.
    """
    support, kept = jax.device_get((sources.support, sources.kept))
    patches = sources.source.shape[2]
    return solvers.choose_reading(
        rows=int(support.max()),
        pairs=int(np.take_along_axis(kept, order, axis=1).sum(axis=1).max()),
        classes=order.shape[1],
        patches=patches,
        step=-(-patches // READING_STEPS),
        platform=platform,
    )


def _bucket(count: int) -> int:
    """The power of two that holds so many classes; at least 2."""
    return max(2, 1 << (count - 1).bit_length())
