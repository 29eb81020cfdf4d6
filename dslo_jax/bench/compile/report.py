"""Sums and words of the rows of ``dslo bench compile``."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dslo_jax.bench.compile.stages import (
    LABELS,
    NETWORKS,
    SOLVER,
    STEPS,
    Size,
    sizes_alike,
)


Row = Mapping[str, Any]

KEY = ("target", "devices", "stage", *Size._fields)
"""Fields that name a row."""


def key_of(row: Row) -> tuple[Any, ...]:
    """What a row is about; rows of the same stage have the same key."""
    return tuple({**row, "stage": stage_of(row)}[name] for name in KEY)


def stage_of(row: Row) -> str:
    """Name of the stage; labels of few and of many classes are one stage."""
    return row["stage"].split(" ")[0]


def milliseconds(row: Row) -> float:
    """Estimated time of all calls of a stage for a batch."""
    return 1e3 * row["calls"] * row["estimate"]["seconds"]


def whole_image(
    rows: Iterable[Row], target: str, size: Size, solver: str, devices: int = 1
) -> float | None:
    """Estimated milliseconds for a photo: networks, steps, a solver, and labels.

    Names of classes are encoded once for all photos, and do not count.

    Args:
        rows: Rows of any targets and sizes.
        target: The chip.
        size: Size of the batch.
        solver: Name of the discrepancy.
        devices: Number of chips.

    Returns:
        The sum of all stages, for one photo; ``None`` if one is missing or failed.
    """
    wanted = {*NETWORKS, *STEPS, SOLVER + solver, LABELS} - {"text"}
    about = {"target": target, "devices": devices}
    chosen = [
        row
        for row in rows
        if stage_of(row) in wanted
        and not row["failed"]
        and all(row[name] == value for name, value in about.items())
        and Size(*(row[name] for name in Size._fields))
        == sizes_alike(stage_of(row), size)
    ]
    if {stage_of(row) for row in chosen} != wanted:
        return None
    return sum(milliseconds(row) / row["batch"] for row in chosen)


def words_of_bytes(count: float) -> str:
    """A number of bytes in the largest unit that it fills."""
    for unit, size in (("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:,.4g} {unit}"
    return f"{count:.0f} B"


def unknown_findings(row: Row) -> Sequence[Row]:
    """Findings that the cost model does not count."""
    return [each for each in row.get("findings", ()) if not each["known"]]


def words_of_finding(finding: Row) -> str:
    """A finding in one line."""
    size = f" of {words_of_bytes(finding['bytes'])}" if finding["bytes"] else ""
    where = f", {finding['where']}" if finding["where"] else ""
    return f"{finding['kind']}: {finding['times']:g} x {finding['what']}{size}{where}"
