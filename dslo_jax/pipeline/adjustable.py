"""A solver whose numbers are inputs of its program, not parts of it.

A program is compiled for a discrepancy with its options, so another threshold is
another program, which takes seconds to compile. Where a person moves a slider, the
fields in ``Discrepancy.traced`` are inputs of the program instead.
"""

import dataclasses
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from dslo_jax.pipeline.placement import Placement
from dslo_jax.pipeline.stages import Clock, Stage
from dslo_jax.solvers import Discrepancy, Solution


Numbers = dict[str, Any]
"""Values of fields by their names; a field that is a discrepancy has its own ones."""


class AdjustableSolver:
    """A solver like ``programs.DISCREPANCY``, with one program for all numbers.

    The maps may differ from those of ``programs.DISCREPANCY`` by the rounding of
    float32, because a compiler rounds constants in advance.

    Args:
        placement: The device of the numbers.
    """

    def __init__(self, placement: Placement):
        self._placement = placement

    def __call__(
        self, clock: Clock, source: Any, affinity: Any, *, discrepancy: Discrepancy
    ) -> Solution:
        """Solve for the discrepancy; see ``programs.DISCREPANCY``."""
        fixed, numbers = split(discrepancy)
        numbers = self._placement.put(numbers)
        return ADJUSTABLE(clock, source, affinity, numbers, discrepancy=fixed)


def split(discrepancy: Any) -> tuple[Any, Numbers]:
    """Take the numbers out of a discrepancy.

    Returns:
        The discrepancy with default values in their place, and the numbers.
    """
    fixed, numbers = {}, {}
    for field in dataclasses.fields(discrepancy):
        value = getattr(discrepancy, field.name)
        if isinstance(value, Discrepancy):
            fixed[field.name], numbers[field.name] = split(value)
        elif field.name in discrepancy.traced:
            fixed[field.name], numbers[field.name] = field.default, np.float32(value)
    return dataclasses.replace(discrepancy, **fixed), numbers


def _joined(discrepancy: Any, numbers: Numbers) -> Any:
    """Put numbers back; their range was checked when the discrepancy was made."""
    joined = dataclasses.replace(discrepancy)
    for name, value in numbers.items():
        if isinstance(value, dict):
            value = _joined(getattr(discrepancy, name), value)
        object.__setattr__(joined, name, value)
    return joined


def _solve(
    source: Float[Array, "batch active patches"],
    affinity: Float[Array, "batch patches patches"] | None,
    numbers: Numbers,
    *,
    discrepancy: Discrepancy,
) -> Solution:
    """Solve for all photos at once; see ``programs``."""
    return jax.vmap(_joined(discrepancy, numbers).solve)(source, affinity)


ADJUSTABLE = Stage("solver", _solve)
