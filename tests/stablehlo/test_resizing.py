"""Photos resized inside a program: the grey levels of the host's functions."""

import jax
import numpy as np
import pytest

from dslo_jax import images
from dslo_jax.areas import area_means
from dslo_jax.stablehlo.resizing import mean_colours, resize_photos


SIZES = [
    ((37, 53), (64, 48)),  # one side grows, the other shrinks
    ((96, 130), (32, 64)),
    ((60, 40), (60, 31)),  # a side that stays
    ((301, 7), (16, 16)),
    ((20, 20), (20, 20)),
]


def noise(size):
    return np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)


@pytest.mark.parametrize(("size", "new"), SIZES)
@pytest.mark.parametrize("method", ["antialias", "area", "bilinear"])
def test_grey_levels_are_those_of_the_host(size, new, method):
    photo = noise(size)
    (found,) = jax.jit(lambda p: resize_photos(p, new, method=method))(photo[None])
    expected = images.resize_photo(photo, new, method=method)
    difference = np.abs(np.asarray(found, int) - expected).max()
    assert difference <= (1 if method == "bilinear" else 0)


@pytest.mark.slow
def test_a_large_photo_is_exact_too():
    photo = np.where(noise((1300, 1999)) > 127, np.uint8(255), np.uint8(0))
    for method, new in (("antialias", (336, 512)), ("area", (512, 512))):
        (found,) = resize_photos(jax.numpy.asarray(photo)[None], new, method=method)
        expected = images.resize_photo(photo, new, method=method)
        np.testing.assert_array_equal(found, expected)


def test_mean_colours_are_those_of_the_host():
    photo = noise((97, 61))
    (found,) = mean_colours(jax.numpy.asarray(photo)[None], (16, 8))
    expected = np.moveaxis(area_means(photo, (16, 8)), 2, 0) / 255
    np.testing.assert_allclose(found, expected, atol=1e-7)
