"""How ``optimal_path`` reads an affinity: static sizes, chosen before compiling."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float

from dslo_jax.solvers import tuning
from dslo_jax.solvers.discrepancy import Counts


class Reading(NamedTuple):
    """Options of ``optimal_path``; by default all rows are read.

    Attributes:
        support: Patches that can carry mass in any class.
        pairs: Instead, pairs of a class and a patch that can carry mass.
    """

    support: int | None = None
    pairs: int | None = None

    def rows(self, patches: int) -> int:
        """Rows of the affinity of so many patches that are read; one for each pair."""
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
    """The faster of two ways to read as little as possible.

    Args:
        rows: Patches that carry mass in any class.
        pairs: Pairs of a class and a patch that carries mass in it.
        classes: Of the image.
        patches: Of the image.
        step: Sizes are rounded up to multiples of it, so that images share a
            compilation.
        platform: Of the device. Pairs are chosen on ``"cpu"`` alone, where both ways
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
    """The reading that suits these sources: ``optimal_path(..., **r._asdict())``.

    Args:
        source: Of one image or of several, whose largest counts decide.
        step: See ``choose_reading``.
        platform: Likewise.
    """
    counts = Counts.of(source, step=step, platform=platform)
    return choose_reading(**counts._asdict())


def _rounded_up(count: int, step: int) -> int:
    return -(-max(count, 1) // step) * step
