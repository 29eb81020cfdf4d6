"""A sweep over a data set, resumable, and the report that comes of it."""

import hashlib
import importlib.metadata
import json
import platform
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dslo_jax.config import SegmenterConfig
from dslo_jax.errors import SolverError
from dslo_jax.evaluation.cells import Cell
from dslo_jax.evaluation.journal import Journal, Key, Record
from dslo_jax.evaluation.metrics import Confusion
from dslo_jax.evaluation.samples import SceneSet, batches
from dslo_jax.evaluation.sweep import Measurement, Sweep
from dslo_jax.evaluation.tables import Table
from dslo_jax.files import atomic_file


SCHEMA = "dslo.ablation.v1"
_PACKAGES = ("dslo-jax", "jax", "jaxlib", "flax", "numpy")
_MEANS = ("lost", "false", "false_area", "num_steps", "converged", "ties")

Watch = Callable[[int, int], None]
"""Called with the photos done so far and the photos in all."""


def run(
    sweep: Sweep, samples: SceneSet, journal: Journal, *, watch: Watch | None = None
) -> None:
    """Measure what the journal lacks.

    Photos share batches in the same way whatever the journal holds, so that a run that
    was interrupted measures what it would have measured.

    Args:
        sweep: The cells.
        samples: The photos.
        journal: Gets a line per batch.
        watch: Told of the progress.
    """
    done = 0
    for batch in batches(samples, sweep.batch_key, sweep.batch_size):
        missing = [
            cell
            for cell in sweep.cells
            if any((cell.key, sample.name) not in journal.records for sample in batch)
        ]
        if missing:
            names = [sample.name for sample in batch]
            records: dict[Key, Record] = {}
            for cell, found in sweep.measure(batch, missing).items():
                records.update(_records(cell, names, found))
            journal.append(records)
        done += len(batch)
        if watch is not None:
            watch(done, len(samples))


def report(
    tables: Sequence[Table],
    base: SegmenterConfig,
    journal: Journal,
    samples: SceneSet,
    circumstances: dict[str, Any],
) -> dict[str, Any]:
    """Everything that was found, as plain values for JSON.

    Args:
        tables: What was compared.
        base: What the tables vary.
        journal: The records of all cells of the tables, on all photos.
        samples: The photos.
        circumstances: From ``describe``.
    """
    names = set(samples.names)
    found: dict[str, list[Record]] = {}
    for (key, name), record in journal.records.items():
        if name in names:
            found.setdefault(key, []).append(record)
    titles = samples.classes.titles
    cells = {cell.key: cell for table in tables for cell in table.cells}
    return {
        "schema": SCHEMA,
        **circumstances,
        "dataset": samples.describe(),
        "classes": list(titles),
        "base": asdict(base),
        "tables": [_table(table) for table in tables],
        "cells": {
            key: {**_changes(cell, base), **summarise(found.get(key, []), titles)}
            for key, cell in cells.items()
        },
    }


def save_report(path: Path, content: dict[str, Any]) -> None:
    """Write a report as strict JSON, whole or not at all."""
    with atomic_file(path) as file:
        file.write(json.dumps(content, indent=1, allow_nan=False).encode() + b"\n")


def describe(folders: Iterable[Path], batch_size: int) -> dict[str, Any]:
    """What all measurements depend on besides the photos and the cells.

    Args:
        folders: Of the checkpoints; their files are hashed.
        batch_size: Photos at once.
    """
    device = jax.devices()[0]
    return {
        "device": {"platform": device.platform, "kind": device.device_kind},
        "machine": platform.machine(),
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "checkpoint": _digest(folders),
        "batch_size": batch_size,
    }


def summarise(records: Sequence[Record], classes: Sequence[str]) -> dict[str, Any]:
    """The scores of one cell over its photos.

    Args:
        records: One per photo.
        classes: Names of the classes.

    Returns:
        Scores, with ``None`` for what no photo tells; or, when the cell had no solution
        for some photo, only how many failed and why. A score is never made of fewer
        photos than the others are.
    """
    failed = [record["error"] for record in records if "error" in record]
    if failed or not records:
        return {"photos": len(records), "failed": len(failed), "error": failed[:1]}
    total = Confusion(_dense([r["counts"] for r in records], len(classes)))
    means = {name: statistics.fmean(r[name] for r in records) for name in _MEANS}
    return {
        "photos": len(records),
        "miou": _plain(total.mean_iou),
        "pixel_accuracy": _plain(total.pixel_accuracy),
        "mean_accuracy": _plain(total.mean_accuracy),
        "weighted_iou": _plain(total.weighted_iou),
        "iou": {name: _plain(x) for name, x in zip(classes, total.iou, strict=True)},
        **means,
        "seconds": statistics.median(r["seconds"] for r in records),
    }


def _records(
    cell: Cell, names: Sequence[str], found: list[Measurement] | SolverError
) -> dict[Key, Record]:
    if isinstance(found, SolverError):
        return {(cell.key, name): {"error": str(found)} for name in names}
    return {
        (cell.key, name): _record(each) for name, each in zip(names, found, strict=True)
    }


def _record(measurement: Measurement) -> Record:
    """A measurement as plain values; of the confusion only what is not zero."""
    counts = measurement.confusion.counts
    places = np.argwhere(counts)
    record = measurement._asdict() | {"seconds": round(measurement.seconds, 6)}
    del record["confusion"]
    entries = [[int(i), int(j), int(counts[i, j])] for i, j in places]
    return {"counts": entries, **record}


def _dense(entries: Iterable[list[list[int]]], num_classes: int) -> np.ndarray:
    counts = np.zeros((num_classes, num_classes), np.int64)
    for photo in entries:
        for true, given, count in photo:
            counts[true, given] += count
    return counts


def _table(table: Table) -> dict[str, Any]:
    return {
        "name": table.name,
        "title": table.title,
        "columns": list(table.columns),
        "rows": [
            {
                "label": row.label,
                "position": row.position,
                "cells": [cell and cell.key for cell in row.cells],
            }
            for row in table.rows
        ],
    }


def _changes(cell: Cell, base: SegmenterConfig) -> dict[str, Any]:
    """What a cell has that is not as in the base."""
    usual = asdict(base)
    changed = {k: v for k, v in asdict(cell.config).items() if v != usual[k]}
    return {"changes": changed, "oracles": sorted(cell.oracles)}


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _digest(folders: Iterable[Path]) -> str:
    """A hash over the names and contents of all files of some folders."""
    total = hashlib.sha256()
    for folder in folders:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            total.update(f"{path.relative_to(folder)} {content}\n".encode())
    return total.hexdigest()
