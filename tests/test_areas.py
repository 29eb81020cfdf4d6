"""Means over areas: exact for any two lengths."""

from fractions import Fraction

import numpy as np
import pytest

from dslo_jax.areas import area_means


def photo(height, width, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3)).astype(np.uint8)


def by_fractions(line, cells):
    """Means of one line of pixels, as fractions."""
    step = Fraction(len(line), cells)
    for cell in range(cells):
        start, end = cell * step, (cell + 1) * step
        yield (
            sum(
                max(min(end, i + 1) - max(start, i), Fraction(0)) * value
                for i, value in enumerate(line)
            )
            / step
        )


@pytest.mark.parametrize("cells", [1, 3, 7, 64, 131])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_line_equals_exact_fractions(cells, axis):
    line = photo(1, 97)[0, :, 0].tolist()
    pixels = np.array(line, np.uint8).reshape((97, 1, 1) if axis == 0 else (1, 97, 1))
    size = (cells, 1) if axis == 0 else (1, cells)
    expected = [float(mean) for mean in by_fractions(line, cells)]
    assert area_means(pixels, size).ravel().tolist() == expected


@pytest.mark.parametrize(
    ("size", "grid"),
    [((375, 500), (64, 64)), ((1031, 7), (13, 20)), ((5, 1999), (3, 512))],
)
def test_both_sides_equal_sums_of_whole_pixels(size, grid):
    pixels = photo(*size)
    (height, width), (rows, columns) = size, grid

    def shares(length, cells):
        pixel, cell = np.arange(length), np.arange(cells)[:, None]
        right = np.minimum((pixel + 1) * cells, (cell + 1) * length)
        return np.maximum(right - np.maximum(pixel * cells, cell * length), 0)

    down, across = shares(height, rows), shares(width, columns)
    sums = np.einsum("hy,yxc,wx->hwc", down, pixels.astype(int), across, optimize=True)
    expected = sums / (height * width)
    np.testing.assert_array_equal(area_means(pixels, grid), expected)


def test_a_side_too_long_for_float32_is_still_exact():
    pixels = np.full((70_001, 1, 1), 255, np.uint8)
    pixels[::2] = 254
    expected = (pixels[:, 0, 0].astype(int)[:35_000].sum() * 2 + 254) / 70_001
    assert area_means(pixels, (2, 1))[0, 0, 0] == expected
