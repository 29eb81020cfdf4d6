"""``segment_logits`` gives the labels that a segmenter gives."""

import numpy as np
import pytest

from dslo_jax import images, prompts, segment_logits
from dslo_jax.errors import ClassListError, OptionError, SolverError
from dslo_jax.pipeline import Batch
from dslo_jax.solvers import DISCREPANCIES, MaximumVelocity
from tests.pipeline.conftest import CONFIG


CLASSES = ("cat", "sofa", "wall")


@pytest.fixture(scope="module")
def photos(make_photo):
    return [images.read_photo(make_photo(48, 64, seed)) for seed in range(2)]


@pytest.fixture(scope="module")
def given(segmenter, photos):
    """Logits on the grid, and affinities, from the networks of the segmenter."""
    classes = prompts.parse_classes(CLASSES)
    batch = Batch(segmenter.networks, photos, classes, size=2)
    grid = batch.grid(CONFIG)
    logits = np.asarray(batch.logits(CONFIG)).reshape(2, len(CLASSES), *grid)
    return logits, np.asarray(batch.affinity(CONFIG))


@pytest.mark.parametrize("mode", DISCREPANCIES)
def test_the_labels_are_those_of_a_segmenter(segmenter, given, photos, mode):
    expected = segmenter.batch(photos, CLASSES, batch_size=2, mode=mode)
    found = segment_logits(*given, photos, classes=CLASSES, config=CONFIG, mode=mode)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_array_equal(one.discrepancy, other.discrepancy)
        assert one.reports == other.reports


def test_one_photo_is_a_batch_of_one(given, photos):
    logits, affinities = given
    alone = segment_logits(logits[1], affinities[1], photos[1], config=CONFIG)
    together = segment_logits(logits, affinities, photos, config=CONFIG)[1]
    np.testing.assert_array_equal(alone.labels, together.labels)
    assert alone.classes == ("0", "1", "2")


def test_lists_are_arrays(given, photos):
    logits, affinities = (part[0] for part in given)
    expected = segment_logits(logits, affinities, photos[0], config=CONFIG)
    found = segment_logits(
        logits.tolist(), affinities.tolist(), photos[0], config=CONFIG
    )
    np.testing.assert_array_equal(found.labels, expected.labels)


def test_a_discrepancy_of_ones_own_is_solved_for(given, photos):
    chosen = MaximumVelocity(threshold=0.6)
    by_value = segment_logits(*given, photos, config=CONFIG, discrepancy=chosen)
    by_name = segment_logits(*given, photos, config=CONFIG, threshold=0.6)
    np.testing.assert_array_equal(by_value[0].labels, by_name[0].labels)


def test_arrays_that_do_not_fit_are_refused(given, photos):
    logits, affinities = given
    photo = photos[0]
    for arguments, words in (
        ((logits[0, 0], affinities[0], photo), r"`logits` has shape \(8, 8\)"),
        ((logits[0], affinities[0][:9, :9], photo), r"`affinity` .*\(1, 64, 64\)"),
        ((logits[0], None, photo), "`affinity` is None.*'velocity'.*mode="),
        ((logits, affinities, photo), "`photos` is Photo, expected a list of 2"),
        ((logits, affinities, photos[:1]), "`photos` is 1, expected a list of 2"),
        (
            ([[1.0], [1.0, 2.0]], affinities[0], photo),
            "`logits` is no array",
        ),
        ((logits[0], "affinity.npy", photo), "`affinity` is str, expected an array"),
    ):
        with pytest.raises(ValueError, match=words):
            segment_logits(*arguments)
    with pytest.raises(ValueError, match="`classes` has 1 names, the logits 3 rows"):
        segment_logits(logits[0], affinities[0], photo, classes=["cat"])
    with pytest.raises(OptionError, match=r"O02.*'mood'"):
        segment_logits(logits[0], affinities[0], photo, mood="path")
    segment_logits(logits[0], None, photo, mode="logits")


def test_values_that_no_solver_can_use_are_named(given, photos):
    logits, affinities = given
    broken = logits[0].copy()
    broken[1, 3, 3] = np.nan
    with pytest.raises(SolverError, match=r"S01.*'sofa' has 1 patches"):
        segment_logits(broken, affinities[0], photos[0], classes=CLASSES)
    with pytest.raises(SolverError, match=r"S03.*negative value"):
        segment_logits(logits[0], -affinities[0], photos[0], classes=CLASSES)


def test_one_text_of_classes_is_refused_with_the_remedy():
    with pytest.raises(ClassListError, match="did you mean"):
        segment_logits(
            np.zeros((3, 4, 4), np.float32),
            None,
            np.zeros((8, 8, 3), np.uint8),
            classes="cat, sofa, wall",
            mode="logits",
        )
