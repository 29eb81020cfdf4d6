"""The rows of the affinity that ``optimal_path`` reads, chosen before compilation."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float

from dslo_jax import tuning
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


def choose_reading(counts: Counts) -> Reading:
    """Choose ``support`` or ``pairs``, whichever is faster for these counts.

    Both are rounded up to multiples of ``counts.step``. Pairs are chosen on ``"cpu"``
    only, where both have been measured.
    """
    step, classes = counts.step, counts.classes
    support = min(_rounded_up(counts.rows, step), counts.patches)
    pairs = min(_rounded_up(counts.pairs, step), classes * counts.patches)
    shared = support * (tuning.SHARED + tuning.SHARED_CLASS * classes)
    owned = pairs * (tuning.OWNED + tuning.OWNED_CLASS * classes)
    if counts.platform in tuning.PAIRS_ON and owned < shared:
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
        step: See ``Counts``.
        platform: See ``Counts``.
    """
    return choose_reading(Counts.of(source, step=step, platform=platform))


def _rounded_up(count: int, step: int) -> int:
    return -(-max(count, 1) // step) * step
