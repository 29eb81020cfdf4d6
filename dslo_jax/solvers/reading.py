"""The rows of the affinity that ``optimal_path`` reads, chosen before compilation."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float

from dslo_jax.solvers import tuning
from dslo_jax.solvers.discrepancy import Counts


class Reading(NamedTuple):
    """The options ``support`` and ``pairs`` of ``optimal_path``; default: all rows.

    Attributes:
        support: Greatest number of patches with mass in any class.
        pairs: Greatest number of pairs of a class and a patch with mass.
    """

    support: int | None = None
    pairs: int | None = None

    def rows(self, patches: int) -> int:
        """Number of rows that are read of an affinity with this number of patches."""
        return self.pairs or self.support or patches


def choose_reading(
    *,
    rows: int,
    pairs: int,
    classes: int,
    patches: int,
    step: int = 64,
    platform: str = "cpu",
) -> Reading:
    """Choose ``support`` or ``pairs``, whichever is faster.

    Args:
        rows: Number of patches with mass in any class.
        pairs: Number of pairs of a class and a patch with mass in it.
        classes: Number of classes.
        patches: Number of patches.
        step: Both options are multiples of this, so that images share a compilation.
        platform: Platform of the device. Pairs are chosen on ``"cpu"`` only, where both
            have been measured.
    """
    support = min(_rounded_up(rows, step), patches)
    pairs = min(_rounded_up(pairs, step), classes * patches)
    shared = support * (tuning.SHARED + tuning.SHARED_CLASS * classes)
    owned = pairs * (tuning.OWNED + tuning.OWNED_CLASS * classes)
    if platform in tuning.PAIRS_ON and owned < shared:
        return Reading(pairs=pairs)
    return Reading(support=support)


def reading_of(
    source: Float[Array | np.ndarray, "*images classes patches"],
    *,
    step: int = 64,
    platform: str = "cpu",
) -> Reading:
    """Choose the reading for sources: ``optimal_path(..., **reading._asdict())``.

    Args:
        source: Sources of one image or of several; the largest counts decide.
        step: As for ``choose_reading``.
        platform: As for ``choose_reading``.
    """
    counts = Counts.of(source, step=step, platform=platform)
    return choose_reading(**counts._asdict())


def _rounded_up(count: int, step: int) -> int:
    return -(-max(count, 1) // step) * step
