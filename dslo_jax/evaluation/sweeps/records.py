"""What a journal holds for a photo, and what can be read off while a run goes on."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

from dslo_jax.evaluation.datasets.samples import Sample
from dslo_jax.evaluation.metrics import Confusion
from dslo_jax.evaluation.metrics.boundary import BoundaryCounts, boundary_counts
from dslo_jax.runs.journal import PHOTO, Key, Record


Records = Mapping[Key, Record]


class Completeness(NamedTuple):
    """Which photos have a score, and why the others have none.

    Attributes:
        expected: Number of photos.
        scored: Names of those that every cell has measured.
        skipped: Name and reason of each of the others.
    """

    expected: int
    scored: tuple[str, ...]
    skipped: tuple[Record, ...]

    @classmethod
    def of(
        cls, records: Records, keys: Iterable[str], names: Sequence[str]
    ) -> "Completeness":
        """Look for the photos of these names under the keys of all cells."""
        keys = tuple(keys)
        done = {name for name in names if all((key, name) in records for key in keys)}
        return cls(
            len(names),
            tuple(name for name in names if name in done),
            tuple(
                {"name": name, "reason": _reason(records, name)}
                for name in names
                if name not in done
            ),
        )

    def describe(self) -> Record:
        """Plain values for a report."""
        return {
            "status": "PARTIAL" if self.skipped else "COMPLETE",
            "expected": self.expected,
            "scored": len(self.scored),
            "skipped": list(self.skipped),
        }


class Tally:
    """The mIoU so far of some cells of a run.

    Args:
        records: Of the journal; they may grow.
        keys: What to call each cell, and its key.
        num_classes: Number of classes.
    """

    def __init__(self, records: Records, keys: Mapping[str, str], num_classes: int):
        self._records, self._keys, self._seen = records, keys, 0
        self._totals = {key: Confusion.empty(num_classes) for key in keys.values()}

    def __call__(self) -> dict[str, float]:
        """The scores in [0, 1]; NaN as long as there is none."""
        new = islice(self._records.items(), self._seen, None)
        for (key, _), record in new:
            self._seen += 1
            if key in self._totals:
                for true, given, count in record.get("counts", ()):
                    self._totals[key].counts[true, given] += count
        return {label: self._totals[key].mean_iou for label, key in self._keys.items()}


def compare(sample: Sample, labels: np.ndarray, num_classes: int) -> Record:
    """The counts that scores are made of: pixels, and those of the boundaries.

    Raises:
        ValueError: The labels do not fit the truth.
    """
    confusion = Confusion.of(sample.truth, labels, num_classes)
    return {
        "counts": sparse(confusion.counts),
        **boundaries(sample, labels, num_classes),
    }


def boundaries(sample: Sample, labels: np.ndarray, num_classes: int) -> Record:
    """The counts of the boundaries: class, intersection and union."""
    found = boundary_counts(sample.truth, labels, num_classes)
    rows = [
        [index, int(found.intersection[index]), int(union)]
        for index, union in enumerate(found.union)
        if union
    ]
    return {"boundary": rows}


def boundary_of(records: Sequence[Record], num_classes: int) -> BoundaryCounts:
    """The boundaries of several photos together."""
    total = BoundaryCounts.empty(num_classes)
    for record in records:
        for index, intersection, union in record["boundary"]:
            total.intersection[index] += intersection
            total.union[index] += union
    return total


def sparse(counts: np.ndarray) -> list[list[int]]:
    """The entries of a confusion matrix that are not zero: true, given, pixels."""
    places = np.argwhere(counts)
    return [[int(i), int(j), int(counts[i, j])] for i, j in places]


def dense(entries: Iterable[list[list[int]]], num_classes: int) -> np.ndarray:
    """The sum of confusion matrices given by ``sparse``."""
    counts = np.zeros((num_classes, num_classes), np.int64)
    for photo in entries:
        for true, given, count in photo:
            counts[true, given] += count
    return counts


def plain(value: float) -> float | None:
    """A score for JSON, which knows no NaN."""
    return None if np.isnan(value) else float(value)


def _reason(records: Records, name: str) -> str:
    return records.get((PHOTO, name), {}).get("error", "not measured yet")
