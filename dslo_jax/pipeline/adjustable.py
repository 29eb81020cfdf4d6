"""A solver whose numbers are inputs of its program, not parts of it.

A program is compiled for a discrepancy with its options, so another threshold is
another program, which takes seconds to compile. Where a person moves a slider, the
fields in ``Discrepancy.traced`` are inputs of the program instead.
"""

from typing import Any

import jax
import numpy as np

from dslo_jax import tuning
from dslo_jax.pipeline import checks, numbers, programs
from dslo_jax.pipeline.placement import Placement
from dslo_jax.pipeline.stages import Clock
from dslo_jax.solvers import Discrepancy, Solution


class AdjustableSolver:
    """A solver like ``programs.DISCREPANCY``, with one program for all numbers.

    On a CPU it has one program for all lists of up to ``checks.FEWEST_CLASSES`` classes
    as well. The maps may differ from those of ``programs.DISCREPANCY`` by the rounding
    of float32, because a compiler rounds constants in advance.

    Args:
        placement: The device of the numbers.
    """

    def __init__(self, placement: Placement):
        self._placement = placement

    def __call__(
        self, clock: Clock, source: Any, affinity: Any, *, discrepancy: Discrepancy
    ) -> Solution:
        """Solve for the discrepancy; see ``programs.DISCREPANCY``."""
        place = self._placement
        fixed, values = numbers.split(discrepancy)
        values = place.put(values)
        rows = source.shape[1]
        padding = max(0, checks.FEWEST_CLASSES - rows)
        if not padding or not tuning.host_decides(place.platform):
            return programs.ADJUSTABLE(
                clock, source, affinity, values, discrepancy=fixed
            )
        # Rows of zeros are no classes; so lists of all lengths share a program.
        padded = np.pad(place.fetch(source), ((0, 0), (0, padding), (0, 0)))
        found = programs.ADJUSTABLE(
            clock, place.put_batch(padded), affinity, values, discrepancy=fixed
        )
        return jax.tree.map(lambda leaf: leaf[:, :rows], place.fetch(found))
