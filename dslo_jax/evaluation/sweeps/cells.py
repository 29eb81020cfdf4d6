"""One thing to measure: a configuration, and what of it is replaced by the truth."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

from dslo_jax.config import SegmenterConfig
from dslo_jax.errors import OptionError


Oracle = Literal["classes", "affinity", "seeds", "map", "shares"]
"""A step whose result is replaced by the truth; see ``oracles``."""

_ALWAYS_TOLD = ("velocity", "path", "kl")


class Attention(NamedTuple):
    """A network whose attention may make the affinity of a cell.

    Attributes:
        label: How people call it.
        key: Of ``Cell.attention``; empty for the pair's own.
        size: Its ``affinity_size``, where it is not the pair's own.
    """

    label: str
    key: str = ""
    size: int = 0


@dataclass(frozen=True)
class Cell:
    """A configuration to measure; a cell of a table.

    Args:
        config: Every choice of the method.
        oracles: The steps that are replaced by the truth.
        attention: Which network's attention makes the affinity, one of
            ``Networks.affinity_names``; empty for the pair's own.

    Raises:
        ValueError: Both replacements of the map are asked for.
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

        The pair's own attention goes without saying, and so does a discrepancy that its
        flat options describe: cells had these keys before there were others, and
        journals know them by these. A journal calls the attention ``source``.
        """
        config = self.config
        described = {"config": told_of(config), "oracles": sorted(self.oracles)}
        if self.attention:
            described["source"] = self.attention
        if not _is_flat(config):
            described["discrepancy"] = repr(config.discrepancy)
        return described

    @cached_property
    def key(self) -> str:
        """A short name that equal cells share, in this run and in later ones."""
        text = json.dumps(self.describe(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def told_of(config: SegmenterConfig) -> dict[str, Any]:
    """The flat options that journals hold.

    Those of a discrepancy that is not chosen change nothing. Only the first three are
    told of all the same, as journals told of them before there were others.
    """
    solver = config.solver
    silent = {
        flat
        for each in solver.known
        if each.name not in (*_ALWAYS_TOLD, solver.mode)
        for flat in each.flat_names.values()
    }
    return {name: value for name, value in config.flat.items() if name not in silent}


def _is_flat(config: SegmenterConfig) -> bool:
    """Whether the flat options say all there is to say of the discrepancy."""
    try:
        return SegmenterConfig.of(**config.flat).discrepancy == config.discrepancy
    except OptionError:  # a person's own has a name that nobody else knows
        return False
