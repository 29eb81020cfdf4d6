"""Resized photos against sums by hand, and the sizes that are asked for."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays
from pictures import noise
from PIL import Image

from dslo_jax.images import resize_photo, short_side_size


def two_taps_by_hand(pixels, height, width):
    old_height, old_width = pixels.shape[:2]
    new = np.zeros((height, width, 3))
    for i in range(height):
        for j in range(width):
            y = min(max((i + 0.5) * old_height / height - 0.5, 0), old_height - 1)
            x = min(max((j + 0.5) * old_width / width - 0.5, 0), old_width - 1)
            for row in range(old_height):
                for column in range(old_width):
                    weight = max(1 - abs(y - row), 0) * max(1 - abs(x - column), 0)
                    new[i, j] += weight * pixels[row, column]
    return new


def area_by_hand(pixels, height, width):
    """Mean over a grid fine enough that every cell is a whole number of its pixels."""
    fine = pixels.repeat(height, axis=0).repeat(width, axis=1).astype(float)
    old_height, old_width = pixels.shape[:2]
    return fine.reshape(height, old_height, width, old_width, 3).mean(axis=(1, 3))


@pytest.mark.parametrize("size", [(3, 4), (6, 5), (13, 17), (4, 16), (1, 1)])
@pytest.mark.parametrize(
    ("method", "oracle"), [("bilinear", two_taps_by_hand), ("area", area_by_hand)]
)
def test_equals_the_definition(size, method, oracle):
    resized = resize_photo(noise(), size, method=method)
    expected = oracle(noise(), *size)
    # Half a level of rounding, and float32 just beside a half.
    assert np.abs(resized - expected).max() <= 0.5001


def test_opencv_golden_values():
    """Results of ``cv2.resize`` 5.0.0 with ``INTER_AREA``, as constants."""
    row = np.array([0, 100, 50, 255, 10, 30], np.uint8)
    pixels = np.dstack([np.stack([row, 255 - row])] * 3)
    area = resize_photo(pixels, (1, 4), method="area")
    np.testing.assert_array_equal(area[0, :, 0], [128, 128, 128, 128])
    area = resize_photo(pixels[:1].repeat(2, axis=0), (1, 4), method="area")
    np.testing.assert_array_equal(area[0, :, 0], [33, 67, 173, 23])
    area = resize_photo(pixels, (3, 9), method="area")
    golden = [0, 50, 100, 50, 153, 255, 10, 20, 30]  # in fixed point
    assert np.abs(area[0, :, 0].astype(int) - golden).max() <= 1


def test_pillow_box_is_not_an_area_mean():
    image = Image.fromarray(noise(37, 53)).resize((20, 16), Image.Resampling.BOX)
    area = resize_photo(noise(37, 53), (16, 20), method="area").astype(int)
    assert np.abs(np.asarray(image) - area).max() > 20


def test_antialias_is_pillow():
    expected = Image.fromarray(noise()).resize((5, 3), Image.Resampling.BILINEAR)
    resized = resize_photo(noise(), (3, 5))
    np.testing.assert_array_equal(resized, np.asarray(expected))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    arrays(np.uint8, st.tuples(*[st.integers(1, 9)] * 2, st.just(3))),
    st.tuples(*[st.integers(1, 20)] * 2),
    st.sampled_from(["antialias", "bilinear", "area"]),
)
def test_stays_within_the_range(pixels, size, method):
    resized = resize_photo(pixels, size, method=method)
    assert resized.shape == (*size, 3)
    assert resized.min() >= pixels.min()
    assert resized.max() <= pixels.max()


@pytest.mark.parametrize("method", ["antialias", "bilinear", "area"])
def test_constant_stays_constant(method):
    for value in (0, 1, 127, 255):
        pixels = np.full((7, 11, 3), value, np.uint8)
        for size in ((3, 5), (20, 4), (50, 70)):
            assert (resize_photo(pixels, size, method=method) == value).all()


def test_same_size_is_a_copy():
    pixels = noise()
    resized = resize_photo(pixels, (6, 8), method="area")
    np.testing.assert_array_equal(resized, pixels)
    assert not np.shares_memory(resized, pixels)


def test_misuse():
    with pytest.raises(ValueError, match="size"):
        resize_photo(noise(), (0, 5))
    with pytest.raises(ValueError, match="1 or more"):
        short_side_size((0, 5), 336, 16)


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [
        ((375, 500), 336, (336, 448)),
        ((500, 375), 336, (448, 336)),
        ((333, 500), 336, (336, 496)),  # 504.5 px, floored to patches
        ((1024, 2048), 560, (560, 1120)),
        ((100, 5000), 336, (32, 2048)),  # the long side decides
        ((1, 5000), 336, (16, 2048)),  # never below one patch
    ],
)
def test_short_side_size(size, short_side, expected):
    assert short_side_size(size, short_side, 16) == expected
