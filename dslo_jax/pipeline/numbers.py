"""Takes the numbers out of a discrepancy, and puts them back as traced ones."""

import dataclasses
from typing import Any

import numpy as np

from dslo_jax.solvers import Discrepancy


Numbers = dict[str, Any]
"""Values of fields by their names; a field that is a discrepancy has its own ones."""


def split(discrepancy: Any) -> tuple[Any, Numbers]:
    """Take out the fields in ``Discrepancy.traced``.

    Returns:
        The discrepancy with default values in their place, and the numbers as float32.
    """
    fixed, numbers = {}, {}
    for field in dataclasses.fields(discrepancy):
        value = getattr(discrepancy, field.name)
        if isinstance(value, Discrepancy):
            fixed[field.name], numbers[field.name] = split(value)
        elif field.name in discrepancy.traced:
            fixed[field.name], numbers[field.name] = field.default, np.float32(value)
    return dataclasses.replace(discrepancy, **fixed), numbers


def join(discrepancy: Any, numbers: Numbers) -> Any:
    """Put numbers back; their range was checked when the discrepancy was made."""
    joined = dataclasses.replace(discrepancy)
    for name, value in numbers.items():
        if isinstance(value, dict):
            value = join(getattr(discrepancy, name), value)
        object.__setattr__(joined, name, value)
    return joined
