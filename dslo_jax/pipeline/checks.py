"""What is looked at on the host between two programs."""

from collections.abc import Sequence

import jax
import numpy as np

from dslo_jax.attention.options import AffinityOptions
from dslo_jax.errors import SolverError
from dslo_jax.images import Photo
from dslo_jax.pipeline.programs import SolverInput
from dslo_jax.solvers import Counts, Discrepancy, Fused, Reason, Solution


READING_STEPS = 8
"""Sizes that a path compiles for, as parts of all patches: finer steps would save less
time than another compilation costs. (Active classes come in powers of two.)"""


def check_logits(
    non_finite: np.ndarray, titles: Sequence[str], photos: Sequence[Photo]
) -> None:
    """Refuse NaN, which would win every argmax.

    Args:
        non_finite: Patches with a NaN or infinite logit, per photo and class.
        titles: What the classes are called.
        photos: The photos of the batch.

    Raises:
        SolverError: There is one (``S01``).
    """
    if non_finite.any():
        photo, worst = np.argwhere(non_finite)[0]
        raise SolverError(
            "S01",
            f"class {titles[worst]!r} has {non_finite[photo, worst]} patches "
            f"with NaN or infinite logits in {photos[photo].path or 'the photo'}; the "
            "CLIP checkpoint overflows in this precision, use float32",
        )


def check_maps(
    solution: Solution,
    order: np.ndarray,
    titles: Sequence[str],
    discrepancy: Discrepancy,
    affinity: AffinityOptions,
) -> None:
    """Refuse maps that the solver could not find; their error is NaN.

    Args:
        solution: Maps and status of every photo.
        order: Index of the class of every row of the maps.
        titles: What the classes are called.
        discrepancy: What was solved for.
        affinity: How the affinity was made.

    Raises:
        SolverError: A class was not solved (``S03``); the message says why.
    """
    finite = np.isfinite(solution.value).all(axis=-1) & ~np.isnan(solution.error)
    if finite.all():
        return
    photo, row = np.argwhere(~finite)[0]
    reason = Reason(int(solution.reason[photo, row]))
    epsilon = _epsilon(discrepancy)
    small = ""
    if epsilon is not None:
        small = f"epsilon = {epsilon} (0.0125 suits every affinity) and at "
    raise SolverError(
        "S03",
        f"mode {discrepancy.name!r} has no solution for the class "
        f"{titles[int(order[photo, row])]!r}. {reason.sentence} Look at {small}"
        f"affinity_temperature = {affinity.temperature}; networks in half precision "
        "may overflow: use float32 or bfloat16",
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


def count(given: SolverInput, order: np.ndarray, platform: str) -> Counts:
    """The numbers that a discrepancy may want to know; the largest of the photos.

    Args:
        given: Of the batch.
        order: From ``choose_classes``; classes that fill a bucket have pairs like any.
        platform: Of the device.
    """
    patches = given.source.shape[2]
    support, kept = jax.device_get((given.support, given.kept))
    return Counts(
        rows=int(support.max()),
        pairs=int(np.take_along_axis(kept, order, axis=1).sum(axis=1).max()),
        classes=order.shape[1],
        patches=patches,
        step=-(-patches // READING_STEPS),
        platform=platform,
    )


def _epsilon(discrepancy: Discrepancy) -> float | None:
    """That of a path, by itself or fused; ``None`` where there is none."""
    if isinstance(discrepancy, Fused):
        first, second = map(_epsilon, (discrepancy.first, discrepancy.second))
        return second if first is None else first
    return getattr(discrepancy, "epsilon", None)


def _bucket(count: int) -> int:
    """The power of two that holds so many classes; at least 2."""
    return max(2, 1 << (count - 1).bit_length())
