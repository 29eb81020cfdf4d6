"""Windows and the square input, from photos to labels."""

from typing import Any

import numpy as np
import pytest

from dslo_jax import Segmenter, prompts
from dslo_jax.errors import OptionError
from dslo_jax.pipeline import num_compilations
from dslo_jax.pipeline.stages import watch
from tests.pipeline.colours import colour_networks
from tests.pipeline.conftest import CONFIG


NAMES = ["cat", "sofa", "wall", "sky", "road"]
SIZES = ((50, 75), (64, 64), (90, 31), (33, 140))
WINDOWS: dict[str, Any] = {"window": 32, "window_stride": 16}


@pytest.fixture(scope="module")
def photos(make_photo):
    return [make_photo(*size, i) for i, size in enumerate(SIZES)]


def test_a_window_as_large_as_the_photo_changes_nothing(segmenter, photos):
    """The same bits, by the same programs."""
    before = segmenter.batch(photos, NAMES, batch_size=2, mode="logits")
    compiled = num_compilations()
    found = segmenter.batch(photos, NAMES, batch_size=2, mode="logits", window=2048)
    assert num_compilations() == compiled
    for one, other in zip(before, found, strict=True):
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_array_equal(one.discrepancy, other.discrepancy)


def test_windows_change_maps_and_a_batch_equals_one_by_one(segmenter, photos):
    whole = segmenter.batch(photos, NAMES, mode="logits")
    with watch() as calls:
        found = segmenter.batch(photos, NAMES, batch_size=3, mode="logits", **WINDOWS)
    # The programs of all photos are one, whatever their sizes.
    programs = {id(call.program) for call in calls if call.stage == "clip"}
    assert len(programs) == 1
    for photo, one, other in zip(photos, found, whole, strict=True):
        alone = segmenter(photo, NAMES, mode="logits", **WINDOWS)
        np.testing.assert_array_equal(one.labels, alone.labels)
        np.testing.assert_allclose(one.discrepancy, alone.discrepancy, atol=1e-6)
        assert not np.allclose(one.discrepancy, other.discrepancy, atol=1e-4)


def test_small_photos_share_a_batch_with_large_ones(checkpoint, photos):
    """A photo that is one window has the program of whole photos."""
    tokenizer = prompts.load_tokenizer(checkpoint / "clip")
    segmenter = Segmenter(colour_networks(tokenizer), CONFIG)
    whole = segmenter.batch(photos, NAMES, batch_size=4)
    found = segmenter.batch(photos, NAMES, batch_size=4, window=64, window_stride=64)
    for one, other in zip(found, whole, strict=True):
        # Features of colours are the same in every window.
        np.testing.assert_array_equal(one.labels, other.labels)


def test_a_square_stretches_every_photo(segmenter, photos):
    with watch() as calls:
        found = segmenter.batch(photos, NAMES, mode="logits", clip_shape="square")
    grids = {
        tuple(np.asarray(call.arguments[1].pixels.shape))
        for call in calls
        if call.stage == "clip"
    }
    assert len(grids) == 1
    aspect = segmenter.batch(photos, NAMES, mode="logits")
    same = [
        np.allclose(one.discrepancy, other.discrepancy, atol=1e-5)
        for one, other in zip(found, aspect, strict=True)
    ]
    assert same == [False, True, False, False]  # the second photo is a square


def test_windows_that_do_not_fit_are_told_before_any_photo(segmenter):
    with pytest.raises(OptionError, match=r"O01.*window = 33 .*use 24 or 40|use 32 or"):
        segmenter.stream([], NAMES, window=33, window_stride=8)
    with pytest.raises(OptionError, match=r"O01.*window_stride"):
        Segmenter(segmenter.networks, CONFIG.with_options(window=512, window_stride=9))
