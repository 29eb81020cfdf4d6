"""The result of an ablation: every cell of every table, as plain values."""

import statistics
from collections.abc import Sequence
from typing import Any

from dslo_jax.config import SegmenterConfig
from dslo_jax.evaluation.datasets.samples import SampleSet
from dslo_jax.evaluation.metrics import Confusion
from dslo_jax.evaluation.reports.evaluation_result import by_class, scores_of
from dslo_jax.evaluation.reports.paper import (
    BACKBONES,
    paper_columns,
    paper_tables,
    published,
)
from dslo_jax.evaluation.sweeps.cells import Cell
from dslo_jax.evaluation.sweeps.records import Completeness, dense
from dslo_jax.evaluation.sweeps.table import Table
from dslo_jax.runs.journal import Journal, Record


SCHEMA = "dslo.ablation.v1"
_MEANS = ("lost", "false", "false_area", "num_steps", "converged", "ties")


def ablation_result(
    tables: Sequence[Table],
    base: SegmenterConfig,
    journal: Journal,
    samples: SampleSet,
    circumstances: dict[str, Any],
) -> dict[str, Any]:
    """The result of an ablation, as plain values for JSON.

    If the paper has figures for the data set, ``paper`` holds them in percent. At the
    top these are the scores of the method (Table 1). In a table there is an entry for
    each column of the paper's table (Tables 2 to 4 and Sec. 8), with a figure or
    ``None`` for each row.

    Args:
        tables: The tables.
        base: The configuration that the tables vary.
        journal: Records of all cells of the tables, on all photos.
        samples: The photos.
        circumstances: From ``describe``.
    """
    names = set(samples.names)
    found: dict[str, list[Record]] = {}
    for (key, name), record in journal.records.items():
        if name in names:
            found.setdefault(key, []).append(record)
    titles, dataset = samples.classes.titles, samples.describe()
    cells = {cell.key: cell for table in tables for cell in table.cells}
    return {
        "schema": SCHEMA,
        **circumstances,
        "dataset": dataset,
        **_paper(str(dataset["name"])),
        "classes": list(titles),
        **Completeness.of(journal.records, cells, samples.names).describe(),
        "base": base.flat,
        "tables": [_table(table, str(dataset["name"])) for table in tables],
        "cells": {
            key: {**_changes(cell, base), **summarise(found.get(key, []), titles)}
            for key, cell in cells.items()
        },
    }


def summarise(records: Sequence[Record], classes: Sequence[str]) -> dict[str, Any]:
    """The scores of one cell over its photos.

    Args:
        records: The record of each photo.
        classes: Names of the classes.

    Returns:
        The scores; ``None`` for a score that no photo determines. If the cell has no
        solution for a photo, there are no scores, only the number of failures and the
        first error, so that all scores are from the same photos.
    """
    failed = [record["error"] for record in records if "error" in record]
    if failed or not records:
        return {"photos": len(records), "failed": len(failed), "error": failed[:1]}
    total = Confusion(dense([r["counts"] for r in records], len(classes)))
    timed = [r["logits_seconds"] for r in records if "logits_seconds" in r]
    means = {name: statistics.fmean(r[name] for r in records) for name in _MEANS}
    return {
        "photos": len(records),
        **scores_of(total),
        "iou": by_class(classes, total.iou),
        **means,
        "seconds": statistics.median(r["seconds"] for r in records),
        **({"logits_seconds": statistics.median(timed)} if timed else {}),
    }


def _paper(dataset: str) -> dict[str, Any]:
    """The scores of the paper on a data set; empty if it has none."""
    scores = {
        title: {mode: published(dataset, mode, name) for mode in ("velocity", "path")}
        for name, title in BACKBONES.items()
    }
    if not any(score for by_mode in scores.values() for score in by_mode.values()):
        return {}
    return {"paper": {"source": paper_tables()["systems"].citation, "percent": scores}}


def _table(table: Table, dataset: str) -> dict[str, Any]:
    labels = [row.label for row in table.rows]
    theirs = [
        {
            "title": column.title,
            "source": column.citation,
            "note": column.note,
            "percent": list(column.scores),
        }
        for column in paper_columns(table.name, labels, dataset)
    ]
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
        **({"paper": theirs} if theirs else {}),
    }


def _changes(cell: Cell, base: SegmenterConfig) -> dict[str, Any]:
    """The differences of a cell from the base."""
    usual = base.flat
    flat = cell.config.flat
    changed = {k: v for k, v in flat.items() if k not in usual or v != usual[k]}
    attention = {"source": cell.attention} if cell.attention else {}
    return {"changes": changed, "oracles": sorted(cell.oracles), **attention}
