"""Pixels that become background because no name is probable enough."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from dslo_jax import (
    Segmentation,
    Segmenter,
    SegmenterConfig,
    prompts,
    segment_logits,
)
from dslo_jax.errors import OptionError
from dslo_jax.evaluation import Cell, Sample
from dslo_jax.evaluation.sweeps.sweep import Sweep
from dslo_jax.images import read_photo
from dslo_jax.pipeline import Batch, Memory
from tests.pipeline.colours import colour_networks
from tests.properties import PROPERTY
from torch_bridge import reference


CONFIG = SegmenterConfig.of(affinity_size=64, short_side=64, templates=("{}",))
CLASSES = ["cat", ("sofa", "couch"), "wall", ("background", "sky")]
BACKGROUND = 3
SIZES = ((50, 75), (64, 64), (90, 31))
ON: dict[str, Any] = {"background_threshold": 0.5, "background_scale": 4.0}


@pytest.fixture(scope="module")
def segmenter(checkpoint):
    tokenizer = prompts.load_tokenizer(checkpoint / "clip")
    return Segmenter(colour_networks(tokenizer), CONFIG)


@pytest.fixture(scope="module")
def photos(make_photo):
    return [make_photo(*size, i) for i, size in enumerate(SIZES)]


@pytest.fixture(scope="module")
def plain(segmenter, photos):
    """The results without a threshold."""
    return segmenter.batch(photos, CLASSES, batch_size=1)


@pytest.mark.parametrize("mode", ["velocity", "path", "logits"])
def test_unsure_pixels_are_those_of_the_definition(segmenter, photos, mode):
    config = CONFIG.with_options(mode=mode, **ON)
    for photo in photos:
        before = segmenter(photo, CLASSES, mode=mode)
        found = segmenter(photo, CLASSES, mode=mode, **ON)
        batch = Batch(
            segmenter.networks, [read_photo(photo)], prompts.parse_classes(CLASSES)
        )
        seen = batch.features(config)
        rows, columns = np.asarray(seen.grids)[0].tolist()
        features = np.asarray(seen.features[0])[0, : rows * columns]
        cosines = np.asarray(batch.text(config)) @ features.T
        unsure = reference.unsure(
            torch.from_numpy(cosines.reshape(-1, rows, columns)),
            batch.grid(config),
            photo.shape[:2],
            scale=4.0,
            threshold=0.5,
        ).numpy()
        assert 0.05 < unsure.mean() < 0.95
        expected = np.where(unsure, BACKGROUND, before.labels)
        assert np.mean(found.labels != expected) < 1e-3  # rounding at the threshold
        assert found.unsure == pytest.approx(unsure.mean(), abs=1e-3)
        np.testing.assert_array_equal(found.discrepancy, before.discrepancy)


def test_a_batch_equals_one_by_one(segmenter, photos):
    together = segmenter.batch(photos, CLASSES, batch_size=3, **ON)
    for photo, one in zip(photos, together, strict=True):
        alone = segmenter(photo, CLASSES, **ON)
        np.testing.assert_array_equal(one.labels, alone.labels)
        assert one.unsure == alone.unsure


def test_without_a_threshold_nothing_is_unsure(plain):
    assert {each.unsure for each in plain} == {None}


def test_areas_ties_and_reports_are_those_of_the_labels(segmenter, photos):
    found = segmenter(photos[0], CLASSES, **ON)
    areas = np.bincount(found.labels.ravel(), minlength=4) / found.labels.size
    np.testing.assert_allclose([report.area for report in found.reports], areas)
    assert found.reports[BACKGROUND].area >= found.unsure > 0
    summary = json.loads(found.files(["json"])["segmentation.json"])
    assert summary["unsure"] == found.unsure
    assert summary["config"]["background_threshold"] == 0.5


def test_everything_may_be_background_which_is_noted(segmenter, photos):
    """The class need not have survived early rejection."""
    found = segmenter(photos[1], CLASSES, background_threshold=1, background_scale=1)
    assert set(np.unique(found.labels)) == {BACKGROUND}
    assert found.unsure == 1
    assert found.ties == 0
    assert any("100.0% of the pixels are below" in note for note in found.notes)


@given(
    thresholds=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)),
    scale=st.floats(1e-3, 1e3),
)
@PROPERTY
def test_a_greater_threshold_takes_more_and_changes_nothing_else(
    segmenter, photos, plain, thresholds, scale
):
    less, more = (
        segmenter(
            photos[0], CLASSES, background_threshold=each, background_scale=scale
        ).labels
        for each in sorted(thresholds)
    )
    before = plain[0].labels
    kept = np.where(less == before, less, BACKGROUND)
    np.testing.assert_array_equal(less, kept)
    changed = less != before
    np.testing.assert_array_equal(more[changed], less[changed])


def test_no_scale_gives_nan(segmenter, photos):
    """Each photo has one best name in every patch, however much it is enlarged."""
    found = segmenter(
        photos[0], CLASSES, background_threshold=0.1, background_scale=1e30
    )
    assert found.unsure == 0


def test_given_logits_are_names_of_their_own(segmenter, photos):
    """With one name for each class, the labels are those of a segmenter."""
    classes = ["cat", "wall", "background"]
    config = CONFIG.with_options(**ON)
    expected = segmenter(photos[0], classes, **ON)
    read = read_photo(photos[0])
    batch = Batch(segmenter.networks, [read], prompts.parse_classes(classes))
    rows, columns = batch.grid(config)
    found = segment_logits(
        np.asarray(batch.logits(config)).reshape(-1, rows, columns),
        np.asarray(batch.affinity(config))[0],
        read,
        classes=classes,
        config=config,
    )
    assert isinstance(found, Segmentation)
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert found.unsure == expected.unsure
    assert 0 < (found.unsure or 0) < 1


def test_a_threshold_needs_a_background_class(segmenter, photos):
    said = pytest.raises(OptionError, match=r"O05.*with_background")
    with said:
        segmenter(photos[0], ["cat", "wall"], **ON)
    with said:
        segment_logits(
            np.ones((2, 4, 4), np.float32), None, photos[0], mode="logits", **ON
        )
    listed = prompts.parse_classes(["cat", "wall"])
    with said:
        Sweep(segmenter.networks, listed, [Cell(CONFIG.with_options(**ON))])
    batch = Batch(segmenter.networks, [read_photo(photos[0])], listed)
    with said:
        batch.class_labels(CONFIG.with_options(**ON))


def test_published_words_are_a_class_of_their_own(segmenter, photos):
    classes = prompts.with_background(["cat", "wall"])
    found = segmenter(photos[0], classes, **ON)
    assert found.classes == ("cat", "wall", "background")
    assert len(found.synonyms[2]) == 25  # "wall" is asked for
    assert found.map_of("background").shape == (8, 8)
    assert np.any(found.labels == 2)


def test_a_sweep_measures_the_same(segmenter, photos):
    truths = [np.zeros(size, np.uint8) for size in SIZES]
    samples = [
        Sample(str(i), read_photo(photo), truth)
        for i, (photo, truth) in enumerate(zip(photos, truths, strict=True))
    ]
    cells = [Cell(CONFIG), Cell(CONFIG.with_options(**ON))]
    classes = prompts.parse_classes(CLASSES)
    sweep = Sweep(segmenter.networks, classes, cells, batch_size=3)
    found = sweep.measure(samples, cells)
    without = found[cells[0]]
    assert isinstance(without, list)
    assert {each.unsure for each in without} == {None}
    measured = found[cells[1]]
    assert isinstance(measured, list)
    for photo, each in zip(photos, measured, strict=True):
        alone = segmenter(photo, CLASSES, **ON)
        np.testing.assert_array_equal(each.labels, alone.labels)
        assert each.unsure == alone.unsure


def test_other_classes_of_the_same_photos_have_a_confidence_of_their_own(
    segmenter, photos
):
    """The memory of photos that are kept is shared by all class lists."""
    config, memory = CONFIG.with_options(mode="logits", **ON), Memory()
    for names in (CLASSES, ["road", "sky", "lamp", "background"]):
        listed, read = prompts.parse_classes(names), [read_photo(photos[0])]
        (shared,) = Batch(segmenter.networks, read, listed, memory=memory).class_labels(
            config
        )
        (alone,) = Batch(segmenter.networks, read, listed).class_labels(config)
        np.testing.assert_array_equal(shared.labels, alone.labels)
        assert shared.unsure == alone.unsure
