"""A cell of a sweep: a configuration, and steps that are replaced by the truth."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

from dslo_jax.config import SegmenterConfig


Oracle = Literal["classes", "affinity", "seeds", "map", "shares"]
"""A step whose result is replaced by the truth; see ``oracles``."""

_ALWAYS_TOLD = ("velocity", "path", "kl")

_LATER = {
    "noise_seed": -1,
    "clip_shape": "aspect",
    "window": 0,
    "background_threshold": 0.0,
}
"""Options that journals of earlier versions do not contain, and the value with which
the labels are those of earlier versions."""

_ONLY_WITH = {
    "window": ("window_stride",),
    "background_threshold": ("background_scale",),
}
"""Options that are used only if another one is."""


class Attention(NamedTuple):
    """A network whose attention may make the affinity of a cell.

    Attributes:
        label: Name in tables.
        key: Value of ``Cell.attention``; empty for the network of the pair.
        size: ``affinity_size`` of a network that is not of the pair.
    """

    label: str
    key: str = ""
    size: int = 0


@dataclass(frozen=True)
class Cell:
    """A configuration to measure; a cell of a table.

    Args:
        config: All options of the method.
        oracles: Steps that are replaced by the truth.
        attention: Name of the network whose attention makes the affinity, one of
            ``Networks.affinity_names``; empty for the network of the pair.

    Raises:
        ValueError: The oracles contain both ``"map"`` and ``"shares"``.
    """

    config: SegmenterConfig
    oracles: frozenset[Oracle] = frozenset()
    attention: str = ""

    def __post_init__(self):
        if {"map", "shares"} <= self.oracles:
            raise ValueError(
                f"`oracles` is {sorted(self.oracles)}, expected at most one of 'map' "
                "and 'shares'"
            )

    def describe(self) -> dict[str, Any]:
        """Everything that the measurement depends on, as plain values.

        The attention of the pair is left out, and so is a discrepancy that its flat
        options describe completely: cells had these keys before there was a choice, and
        existing journals contain them. A journal calls the attention ``source``.
        """
        config = self.config
        described = {"config": told_of(config), "oracles": sorted(self.oracles)}
        if self.attention:
            described["source"] = self.attention
        if not config.is_flat:
            described["discrepancy"] = repr(config.discrepancy)
        return described

    @cached_property
    def key(self) -> str:
        """A short name, equal for equal cells in all runs."""
        text = json.dumps(self.describe(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def told_of(config: SegmenterConfig) -> dict[str, Any]:
    """The flat options in a journal.

    Options of a discrepancy that is not chosen change nothing and are left out. Those
    of the three oldest discrepancies are kept, because existing journals contain them.
    Later options are left out where they have the value that changes nothing.
    """
    solver = config.solver
    told, silent = set(), set()
    for each in solver.known:
        is_told = each.name in (*_ALWAYS_TOLD, solver.mode)
        (told if is_told else silent).update(each.flat_names.values())
    silent -= told
    values = {n: value for n, value in config.flat.items() if n not in silent}
    for name, unchanged in _LATER.items():
        if values[name] == unchanged:
            del values[name]
            for needed in _ONLY_WITH.get(name, ()):
                del values[needed]
    return values
