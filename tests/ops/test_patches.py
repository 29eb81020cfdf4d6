"""Sequences of patches against the photos that they are cut from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dslo_jax.ops import (
    cut_patches,
    position_weights,
    resize,
    resize_patches,
    resize_weights,
)


def noise(*size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def test_patches_follow_each_other_row_by_row():
    photo = noise(23, 30)  # 3 pixels below and 2 on the right are left out
    patches = cut_patches(photo, 4, 40)
    assert patches.pixels.shape == (1, 40, 4, 4, 3)
    assert patches.pixels.dtype == np.uint8
    assert patches.grid.tolist() == [[5, 7]]
    assert np.array(patches.is_real).tolist() == [[True] * 35 + [False] * 5]
    rows, columns = (np.array(place)[0] for place in patches.places)
    for pixels, row, column in zip(patches.pixels[0], rows, columns, strict=True):
        expected = photo[4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        np.testing.assert_array_equal(pixels, expected)
    assert rows[:35].tolist() == [i // 7 for i in range(35)]
    assert columns[:35].tolist() == [i % 7 for i in range(35)]


@pytest.mark.parametrize("size", [(3, 30), (30, 3), (24, 28)])
def test_a_photo_of_no_patch_or_too_many_is_refused(size):
    with pytest.raises(ValueError, match=r"expected from 1 to 41 patches"):
        cut_patches(noise(*size), 4, 41)


@pytest.mark.parametrize("native", [(7, 11), (3, 2), (40, 9), (1, 1), (16, 16)])
@pytest.mark.parametrize("size", [(16, 16), (5, 9)])
def test_patches_are_resampled_as_an_image_is(native, size):
    values = np.random.default_rng(0).normal(size=(3, *native)).astype(np.float32)
    expected = resize(jnp.asarray(values), size, "bilinear").reshape(3, -1)
    padding = np.full((3, 5), np.nan, np.float32)  # is not read
    padded = np.concatenate([values.reshape(3, -1), padding], axis=1)
    found = jax.jit(lambda values, grid: resize_patches(values, grid, size))(
        padded.T, np.array(native, np.int32)
    )
    np.testing.assert_allclose(found.T, expected, atol=1e-6)


@pytest.mark.parametrize("native", [7, 14, 16, 37])
@pytest.mark.parametrize("length", [1, 7, 21, 37, 256])
def test_weights_of_positions_are_those_of_the_host(native, length):
    expected = resize_weights(native, length, "bicubic", step=native / (length + 0.1))
    place = np.arange(length, dtype=np.int32)
    found = jax.jit(lambda place, length: position_weights(place, length, native))(
        place, np.int32(length)
    )
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_positions_of_the_native_grid_stay_exactly_what_they_are():
    place = np.arange(14, dtype=np.int32)
    weights = position_weights(jnp.asarray(place), jnp.int32(14), 14, tenths=0)
    np.testing.assert_array_equal(weights, np.eye(14))
