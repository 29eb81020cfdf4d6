"""The parts of comparisons: tables, their rows, and rows that vary options.

Every table varies one thing of a base configuration. A row is a value of this thing. A
column is a condition under which it is measured, in most tables a mode.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from dslo_jax.config import SegmenterConfig
from dslo_jax.evaluation.sweeps.cells import Attention, Cell
from dslo_jax.models.dense_clip.registry import ATTENTIONS


MODES: dict[str, dict[str, Any]] = {
    "M.V.": {"mode": "velocity"},
    "O.P.": {"mode": "path"},
}


@dataclass(frozen=True)
class Row:
    """A row of a table: one value of the thing that the table varies.

    Args:
        label: Name of the value.
        cells: The cell of each column; ``None`` where there is nothing to measure.
        position: Position on the axis of a plot; ``None`` if the value is no number.
    """

    label: str
    cells: tuple[Cell | None, ...]
    position: float | None = None


@dataclass(frozen=True)
class Table:
    """A comparison.

    Args:
        name: Name of files, and for ``--tables``.
        title: Title of the table.
        columns: Names of the conditions.
        rows: The values.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All cells, row by row."""
        return tuple(cell for row in self.rows for cell in row.cells if cell)


class Offer(NamedTuple):
    """The parts of the loaded networks that tables can compare.

    Attributes:
        layers: Attention modules for an affinity, in the order down0, down1, up0, up1,
            up2 of the paper; as many as the network has.
        attentions: Networks whose attention can make the affinity.
        has_proxy: Whether there is a second network for logits that need one.
    """

    layers: tuple[str, ...]
    attentions: tuple[Attention, ...]
    has_proxy: bool

    @property
    def logits(self) -> tuple[str, ...]:
        """The ``clip_attention`` of all logits that can be computed."""
        return tuple(
            name
            for name, variant in ATTENTIONS.items()
            if self.has_proxy or not variant.needs_proxy
        )


Build = Callable[[SegmenterConfig, Offer], tuple[tuple[str, ...], tuple[Row, ...]]]
"""A function of the base and of what is offered to the columns and the rows."""


def vary(
    values: Mapping[str, Mapping[str, Any]],
    columns: Mapping[str, Mapping[str, Any]] = MODES,
) -> Build:
    """Rows that change options, under columns that change other options."""

    def build(base: SegmenterConfig, _: Offer):
        rows = []
        for label, row in values.items():
            cells = (
                Cell(base.with_options(**{**column, **row}))
                for column in columns.values()
            )
            rows.append(Row(label, tuple(cells), _number(label)))
        return tuple(columns), tuple(rows)

    return build


def vary_option(
    field: str,
    values: Iterable[Any],
    columns: Mapping[str, Mapping[str, Any]] = MODES,
) -> Build:
    """Rows with different values of one option."""
    return vary({str(value): {field: value} for value in values}, columns)


def vary_size(field: str, parts: Iterable[float], unit: int) -> Build:
    """Rows with multiples of the base value of one option, rounded to whole units."""

    def build(base: SegmenterConfig, offer: Offer):
        sizes = (unit * round(part * base.flat[field] / unit) for part in parts)
        return vary_option(field, dict.fromkeys(size for size in sizes if size))(
            base, offer
        )

    return build


def _number(label: str) -> float | None:
    try:
        return float(label)
    except ValueError:
        return None
