import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from dslo_jax.evaluation.metrics import IGNORE
from dslo_jax.evaluation.metrics.boundary import BoundaryCounts, boundary_counts


CLASSES = 4


def erode(mask, distance):
    """Pixel by pixel: a step keeps what has nothing but the mask all around it."""
    for _ in range(distance):
        padded = np.pad(mask, 1)  # outside of the photo is not the mask
        height, width = mask.shape
        mask = np.array(
            [
                [padded[y : y + 3, x : x + 3].all() for x in range(width)]
                for y in range(height)
            ]
        )
    return mask


def counts_by_erosion(truth, labels):
    """The paper's definition, class by class; ignored pixels are inside of any."""
    distance = max(1, round(0.02 * math.hypot(*truth.shape)))
    ignored = truth == IGNORE
    found = []
    for c in range(CLASSES):
        true, given_ = (
            (m == c) & ~ignored & ~erode((m == c) | ignored, distance)
            for m in (truth, labels)
        )
        found.append((int((true & given_).sum()), int((true | given_).sum())))
    return tuple(zip(*found, strict=True))


def blobs(rng, height, width):
    """Rectangles of all classes upon one another."""
    labels = np.full((height, width), rng.integers(CLASSES), np.int32)
    for _ in range(6):
        y, x = rng.integers(height), rng.integers(width)
        dy, dx = rng.integers(1, [height + 1, width + 1])
        labels[y : y + dy, x : x + dx] = rng.integers(CLASSES)
    return labels


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (2, 9), (17, 23), (90, 70), (110, 131)]
)
def test_counts_equal_erosion_step_by_step(height, width):
    rng = np.random.default_rng(height)
    truth = blobs(rng, height, width).astype(np.uint8)
    labels = blobs(rng, height, width)
    truth[rng.random(truth.shape) < 0.02] = IGNORE
    y = height // 3
    truth[y : y + 4] = IGNORE  # a strip, wider than the distance in small photos
    intersection, union = counts_by_erosion(truth, labels)
    found = boundary_counts(truth, labels, CLASSES)
    assert found.intersection.tolist() == list(intersection)
    assert found.union.tolist() == list(union)


def test_a_square_by_hand():
    """40 x 30 pixels have a diagonal of 50: d = 1."""
    truth = np.zeros((30, 40), np.uint8)
    truth[10:20, 10:20] = 1
    labels = np.roll(truth, 1, axis=1).astype(np.int32)
    found = boundary_counts(truth, labels, 2)
    # Rings of 36 pixels that share the rows above and below, of 9 pixels each.
    assert found.intersection[1] == 18
    assert found.union[1] == 2 * 36 - 18
    assert found.iou[1] == pytest.approx(18 / 54)


def test_a_boundary_is_far_harsher_than_the_insides():
    truth = np.zeros((60, 80), np.uint8)
    truth[20:40, 20:60] = 1
    labels = np.roll(truth, 4, axis=0).astype(np.int32)
    inside = ((truth == 1) & (labels == 1)).sum() / ((truth == 1) | (labels == 1)).sum()
    assert boundary_counts(truth, labels, 2).iou[1] < inside / 2


SIZES = st.tuples(st.integers(1, 60), st.integers(1, 60))
SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(size=SIZES, seed=SEEDS)
def test_the_truth_itself_scores_one(size, seed):
    truth = blobs(np.random.default_rng(seed), *size)
    found = boundary_counts(truth, truth, CLASSES)
    present = np.isin(np.arange(CLASSES), truth)
    np.testing.assert_array_equal(found.iou, np.where(present, 1, np.nan))
    assert found.mean_iou == 1


@settings(max_examples=40, deadline=None, derandomize=True)
@given(size=SIZES, seed=SEEDS)
def test_what_was_predicted_where_the_truth_is_ignored_never_matters(size, seed):
    rng = np.random.default_rng(seed)
    truth, labels = (blobs(rng, *size) for _ in range(2))
    truth[rng.random(truth.shape) < 0.3] = IGNORE
    other = np.where(truth == IGNORE, rng.integers(-9, 999, truth.shape), labels)
    first, second = (boundary_counts(truth, m, CLASSES) for m in (labels, other))
    np.testing.assert_array_equal(first, second)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(size=SIZES, seed=SEEDS)
def test_names_and_directions_do_not_matter(size, seed):
    rng = np.random.default_rng(seed)
    truth, labels = (blobs(rng, *size) for _ in range(2))
    straight = boundary_counts(truth, labels, CLASSES)
    turned = boundary_counts(truth[::-1].T, labels[::-1].T, CLASSES)
    np.testing.assert_array_equal(straight, turned)
    swapped = boundary_counts(labels, truth, CLASSES)
    np.testing.assert_array_equal(straight, swapped)
    renamed = boundary_counts(CLASSES - 1 - truth, CLASSES - 1 - labels, CLASSES)
    np.testing.assert_array_equal(np.array(straight)[:, ::-1], renamed)


def test_counts_add_up_and_refuse_other_classes():
    rng = np.random.default_rng(0)
    photos = [(blobs(rng, 20, 30), blobs(rng, 20, 30)) for _ in range(3)]
    counts = [boundary_counts(*photo, CLASSES) for photo in photos]
    total = BoundaryCounts.empty(CLASSES)
    for each in reversed(counts):
        total = total + each
    assert total.union.dtype == np.int64
    np.testing.assert_array_equal(total, np.sum([np.array(c) for c in counts], axis=0))
    with pytest.raises(ValueError, match="4 and 5 classes"):
        total + BoundaryCounts.empty(5)


def test_255_classes_fit_a_byte():
    truth = np.full((30, 40), 254, np.uint8)
    truth[:, 20:] = 253
    found = boundary_counts(truth, truth.astype(np.int32), 255)
    # A frame of one pixel, and one on either side of the middle.
    assert found.intersection[[253, 254]].tolist() == [96, 96]
    assert found.union.sum() == 192


def test_nothing_but_ignored_pixels_has_no_score():
    found = boundary_counts(
        np.full((9, 9), IGNORE, np.uint8), np.zeros((9, 9), np.int32), CLASSES
    )
    assert not found.union.any()
    assert math.isnan(found.mean_iou)


@pytest.mark.parametrize(
    ("truth", "labels", "classes", "words"),
    [
        (np.zeros((3, 4), np.uint8), np.zeros((4, 3), np.int32), 2, r"\(3, 4\)"),
        (np.full((3, 3), 2, np.uint8), np.zeros((3, 3), np.int32), 2, "truth.*2"),
        (np.zeros((3, 3), np.uint8), np.full((3, 3), 255, np.int32), 2, "labels.*255"),
        (np.zeros((3, 3), np.uint8), np.full((3, 3), -1, np.int32), 2, "labels.*-1"),
        (np.zeros((3, 3), np.uint8), np.zeros((3, 3), np.int32), 256, "num_classes"),
    ],
)
def test_misuse_is_told(truth, labels, classes, words):
    with pytest.raises(ValueError, match=words):
        boundary_counts(truth, labels, classes)
