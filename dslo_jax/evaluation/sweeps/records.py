"""Records of photos in a journal, and scores of a run that has not ended."""

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
    """The photos with a score, and the reasons why others have none.

    Attributes:
        expected: Number of photos.
        scored: Names of the photos that all cells have measured.
        skipped: Name and reason of each other photo.
    """

    expected: int
    scored: tuple[str, ...]
    skipped: tuple[Record, ...]

    @classmethod
    def of(
        cls, records: Records, keys: Iterable[str], names: Sequence[str]
    ) -> "Completeness":
        """Check which photos have a record for every cell."""
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
    """The mIoU of some cells of a run that has not ended.

    Args:
        records: Records of the journal, which may grow.
        keys: Keys of the cells by their names.
        num_classes: Number of classes.
    """

    def __init__(self, records: Records, keys: Mapping[str, str], num_classes: int):
        self._records, self._keys, self._seen = records, keys, 0
        self._totals = {key: Confusion.empty(num_classes) for key in keys.values()}

    def __call__(self) -> dict[str, float]:
        """The scores in [0, 1] by name; NaN without any photo."""
        new = islice(self._records.items(), self._seen, None)
        for (key, _), record in new:
            self._seen += 1
            if key in self._totals:
                for true, given, count in record.get("counts", ()):
                    self._totals[key].counts[true, given] += count
        return {label: self._totals[key].mean_iou for label, key in self._keys.items()}


def compare(sample: Sample, labels: np.ndarray, num_classes: int) -> Record:
    """Count pixels and boundaries, which determine all scores.

    Raises:
        ValueError: The labels do not fit the true labels.
    """
    confusion = Confusion.of(sample.truth, labels, num_classes)
    return {
        "counts": sparse(confusion.counts),
        **boundaries(sample, labels, num_classes),
    }


def boundaries(sample: Sample, labels: np.ndarray, num_classes: int) -> Record:
    """The counts of the boundaries: class, intersection, union."""
    found = boundary_counts(sample.truth, labels, num_classes)
    rows = [
        [index, int(found.intersection[index]), int(union)]
        for index, union in enumerate(found.union)
        if union
    ]
    return {"boundary": rows}


def boundary_of(records: Sequence[Record], num_classes: int) -> BoundaryCounts:
    """The sum of the boundaries of several photos."""
    total = BoundaryCounts.empty(num_classes)
    for record in records:
        for index, intersection, union in record["boundary"]:
            total.intersection[index] += intersection
            total.union[index] += union
    return total


def sparse(counts: np.ndarray) -> list[list[int]]:
    """Entries of a confusion matrix that are not 0: true, predicted, pixels."""
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
    """A score for JSON; ``None`` in place of NaN."""
    return None if np.isnan(value) else float(value)


def _reason(records: Records, name: str) -> str:
    return records.get((PHOTO, name), {}).get("error", "not measured yet")
