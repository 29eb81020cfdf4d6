"""All discrepancies by name, for the command line and for files."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from dslo_jax.solvers.discrepancy import Discrepancy
from dslo_jax.solvers.divergence import Divergence
from dslo_jax.solvers.fused import Fused
from dslo_jax.solvers.logits import Logits
from dslo_jax.solvers.path import OptimalPath
from dslo_jax.solvers.propagation import LabelPropagation
from dslo_jax.solvers.velocity import MaximumVelocity


DISCREPANCIES: Mapping[str, type[Discrepancy]] = MappingProxyType(
    {
        "velocity": MaximumVelocity,
        "path": OptimalPath,
        "fused": Fused,
        "kl": Divergence,
        "logits": Logits,
        "propagation": LabelPropagation,
    }
)


def discrepancy_of(name: str, **options: Any) -> Discrepancy:
    """Build a discrepancy from its name and options.

    Args:
        name: One of ``DISCREPANCIES``.
        options: Fields of its class; fields that are left out have their defaults.

    Raises:
        ValueError: The name or an option is unknown, or a value is out of range.

    Example:
        >>> discrepancy_of("kl", direction="target_to_source")
        Divergence(direction='target_to_source')
    """
    if name not in DISCREPANCIES:
        raise ValueError(f"`name` is {name!r}, expected one of {tuple(DISCREPANCIES)}")
    kind = DISCREPANCIES[name]
    known = tuple(field.name for field in dataclasses.fields(kind))  # pyright: ignore
    for option in options:
        if option not in known:
            raise ValueError(
                f"`{option}` is no option of {name!r}, expected one of {known}"
            )
    return kind(**options)
