"""Folding a photo into cells and back."""

import inspect

import jax.numpy as jnp
import numpy as np
import pytest

from dslo_jax.ops.cells import CellLayout, cell_layout


LAYOUTS = [  # photo, grid: whole and broken factors, photos smaller than the grid
    ((32, 48), (4, 8)),
    ((37, 53), (8, 6)),
    ((375, 500), (64, 64)),
    ((5, 90), (8, 6)),
    ((1, 1), (4, 3)),
    ((7, 6), (1, 1)),
]


def photo(size, seed=0):
    return np.random.default_rng(seed).random((*size, 3), np.float32)


@pytest.mark.parametrize(("size", "grid"), LAYOUTS)
def test_unfold_undoes_fold(size, grid):
    layout = cell_layout(size, grid)
    guide = photo(size)
    colors = np.moveaxis(layout.fold(guide).colors, -1, 0)
    np.testing.assert_array_equal(layout.unfold(colors), np.moveaxis(guide, -1, 0))
    np.testing.assert_array_equal(
        layout.unfold(jnp.asarray(colors)), np.moveaxis(guide, -1, 0)
    )


@pytest.mark.parametrize(("size", "grid"), LAYOUTS)
def test_every_pixel_lies_in_the_cell_that_contains_its_centre(size, grid):
    layout = cell_layout(size, grid)
    for axis, (cells, offsets, slot_of_pixel) in enumerate(
        (layout.rows, layout.columns)
    ):
        position = (np.arange(size[axis]) + 0.5) * grid[axis] / size[axis]
        cell, slot = np.divmod(slot_of_pixel, layout.slots[axis])
        np.testing.assert_array_equal(cell, np.floor(position))
        np.testing.assert_array_equal(cells[cell, slot], np.arange(size[axis]))
        np.testing.assert_allclose(
            offsets[cell, slot], position - 0.5 - cell, atol=1e-6
        )
        assert np.abs(offsets).max() <= 0.5


@pytest.mark.parametrize(("size", "grid"), [x for x in LAYOUTS if x[1] != (64, 64)])
def test_means_are_taken_over_the_exact_area(size, grid):
    guide = photo(size)
    (height, width), (h, w) = size, grid
    # Every pixel divided into h x w: then a cell holds whole pixels only.
    fine = guide.astype(np.float64).repeat(h, axis=0).repeat(w, axis=1)
    expected = fine.reshape(h, height, w, width, 3).mean(axis=(1, 3))
    for given in (guide, jnp.asarray(guide)):
        np.testing.assert_allclose(
            cell_layout(size, grid).fold(given).means, expected, atol=1e-6
        )


def test_misuse_is_named():
    with pytest.raises(ValueError, match="at least 1"):
        cell_layout((0, 5), (2, 2))
    layout = cell_layout((4, 6), (2, 2))
    with pytest.raises(ValueError, match="guide is 6 x 4"):
        layout.fold(photo((6, 4)))
    with pytest.raises(ValueError, match="divide by 255"):
        inspect.unwrap(CellLayout.fold)(layout, np.zeros((4, 6, 3), np.uint8))
