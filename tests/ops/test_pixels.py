"""Labels of whole photos against Eq. 23 in float64, and what they may cost."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies as st
from properties import PROPERTY, SEEDS

from dslo_jax.areas import area_means
from dslo_jax.ops import bilinear_labels, joint_bilateral_labels, pixels, tiles
from dslo_jax.ops.pixels import Canvas, Colours, find_rivals, label_photos
from dslo_jax.ops.tiles import label_tile
from dslo_jax.ops.weights import form_of, steps


ODD = [  # photo, grid, classes: cells of many pixels, of one, and of none
    ((37, 53), (8, 6), 3),
    ((211, 187), (3, 2), 5),  # cells of several pieces
    ((5, 190), (8, 6), 20),
    ((1, 1), (4, 3), 2),
    ((90, 3), (16, 16), 40),
    ((64, 64), (32, 32), 171),
    ((33, 47), (8, 8), 1),
]
VARIANCES = [(1.0, 0.1), (1e-6, 1e-6), (1.0, 1e-6), (100.0, 100.0), (0.5, 0.02)]


def draw(size, grid, classes, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.random((classes, *grid), np.float32)
    return values, rng.integers(0, 256, (*size, 3)).astype(np.uint8)


def smooth(grid, classes, seed=0):
    """Maps with large regions: most cells are decided."""
    rng = np.random.default_rng(seed)
    centres = rng.random((classes, 2)) * grid
    rows, columns = np.indices(grid)
    return -np.stack(
        [np.hypot(rows - y, columns - x) for y, x in centres], dtype=np.float32
    )


def in_float64(values, photo, spatial=1.0, colour=0.1, radius=2, *, hat=False):
    """Eq. 23 with all pixels at once; bilinear weights if ``hat``."""
    values, photo = np.asarray(values, np.float64), photo / 255
    (_, h, w), (height, width, _) = values.shape, photo.shape
    means = area_means(np.rint(photo * 255).astype(np.uint8), (h, w)) / 255
    cell_y, cell_x = (
        (2 * np.arange(length) + 1) * cells // (2 * length)
        for length, cells in ((height, h), (width, w))
    )
    y = ((np.arange(height) + 0.5) * h / height - 0.5)[:, None]
    x = ((np.arange(width) + 0.5) * w / width - 0.5)[None]
    exponents, near = [], []
    for down, right in steps(radius).astype(int):
        row, column = (cell_y + down)[:, None], (cell_x + right)[None]
        inside = (row >= 0) & (row < h) & (column >= 0) & (column < w)
        place = row.clip(0, h - 1), column.clip(0, w - 1)
        if hat:
            shares = (1 - abs(y - row)).clip(0) * (1 - abs(x - column)).clip(0)
            exponent = np.log(np.maximum(shares, 1e-300))
        else:
            exponent = -((y - row) ** 2 + (x - column) ** 2) / spatial
            exponent = exponent - np.sum((photo - means[place]) ** 2, -1) / colour
        exponents.append(np.where(inside, exponent, -np.inf))
        near.append(values[:, *place])
    weights = np.exp(np.array(exponents) - np.max(exponents, axis=0))
    return np.einsum("tyx,tcyx->cyx", weights / weights.sum(axis=0), near)


def assert_labels_of(found, maps, tolerance=1e-5):
    """Equal wherever float64 has a margin that float32 can tell."""
    best = maps.max(axis=0)
    given = np.take_along_axis(maps, found.labels[None], axis=0)[0]
    assert (best - given).max() <= tolerance
    close = (maps >= best - tolerance).sum(axis=0) > 1
    assert close[found.tied].all()
    assert close.mean() < 0.01 or found.tied.any()
    np.testing.assert_array_equal(found.labels[~close], maps.argmax(axis=0)[~close])


@pytest.mark.parametrize(("size", "grid", "classes"), ODD)
@pytest.mark.parametrize("variances", VARIANCES)
def test_labels_are_those_of_the_definition(size, grid, classes, variances):
    values, photo = draw(size, grid, classes)
    spatial, colour = variances
    found = joint_bilateral_labels(
        values, photo, spatial_variance=spatial, range_variance=colour
    )
    assert_labels_of(found, in_float64(values, photo, spatial, colour))


@pytest.mark.parametrize(("size", "grid", "classes"), ODD)
def test_bilinear_labels_are_those_of_the_definition(size, grid, classes):
    values, photo = draw(size, grid, classes)
    maps = in_float64(values, photo, radius=1, hat=True)
    assert_labels_of(bilinear_labels(values, size), maps)


@PROPERTY
@given(
    SEEDS,
    st.floats(-6, 2).map(lambda exponent: 10**exponent),
    st.floats(-6, 2).map(lambda exponent: 10**exponent),
)
def test_any_variance_and_decided_cells(seed, spatial, colour):
    values, photo = smooth((16, 16), 6, seed), draw((67, 81), (1, 1), 1, seed)[1]
    photo[:30, :40] = photo[0, 0]  # of one colour
    found = joint_bilateral_labels(
        values, photo, spatial_variance=spatial, range_variance=colour
    )
    assert_labels_of(found, in_float64(values, photo, spatial, colour), 1e-4)


def test_ties_of_quantised_maps_are_those_of_the_definition():
    """Like velocities: few different values, the same ones in many classes."""
    rng = np.random.default_rng(0)
    values = np.floor(4 * rng.random((9, 3, 3), np.float32)).repeat(6, 1).repeat(6, 2)
    photo = draw((90, 110), (1, 1), 1)[1]
    found = joint_bilateral_labels(values, photo)
    maps = in_float64(values, photo)
    best = maps.max(axis=0)
    expected = (maps >= best - 1e-12).sum(axis=0) > 1
    assert 0.05 < expected.mean() < 0.95
    np.testing.assert_array_equal(found.tied, expected)
    first = (maps >= best - 1e-12).argmax(axis=0)
    np.testing.assert_array_equal(found.labels, first)


def test_a_decided_cell_has_the_label_that_its_pixels_would_have(monkeypatch):
    values, photo = smooth((32, 32), 12), draw((150, 170), (1, 1), 1)[1]
    outlook = find_rivals(values, 2)
    open_cells = outlook.rivals.any(axis=2)
    assert 0.1 < open_cells.mean() < 0.9
    assert outlook.rivals[open_cells].sum(axis=1).mean() < 6  # of 12
    found = joint_bilateral_labels(values, photo)
    everything = outlook._replace(rivals=np.ones_like(outlook.rivals))
    monkeypatch.setattr(pixels, "find_rivals", lambda *_: everything)
    for mine, all_of_them in zip(
        found, joint_bilateral_labels(values, photo), strict=True
    ):
        np.testing.assert_array_equal(mine, all_of_them)


def test_a_difference_that_float32_loses_decides_nothing():
    values = np.ones((2, 8, 8), np.float32)
    values[1] += 1e-6
    assert find_rivals(values, 2).rivals.all()
    values[1] += 1e-5
    assert not find_rivals(values, 2).rivals.any()


def counting(tiles_seen, form="product"):
    variances = np.array([1.0, 0.1], np.float32)

    def run(tile):
        tiles_seen.append(tile)
        return jax.device_get(label_tile(tile, variances, form=form, together=16))

    return run


def canvas(values, photo):
    means = area_means(photo, values.shape[1:])
    return Canvas(values, photo.shape[:2], Colours(photo, means))


def test_photos_of_a_batch_share_a_tile_and_keep_their_labels():
    sizes = [(37, 53), (90, 20), (37, 53)]
    grids = [(8, 6), (4, 4), (3, 7)]
    drawn = [
        draw(size, grid, 3 + i, seed=i)
        for i, (size, grid) in enumerate(zip(sizes, grids, strict=True))
    ]
    seen = []
    found = label_photos([canvas(*each) for each in drawn], counting(seen), radius=2)
    assert len(seen) == 1
    for together, (values, photo) in zip(found, drawn, strict=True):
        alone = joint_bilateral_labels(values, photo)
        for mine, other in zip(together, alone, strict=True):
            np.testing.assert_array_equal(mine, other)


def test_tiles_have_one_shape_whatever_the_photos():
    seen = []
    for size, grid, classes in (((37, 53), (8, 6), 2), ((900, 700), (16, 16), 8)):
        drawn = canvas(*draw(size, grid, classes))
        label_photos([drawn], counting(seen), radius=2)
    assert len(seen) > 2
    shapes = {tuple(part.shape for part in tile) for tile in seen}
    assert len(shapes) == 1


def test_many_classes_need_three_programs_at_most():
    seen = []
    for seed in range(3):
        for classes in (70, 100, 128):
            values = smooth((16, 16), classes, seed)
            values[:, :3] = np.random.default_rng(seed).random(values[:, :3].shape)
            photo = draw((80, 80), (1, 1), 1, seed)[1]
            label_photos([canvas(values, photo)], counting(seen), radius=2)
    assert {tile.classes.shape[1] for tile in seen} <= {8, 32, 128}


def test_maps_that_decide_all_cells_run_nothing():
    values = np.stack([np.zeros((8, 8)), np.ones((8, 8))]).astype(np.float32)
    (found,) = label_photos(
        [canvas(values, draw((50, 60), (1, 1), 1)[1])], counting(None), radius=2
    )
    assert (found.labels == 1).all()
    assert not found.tied.any()


@pytest.mark.parametrize("form", ["product", "squares", "hat"])
def test_a_step_of_any_size_and_a_mapped_one_give_the_same(form):
    seen = []
    label_photos([canvas(*draw((40, 50), (8, 8), 3))], counting(seen), radius=2)
    tile = seen[0]._replace(used=seen[0].used // 2)
    if form == "hat":
        tile = tile._replace(pixels=None)
    variances = jnp.array([1.0, 0.1])
    find = partial(label_tile, variances=variances, form=form)
    few, many = find(tile, together=16), find(tile, together=tiles.UNITS)
    batch = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), tile)
    mapped = jax.vmap(partial(find, together=64))(batch)
    used = int(tile.used)
    assert used > 0
    for one, other, both in zip(few, many, mapped, strict=True):
        np.testing.assert_array_equal(one[:used], other[:used])
        np.testing.assert_array_equal(one[:used], both[1, :used])


def test_the_form_of_the_weights_follows_the_variances():
    assert form_of(1.0, 0.1) == "product"
    assert form_of(1.0, 1e-3) == form_of(1e-3, 1.0) == "squares"


def test_units_together_grow_with_the_device_and_shrink_with_the_classes():
    assert tiles.units_together(8, "cpu") == 64
    assert tiles.units_together(256, "cpu") < tiles.units_together(8, "cpu")
    assert tiles.units_together(8, "cuda") == tiles.UNITS
