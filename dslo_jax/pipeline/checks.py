"""Checks and decisions on the host, between two programs."""

from collections.abc import Sequence

import jax
import numpy as np

from dslo_jax.attention.options import AffinityOptions
from dslo_jax.errors import SolverError
from dslo_jax.images import Photo
from dslo_jax.pipeline.programs import SolverInput
from dslo_jax.solvers import Counts, Discrepancy, Fused, Reason, Solution


READING_STEPS = 8
"""Number of sizes that a path is compiled for: sizes are rounded up to a multiple of
this part of all patches. With more sizes, another compilation would take longer than
the smaller size saves. (The number of active classes is rounded up to a power of 2.)"""


def check_logits(
    non_finite: np.ndarray, titles: Sequence[str], photos: Sequence[Photo]
) -> None:
    """Refuse logits that are NaN, which would win every argmax, or infinite.

    Args:
        non_finite: Number of patches with such a logit, for each photo and class.
        titles: Titles of the classes.
        photos: The photos of the batch.

    Raises:
        SolverError: There is such a logit (``S01``).
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
    """Refuse solutions with a class that was not solved.

    Args:
        solution: Maps and status of every photo.
        order: Index of the class of every row of the maps.
        titles: Titles of the classes.
        discrepancy: The discrepancy that was solved for.
        affinity: Options of the affinity.

    Raises:
        SolverError: A class was not solved (``S03``); the message gives the reason.
    """
    finite = np.isfinite(solution.value).all(axis=-1) & ~np.isnan(solution.error)
    if finite.all():
        return
    photo, row = np.argwhere(~finite)[0]
    reason = Reason(int(solution.reason[photo, row]))
    epsilon = _epsilon(discrepancy)
    small = ""
    if epsilon is not None:
        small = f"epsilon = {epsilon} (0.0125 works with every affinity) and "
    raise SolverError(
        "S03",
        f"mode {discrepancy.name!r} has no solution for the class "
        f"{titles[int(order[photo, row])]!r}. {reason.sentence} Check {small}"
        f"affinity_temperature = {affinity.temperature}; networks in half precision "
        "may overflow: use float32 or bfloat16",
    )


def choose_classes(active: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Choose the active classes of each photo, padded to the same number.

    The padding repeats the first active class, which is as easy to solve as any class;
    the labels leave the padding out.

    Args:
        active: Whether a class survived early rejection, for each photo.

    Returns:
        Indices of classes ``[batch active]``, and the number of classes of each photo
        that are not padding.
    """
    counts = active.sum(axis=1)
    order = np.empty((len(active), _bucket(int(counts.max()))), np.int32)
    for row, survivors in zip(order, active, strict=True):
        indices = np.flatnonzero(survivors)
        row[:] = indices[0]
        row[: len(indices)] = indices
    return order, counts


def count(given: SolverInput, order: np.ndarray, platform: str) -> Counts:
    """Count patches and pairs with mass; the greatest numbers of the batch.

    Args:
        given: Input of the solver, for the batch.
        order: From ``choose_classes``; the padding counts like other classes.
        platform: Platform of the device, such as ``"cpu"``.
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
    """Epsilon of a path, alone or fused; ``None`` for other discrepancies."""
    if isinstance(discrepancy, Fused):
        first, second = map(_epsilon, (discrepancy.first, discrepancy.second))
        return second if first is None else first
    return getattr(discrepancy, "epsilon", None)


def _bucket(count: int) -> int:
    """The smallest power of two that is at least ``count``, and at least 2."""
    return max(2, 1 << (count - 1).bit_length())
