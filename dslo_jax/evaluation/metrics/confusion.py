"""Segmentation scores from an integer confusion matrix, as mmsegmentation defines them.

Counts are exact integers: the confusion of a data set is the sum of the confusions of
its photos, in any order.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Int64, Integer


IGNORE = 255
"""Label of pixels that do not count, whatever label was predicted."""


class Confusion(NamedTuple):
    """The confusion matrix.

    Attributes:
        counts: Number of pixels of each true class (row) with each predicted class
            (column).
    """

    counts: Int64[np.ndarray, "classes classes"]

    @classmethod
    def empty(cls, num_classes: int) -> "Confusion":
        """The confusion of no photo."""
        return cls(np.zeros((num_classes, num_classes), np.int64))

    @classmethod
    def of(
        cls,
        truth: Integer[np.ndarray, "height width"],
        labels: Integer[np.ndarray, "_ _"],
        num_classes: int,
    ) -> "Confusion":
        """Count the pixels of one photo.

        Args:
            truth: True labels, 0 to ``num_classes - 1``; 255 is ignored.
            labels: Predicted labels, 0 to ``num_classes - 1``; where the truth is
                ignored they may be anything.
            num_classes: Number of classes, at most 255.

        Raises:
            ValueError: The shapes differ, or a label is out of range.
        """
        check_labels(truth, labels, num_classes)
        counted = truth != IGNORE
        true, given = truth[counted].astype(np.int64), labels[counted].astype(np.int64)
        flat = np.bincount(true * num_classes + given, minlength=num_classes**2)
        return cls(flat.reshape(num_classes, num_classes).astype(np.int64))

    def __add__(self, other: object) -> "Confusion":
        if not isinstance(other, Confusion):
            return NotImplemented
        if self.counts.shape != other.counts.shape:
            raise ValueError(
                f"cannot add confusions of {len(self.counts)} and {len(other.counts)} "
                "classes"
            )
        return Confusion(self.counts + other.counts)

    @property
    def iou(self) -> Float[np.ndarray, " classes"]:
        """Intersection over union of each class; NaN for a class that never occurs."""
        return ratio(self._hits, self._true + self._given - self._hits)

    @property
    def accuracy(self) -> Float[np.ndarray, " classes"]:
        """Share of the true pixels of each class with this label; NaN without any."""
        return ratio(self._hits, self._true)

    @property
    def mean_iou(self) -> float:
        """Mean over the classes that occur in the truth or in the labels (mIoU)."""
        return known_mean(self.iou)

    @property
    def mean_accuracy(self) -> float:
        """Mean over the classes that occur in the truth (mAcc)."""
        return known_mean(self.accuracy)

    @property
    def pixel_accuracy(self) -> float:
        """Share of the pixels with the true label (aAcc)."""
        pixels = self.counts.sum()
        return float(self._hits.sum() / pixels) if pixels else math.nan

    @property
    def weighted_iou(self) -> float:
        """Mean IoU of the classes, weighted by their true pixels (FWIoU)."""
        true = self._true
        seen = true > 0
        if not seen.any():
            return math.nan
        return float(np.sum(true[seen] * self.iou[seen]) / true.sum())

    @property
    def _hits(self) -> Int[np.ndarray, " classes"]:
        return np.diagonal(self.counts)

    @property
    def _true(self) -> Int[np.ndarray, " classes"]:
        return self.counts.sum(axis=1)

    @property
    def _given(self) -> Int[np.ndarray, " classes"]:
        return self.counts.sum(axis=0)


def check_labels(truth: np.ndarray, labels: np.ndarray, num_classes: int) -> None:
    """Refuse labels that cannot be compared; arguments as for ``Confusion.of``.

    Raises:
        ValueError: The shapes differ, or a label is out of range.
    """
    if not 1 <= num_classes <= IGNORE:
        raise ValueError(
            f"`num_classes` is {num_classes}, expected 1 to {IGNORE}: the label "
            f"{IGNORE} is ignored"
        )
    if truth.shape != labels.shape:
        raise ValueError(
            f"`truth` is {truth.shape}, `labels` is {labels.shape}; expected the "
            "same size, bring the labels to the size of the truth"
        )
    counted = truth != IGNORE
    for name, values in (("truth", truth), ("labels", labels)):
        wrong = values[counted & ((values < 0) | (values >= num_classes))]
        if wrong.size:
            raise ValueError(
                f"`{name}` holds {wrong[0]}, expected 0 to {num_classes - 1}"
                + (f" or {IGNORE} for ignored pixels" if name == "truth" else "")
            )


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Quotient in float64; NaN where ``whole`` is 0."""
    some = whole > 0
    return np.where(some, part / np.where(some, whole, 1), np.nan)


def known_mean(values: np.ndarray) -> float:
    """Mean of the values that are not NaN; NaN, without a warning, if all are."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else math.nan
