"""Boundary IoU: how well the outlines of regions agree, whatever their insides.

Cheng et al., "Boundary IoU", CVPR 2021. A class's band is those of its pixels that lie
within a distance d of another class or of the edge of the photo; the score is the
intersection over union of the true band and the given one. Counts are exact and add up
over photos, as those of ``metrics``.
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


_WIDTH = 0.02  # of a band, as a part of the diagonal; that of the paper


class BoundaryCounts(NamedTuple):
    """The pixels that the true and the given bands share, and those of either.

    Attributes:
        intersection: Pixels of both bands, for each class.
        union: Pixels of at least one.
    """

    intersection: Int64[np.ndarray, " classes"]
    union: Int64[np.ndarray, " classes"]

    @classmethod
    def empty(cls, num_classes: int) -> "BoundaryCounts":
        """Nothing counted yet."""
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
        """Boundary IoU of each class; NaN for one that has no band in either."""
        return ratio(self.intersection, self.union)

    @property
    def mean_iou(self) -> float:
        """Mean over the classes that have a band in the truth or in the labels."""
        return known_mean(self.iou)


def boundary_counts(
    truth: Integer[np.ndarray, "height width"],
    labels: Integer[np.ndarray, "_ _"],
    num_classes: int,
) -> BoundaryCounts:
    """Compare the bands of one photo.

    The distance is that of the paper's code: 2 % of the diagonal in pixels, rounded, at
    least 1, along rows, columns and diagonals alike; outside of the photo is another
    class. An ignored pixel belongs to no class and makes no boundary: bands reach
    across it, and what was predicted there does not matter.

    Args:
        truth: True labels, 0 to ``num_classes - 1``; 255 is ignored.
        labels: Predicted labels, 0 to ``num_classes - 1``; where the truth is ignored
            they may be anything.
        num_classes: Number of classes, at most 255.

    Raises:
        ValueError: The shapes differ, or a label is out of range.

    Memory:
        Some ten bytes a pixel, however many classes there are.
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

    A pixel has none where least and greatest label of its window agree. That says so
    of the pixels of all classes at once; 255 must be neither the least nor, counted
    from 1 on with a wrap to 0, the greatest.
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
    """Least or greatest value of every square window that fits, in doubling steps."""
    for _ in range(2):
        span = 1
        while span < window:
            step = min(span, window - span)
            values = reduce(values[:-step], values[step:])
            span += step
        values = values.T
    return values
