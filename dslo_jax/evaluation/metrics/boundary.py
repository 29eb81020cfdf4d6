"""Boundary IoU: the agreement of the outlines of regions.

Cheng et al., "Boundary IoU", CVPR 2021. The band of a class consists of its pixels
within a distance d of another class or of the edge of the photo. The score is the
intersection over union of the true band and the predicted band. Counts are exact
integers, and the counts of several photos can be added.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64, Integer, UInt8

from dslo_jax.evaluation.metrics.confusion import (
    IGNORE,
    check_labels,
    known_mean,
    ratio,
)


_WIDTH = 0.02  # width of a band as a share of the diagonal, as in the paper


class BoundaryCounts(NamedTuple):
    """Numbers of pixels in the true and the predicted bands of each class.

    Attributes:
        intersection: Number of pixels in both bands.
        union: Number of pixels in at least one band.
    """

    intersection: Int64[np.ndarray, " classes"]
    union: Int64[np.ndarray, " classes"]

    @classmethod
    def empty(cls, num_classes: int) -> "BoundaryCounts":
        """Counts of no photo."""
        return cls(np.zeros(num_classes, np.int64), np.zeros(num_classes, np.int64))

    def __add__(self, other: object) -> "BoundaryCounts":
        if not isinstance(other, BoundaryCounts):
            return NotImplemented
        if self.union.shape != other.union.shape:
            raise ValueError(
                f"cannot add boundaries of {len(self.union)} and {len(other.union)} "
                "classes"
            )
        return BoundaryCounts(
            self.intersection + other.intersection, self.union + other.union
        )

    @property
    def iou(self) -> Float[np.ndarray, " classes"]:
        """Boundary IoU of each class; NaN for a class without pixels in either band."""
        return ratio(self.intersection, self.union)

    @property
    def mean_iou(self) -> float:
        """Mean over the classes with pixels in the true or the predicted band."""
        return known_mean(self.iou)


def boundary_counts(
    truth: Integer[np.ndarray, "height width"],
    labels: Integer[np.ndarray, "_ _"],
    num_classes: int,
) -> BoundaryCounts:
    """Count the pixels of the bands of one photo.

    The distance is that of the paper's code: 2 % of the diagonal in pixels, rounded, at
    least 1. Steps along rows, columns and diagonals have the same length, and the
    outside of the photo counts as another class. An ignored pixel belongs to no class
    and makes no boundary, and its predicted label does not matter.

    Args:
        truth: True labels, 0 to ``num_classes - 1``; 255 is ignored.
        labels: Predicted labels, 0 to ``num_classes - 1``; where the truth is ignored
            they may be anything.
        num_classes: Number of classes, at most 255.

    Raises:
        ValueError: The shapes differ, or a label is out of range.

    Memory:
        About ten bytes for each pixel, for any number of classes.
    """
    check_labels(truth, labels, num_classes)
    true, given = (
        np.where(truth == IGNORE, IGNORE, values).astype(np.uint8)
        for values in (truth, labels)
    )
    distance = max(1, round(_WIDTH * math.hypot(*truth.shape)))
    in_truth, in_labels = _in_band(true, distance), _in_band(given, distance)
    both = in_truth & in_labels & (true == given)
    shared, of_truth, of_labels = (
        np.bincount(which, minlength=IGNORE + 1)[:num_classes].astype(np.int64)
        for which in (true[both], true[in_truth], given[in_labels])
    )
    return BoundaryCounts(shared, of_truth + of_labels - shared)


def _in_band(
    labels: UInt8[np.ndarray, "height width"], distance: int
) -> Bool[np.ndarray, "height width"]:
    """Whether a pixel has another class, or the outside, within the distance.

    It has none if the smallest and the greatest label of its window are equal. This is
    computed for all classes at once. To leave out the ignored label 255, the greatest
    label is computed from labels + 1, where 255 becomes 0.
    """
    band = labels != IGNORE
    window = 2 * distance + 1
    if min(labels.shape) < window:
        return band
    least = _slide(np.minimum, labels, window)
    greatest = _slide(np.maximum, labels + np.uint8(1), window)
    inside = slice(distance, -distance)
    band[inside, inside] &= least + np.uint8(1) != greatest
    return band


def _slide(
    reduce: np.ufunc, values: UInt8[np.ndarray, "height width"], window: int
) -> UInt8[np.ndarray, "_ _"]:
    """Smallest or greatest value of every square window that fits into the array."""
    for _ in range(2):
        span = 1
        while span < window:
            step = min(span, window - span)
            values = reduce(values[:-step], values[step:])
            span += step
        values = values.T
    return values
