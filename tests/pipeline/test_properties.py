"""What holds for any photo on the whole way from pixels to labels."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies as st
from properties import PROPERTY, SEEDS

from dslo_jax import Segmenter, images, ops
from tests.pipeline.conftest import CONFIG


SIZE = 50, 75
CLASSES = ("cat", "sofa", "wall", "floor", "lamp")
NEAR_TIE = 1e-4  # velocities of other programs may differ by as much


class Colours(Segmenter):
    """With colours in place of networks: those with random weights see one class only.

    A name is like some colours, by its letters, and patches of one colour attend to
    each other.
    """

    def _embed(self, clock, classes):
        seeds = [sorted(name.encode()) for name in classes.names]
        text = np.stack([np.random.default_rng(each).normal(size=6) for each in seeds])
        return jnp.asarray(text / np.linalg.norm(text, axis=1, keepdims=True), "f4")

    def _features(self, clock, photos):
        colours = self._seen(photos, (6, 9))
        dense = np.concatenate([colours, colours**2 - 0.1], axis=-1)
        return jnp.asarray(dense / np.linalg.norm(dense, axis=-1, keepdims=True), "f4")

    def _encode(self, clock, photos):
        return self._seen(photos, self._grid).reshape(len(photos), -1, 3)

    def _attend(self, clock, encoded):
        change = ((encoded[:, :, None] - encoded[:, None]) ** 2).sum(axis=-1)
        weights = np.exp(-change / 0.05) + 1e-3
        return jnp.asarray(weights / weights.sum(axis=-1, keepdims=True), "f4")

    def _seen(self, photos, size):
        resized = [images.resize_photo(p.pixels, size, method="area") for p in photos]
        return np.stack(resized) / 255.0 - 0.5


@pytest.fixture(scope="module")
def segmenter(checkpoint):
    return Colours.from_pretrained(checkpoint, config=CONFIG)


@pytest.fixture(scope="module")
def keeping_all(checkpoint):
    config = CONFIG.with_options(early_rejection=False)
    return Colours.from_pretrained(checkpoint, config=config)


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
def test_labels_and_ties_are_those_of_the_maps(keeping_all, make_photo, seed):
    photo = make_photo(*SIZE, seed)
    result = keeping_all(photo, (*CLASSES, CLASSES[0][::-1]))  # looks like the first
    maps = upsampled(result, photo)
    np.testing.assert_array_equal(result.labels, survivors(result)[maps.argmax(axis=0)])
    ties = np.mean(np.sum(maps == maps.max(axis=0), axis=0) > 1)
    assert result.ties == ties
    assert result.ties > 0 or 0 not in result.labels
