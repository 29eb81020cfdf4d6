"""Checks and decisions on the host, between two programs."""

from collections.abc import Sequence

import jax
import numpy as np

from dslo_jax.attention.options import AffinityOptions
from dslo_jax.errors import SolverError
from dslo_jax.images import Photo
from dslo_jax.pipeline.placement import Placement
from dslo_jax.pipeline.programs import SolverInput
from dslo_jax.solvers import Counts, Discrepancy, Fused, Reason, Solution
from dslo_jax.solvers.contract import own_parts


FEWEST_CLASSES = 24
"""Smallest number of classes that a solver is compiled for, unless the list is shorter.
With less than 32, the maximum velocity needs no transposed copy of the affinity. On a
CPU, 24 classes instead of 8 cost the maximum velocity nothing, and a path of 4096
patches some milliseconds; another program takes seconds to compile."""

GROWTH = 4
"""Ratio of each number of classes to the one before."""

FEWEST_ROWS = 256
READING_PARTS = 8
"""A path is compiled for at least so many rows of the affinity, and for at least this
part of all rows (an eighth). Each further number of rows is twice the one before."""


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
            f"with NaN or infinite logits in {photos[photo].path or 'the photo'}; if "
            "they are from CLIP, it overflows in this precision: use float32; if they "
            "are your own, remove these values",
        )


def check_maps(
    solution: Solution,
    order: np.ndarray,
    counts: np.ndarray,
    titles: Sequence[str],
    discrepancy: Discrepancy,
    affinity: AffinityOptions,
) -> None:
    """Refuse solutions with a class that was not solved.

    Args:
        solution: Maps and status of every photo.
        order: Index of the class of every row of the maps.
        counts: Number of rows of each photo that are not padding.
        titles: Titles of the classes.
        discrepancy: The discrepancy that was solved for.
        affinity: Options of the affinity.

    Raises:
        SolverError: A class was not solved (``S03``); the message gives the reason.
    """
    finite = np.isfinite(solution.value).all(axis=-1) & ~np.isnan(solution.error)
    solved = finite & (solution.reason < Reason.NO_MASS)
    missing = np.argwhere(~solved & real_rows(order, counts))
    if not len(missing):
        return
    photo, row = missing[0]
    title = titles[int(order[photo, row])]
    words = f"mode {discrepancy.name!r} has no solution for the class {title!r}"
    if own := list(own_parts(discrepancy)):
        one = jax.tree.map(lambda leaf: leaf[photo, row], solution)
        raise SolverError("S03", words + _unsolved_by_own(own, one))
    reason = Reason(int(solution.reason[photo, row]))
    epsilon = _epsilon(discrepancy)
    small = ""
    if epsilon is not None:
        small = f"epsilon = {epsilon} (0.0125 works with every affinity) and "
    raise SolverError(
        "S03",
        f"{words}. {reason.sentence} Check {small}"
        f"affinity_temperature = {affinity.temperature}; networks in half precision "
        "may overflow: use float32 or bfloat16",
    )


def _unsolved_by_own(own: Sequence[Discrepancy], one: Solution) -> str:
    """Why a discrepancy of one's own has no solution for a class.

    Args:
        own: The discrepancy, or those of one's own that are fused.
        one: The solution of the class alone.
    """
    solve = " or ".join(f"{type(each).__name__}.solve" for each in own)
    number = int(one.reason)
    if number not in {each.value for each in Reason}:
        return f": {solve} gave the reason {number}, which is no Reason"
    reason = Reason(number)
    if not reason.is_solved and reason != Reason.NOT_FINITE:
        return f". {solve} gave the reason {reason.name}: {reason.sentence}"
    bad = int(np.sum(~np.isfinite(one.value)))
    what = "its error is NaN"
    if bad:
        what = f"its map is NaN or infinite in {bad} of {one.value.size} patches"
    elif reason == Reason.NOT_FINITE:
        what = "its computation became NaN or infinite"
    return (
        f": {what}. Look for a division by 0, the logarithm of 0 and an overflow of "
        f"`exp` in {solve}; after `jax.config.update('jax_debug_nans', True)` a call "
        "of `solve` with your own arrays stops there"
    )


def choose_classes(active: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Choose the active classes of each photo, padded to the same number.

    Args:
        active: Whether a class survived early rejection, for each photo.

    Returns:
        Indices of classes ``[batch active]``, and the number of classes of each photo
        that are not padding. The padding has the index 0.
    """
    counts = active.sum(axis=1, dtype=np.int32)
    size = class_bucket(int(counts.max()), active.shape[1])
    order = np.zeros((len(active), size), np.int32)
    for row, survivors in zip(order, active, strict=True):
        indices = np.flatnonzero(survivors)
        row[: len(indices)] = indices
    return order, counts


def real_rows(order: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """False for the rows of ``order`` that are padding; see ``choose_classes``."""
    return np.arange(order.shape[1]) < counts[:, None]


def count(
    given: SolverInput, order: np.ndarray, counts: np.ndarray, placement: Placement
) -> Counts:
    """Count patches and pairs with mass; the greatest numbers of the batch, rounded up.

    Args:
        given: Input of the solver, for the batch.
        order: From ``choose_classes``.
        counts: From ``choose_classes``; the padding has no mass.
        placement: The device, from which the counts are fetched.
    """
    patches = given.source.shape[2]
    support, kept = placement.fetch((given.support, given.kept))
    pairs = np.take_along_axis(kept, order, axis=1)
    pairs[~real_rows(order, counts)] = 0
    return Counts(
        rows=row_bucket(int(support.max()), patches),
        pairs=row_bucket(int(pairs.sum(axis=1).max()), patches),
        classes=order.shape[1],
        patches=patches,
        step=1,
        platform=placement.platform,
    )


def class_bucket(count: int, classes: int) -> int:
    """The number of classes that a solver is compiled for: one of few sizes.

    Args:
        count: Number of active classes.
        classes: Number of all classes.
    """
    size = FEWEST_CLASSES
    while size < count:
        size *= GROWTH
    return min(size, -(-classes // 8) * 8)


def row_bucket(count: int, patches: int) -> int:
    """The number of rows that a path is compiled for: one of few sizes."""
    size = max(FEWEST_ROWS, -(-patches // READING_PARTS))
    while size < count:
        size *= 2
    return size


def _epsilon(discrepancy: Discrepancy) -> float | None:
    """Epsilon of a path, alone or fused; ``None`` for other discrepancies."""
    if isinstance(discrepancy, Fused):
        first, second = map(_epsilon, (discrepancy.first, discrepancy.second))
        return second if first is None else first
    return getattr(discrepancy, "epsilon", None)
