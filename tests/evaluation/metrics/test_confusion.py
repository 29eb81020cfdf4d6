import numpy as np
import pytest

from dslo_jax.evaluation import IGNORE, Confusion


CLASSES = 5


def make_pair(seed, height=17, width=23):
    """Labels that miss class 3 altogether, and class 4 in the truth only."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, (height, width)).astype(np.uint8)
    truth[rng.random(truth.shape) < 0.2] = IGNORE
    labels = rng.choice([0, 1, 2, 4], truth.shape).astype(np.int32)
    return truth, labels


def scores_by_loop(pairs):
    """The definition, pixel by pixel and class by class."""
    intersection, true, given = ([0] * CLASSES for _ in range(3))
    for truth, labels in pairs:
        for t, g in zip(truth.ravel().tolist(), labels.ravel().tolist(), strict=True):
            if t == IGNORE:
                continue
            true[t] += 1
            given[g] += 1
            intersection[t] += t == g
    ious, accuracies, weighted = [], [], 0.0
    for c in range(CLASSES):
        union = true[c] + given[c] - intersection[c]
        if union:
            ious.append(intersection[c] / union)
            weighted += true[c] / sum(true) * intersection[c] / union
        if true[c]:
            accuracies.append(intersection[c] / true[c])
    return {
        "mean_iou": sum(ious) / len(ious),
        "mean_accuracy": sum(accuracies) / len(accuracies),
        "pixel_accuracy": sum(intersection) / sum(true),
        "weighted_iou": weighted,
    }


def test_scores_equal_a_loop_over_pixels():
    pairs = [make_pair(seed) for seed in range(3)]
    total = Confusion.empty(CLASSES)
    for pair in pairs:
        total += Confusion.of(*pair, CLASSES)
    for name, expected in scores_by_loop(pairs).items():
        assert getattr(total, name) == pytest.approx(expected, rel=1e-12), name


def test_a_class_that_never_occurs_has_no_score_and_no_weight():
    confusion = Confusion.of(*make_pair(0), CLASSES)
    assert np.isnan(confusion.iou[3])
    assert confusion.iou[4] == 0  # given but never true: counts as a miss
    assert np.isnan(confusion.accuracy[[3, 4]]).all()
    assert confusion.mean_iou == np.nanmean(confusion.iou)


def test_counts_are_exact_integers_and_add_up():
    pairs = [make_pair(seed) for seed in range(4)]
    apart = [Confusion.of(*pair, CLASSES) for pair in pairs]
    truths, labels = (np.concatenate(each) for each in zip(*pairs, strict=True))
    together = Confusion.of(truths, labels, CLASSES)
    assert together.counts.dtype == np.int64
    forwards = apart[0] + apart[1] + apart[2] + apart[3]
    backwards = apart[3] + (apart[2] + (apart[1] + apart[0]))
    np.testing.assert_array_equal(forwards.counts, together.counts)
    np.testing.assert_array_equal(backwards.counts, together.counts)
    assert together.counts.sum() == np.sum(truths != IGNORE)


def test_perfect_labels_score_one():
    truth = np.arange(20, dtype=np.uint8).reshape(4, 5) % 3
    confusion = Confusion.of(truth, truth.astype(np.int32), 3)
    assert confusion.mean_iou == confusion.pixel_accuracy == 1
    assert confusion.weighted_iou == pytest.approx(1)


def test_nothing_but_ignored_pixels_has_no_score():
    truth = np.full((2, 2), IGNORE, np.uint8)
    confusion = Confusion.of(truth, np.full((2, 2), -7), 3)  # anything goes there
    assert confusion.counts.sum() == 0
    for score in (confusion.mean_iou, confusion.pixel_accuracy, confusion.weighted_iou):
        assert np.isnan(score)


def test_many_pixels_do_not_overflow():
    counts = np.full((2, 2), 2**40, np.int64)
    assert (Confusion(counts) + Confusion(counts)).pixel_accuracy == 0.5


def test_misuse_names_the_value():
    truth, labels = make_pair(0)
    with pytest.raises(ValueError, match=r"\(17, 23\).*\(16, 23\).*same size"):
        Confusion.of(truth, labels[1:], CLASSES)
    with pytest.raises(ValueError, match=r"`labels` holds 5, expected 0 to 4$"):
        Confusion.of(truth, np.full_like(labels, 5), CLASSES)
    with pytest.raises(ValueError, match=r"`truth` holds 7.*or 255 for ignored"):
        Confusion.of(np.full_like(truth, 7), labels, CLASSES)
    with pytest.raises(ValueError, match=r"`labels` holds -1"):
        Confusion.of(truth, np.full_like(labels, -1), CLASSES)
    with pytest.raises(ValueError, match="`num_classes` is 256"):
        Confusion.of(truth, labels, 256)
    with pytest.raises(ValueError, match="5 and 4 classes"):
        Confusion.empty(5) + Confusion.empty(4)
