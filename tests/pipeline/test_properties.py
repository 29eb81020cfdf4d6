"""Invariants of the whole job, from pixels to labels, for any photo."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies as st
from properties import PROPERTY, SEEDS

from dslo_jax import Segmenter, ops, prompts
from tests.pipeline.colours import colour_networks
from tests.pipeline.conftest import CONFIG


SIZE = 50, 75
CLASSES = ("cat", "sofa", "wall", "floor", "lamp")
NEAR_TIE = 1e-4  # velocities of other programs may differ by as much


@pytest.fixture(scope="module")
def segmenter(checkpoint):
    tokenizer = prompts.load_tokenizer(checkpoint / "clip")
    config = CONFIG.with_options(templates=("{}",))
    return Segmenter(colour_networks(tokenizer), config)


def survivors(result):
    return np.flatnonzero([not report.rejected for report in result.reports])


def upsampled(result, photo):
    """The maps of the survivors, at every pixel."""
    maps = jnp.asarray(result.discrepancy[survivors(result)])
    return np.asarray(
        ops.joint_bilateral_upsample(maps, photo.astype(np.float32) / 255)
    )


def assert_same_labels(labels, expected, photo):
    """Equal to those of a result, except where two maps are nearly equal."""
    maps = np.sort(upsampled(expected, photo), axis=0)
    clear = maps[-1] - maps[-2] > NEAR_TIE if len(maps) > 1 else np.s_[:]
    np.testing.assert_array_equal(labels[clear], expected.labels[clear])


@PROPERTY
@given(SEEDS, st.permutations(range(len(CLASSES))))
def test_the_order_of_the_classes_only_permutes_the_labels(
    segmenter, make_photo, seed, order
):
    photo = make_photo(*SIZE, seed)
    straight = segmenter(photo, CLASSES)
    turned = segmenter(photo, [CLASSES[place] for place in order])
    np.testing.assert_allclose(
        turned.discrepancy, straight.discrepancy[order], atol=NEAR_TIE
    )
    assert_same_labels(np.asarray(order)[turned.labels], straight, photo)


@PROPERTY
@given(SEEDS)
def test_classes_that_are_rejected_change_no_pixel(segmenter, make_photo, seed):
    photo = make_photo(*SIZE, seed)
    whole = segmenter(photo, CLASSES)
    kept = survivors(whole)
    assert set(np.unique(whole.labels)) <= set(kept)
    alone = segmenter(photo, [CLASSES[place] for place in kept])
    assert_same_labels(kept[alone.labels], whole, photo)


@PROPERTY
@given(st.lists(SEEDS, min_size=1, max_size=4), st.integers(1, 3))
def test_no_batch_changes_a_photo(segmenter, make_photo, seeds, batch_size):
    photos = [make_photo(*SIZE, seed) for seed in seeds]
    together = segmenter.batch(photos, CLASSES, batch_size=batch_size)
    for photo, found in zip(photos, together, strict=True):
        assert_same_labels(found.labels, segmenter(photo, CLASSES), photo)


@PROPERTY
@given(SEEDS)
def test_labels_and_ties_are_those_of_the_maps(segmenter, make_photo, seed):
    photo = make_photo(*SIZE, seed)
    classes = (*CLASSES, CLASSES[0][::-1])  # the last one looks like the first
    result = segmenter(photo, classes, early_rejection=False)
    maps = upsampled(result, photo)
    np.testing.assert_array_equal(result.labels, survivors(result)[maps.argmax(axis=0)])
    ties = np.mean(np.sum(maps == maps.max(axis=0), axis=0) > 1)
    assert result.ties == ties
    assert result.ties > 0 or 0 not in result.labels
