"""The result of an evaluation: one score per class, per photo, and over all."""

import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dslo_jax.evaluation.datasets.samples import SampleSet
from dslo_jax.evaluation.metrics import Confusion
from dslo_jax.evaluation.sweeps.cells import Cell
from dslo_jax.evaluation.sweeps.records import (
    Completeness,
    Records,
    boundary_of,
    dense,
    plain,
    sparse,
)
from dslo_jax.runs.journal import Record


SCHEMA = "dslo.evaluation.v1"
TIMINGS_SCHEMA = "dslo.evaluation.timings.v1"
CIRCUMSTANCES = (
    *("device", "machine", "versions", "checkpoint", "batch_size", "precision"),
)
"""Entries of the header of a journal that the result repeats."""

SCORES = {
    "miou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
    "weighted_iou": "weighted IoU",
    "boundary_iou": "boundary IoU",
}
"""Scores of a mode, and their names in reports."""


def evaluation_metrics(
    cells: Mapping[str, Cell],
    records: Records,
    samples: SampleSet,
    circumstances: Mapping[str, Any],
) -> dict[str, Any]:
    """The result of an evaluation without times.

    Scores are computed from sums of integers, and photos are in the order of the data
    set, so that equal records give equal bytes, whatever their order.

    Args:
        cells: The cell of each mode.
        records: Records by cell and photo.
        samples: The photos.
        circumstances: The header of the journal.

    Returns:
        Plain values for strict JSON. Scores are in [0, 1]; ``None`` for a score that no
        photo determines. A mode without a solution for a photo has no score, but an
        error.
    """
    keys = [cell.key for cell in cells.values()]
    completeness = Completeness.of(records, keys, samples.names)
    titles = samples.classes.titles
    results = {
        mode: {
            "config": json.loads(json.dumps(cell.config.facts)),
            **_scores(
                {name: records[cell.key, name] for name in completeness.scored}, titles
            ),
        }
        for mode, cell in cells.items()
    }
    found = completeness.describe()
    if any("failed" in result for result in results.values()):
        found["status"] = "PARTIAL"
    return {
        "schema": SCHEMA,
        **{name: circumstances[name] for name in CIRCUMSTANCES},
        "dataset": samples.describe(),
        "classes": list(titles),
        **found,
        "results": results,
    }


def evaluation_timings(
    cells: Mapping[str, Cell],
    records: Records,
    samples: SampleSet,
    last_run: Mapping[str, Any],
) -> dict[str, Any]:
    """Seconds of solver and labels for each photo, without compilation.

    Args:
        cells: The cell of each mode.
        records: Records by cell and photo.
        samples: The photos.
        last_run: Times of the last run, which are added to the result.
    """
    timings: dict[str, Any] = {"schema": TIMINGS_SCHEMA, "solver_and_labels": {}}
    for mode, cell in cells.items():
        seconds = {
            name: record["seconds"]
            for name in samples.names
            if "seconds" in (record := records.get((cell.key, name), {}))
        }
        timings["solver_and_labels"][mode] = {
            "median": statistics.median(seconds.values()) if seconds else None,
            "photos": seconds,
        }
    return timings | {"last_run": dict(last_run)}


def _scores(records: Mapping[str, Record], titles: Sequence[str]) -> dict[str, Any]:
    """The scores of one mode over its photos."""
    failed = [record["error"] for record in records.values() if "error" in record]
    found = {} if failed else records
    total = Confusion(dense([r["counts"] for r in found.values()], len(titles)))
    boundary = boundary_of(list(found.values()), len(titles))
    scores: dict[str, Any] = {
        **scores_of(total),
        "boundary_iou": plain(boundary.mean_iou),
        "iou": by_class(titles, total.iou),
        "accuracy": by_class(titles, total.accuracy),
        "confusion": sparse(total.counts),
        "photos": [_photo(name, found[name], len(titles)) for name in found],
    }
    unsure = [record["unsure"] for record in found.values() if "unsure" in record]
    if unsure:
        scores["unsure"] = statistics.fmean(unsure)
    if failed:
        scores |= {"failed": len(failed), "error": failed[0]}
    return scores


def _photo(name: str, record: Record, num_classes: int) -> dict[str, Any]:
    confusion = Confusion(dense([record["counts"]], num_classes))
    unsure = {"unsure": record["unsure"]} if "unsure" in record else {}
    return {
        "name": name,
        "miou": plain(confusion.mean_iou),
        "pixel_accuracy": plain(confusion.pixel_accuracy),
        "lost": record["lost"],
        "false": record["false"],
        **unsure,
    }


def scores_of(total: Confusion) -> dict[str, float | None]:
    """The scores of a confusion over all classes."""
    return {
        "miou": plain(total.mean_iou),
        "pixel_accuracy": plain(total.pixel_accuracy),
        "mean_accuracy": plain(total.mean_accuracy),
        "weighted_iou": plain(total.weighted_iou),
    }


def by_class(titles: Sequence[str], scores: np.ndarray) -> dict[str, float | None]:
    """The scores of the classes by their names."""
    return {title: plain(x) for title, x in zip(titles, scores, strict=True)}
