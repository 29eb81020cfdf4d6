"""Upsampling against float64 definitions and torch, and invariants for any photo."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import example, given, strategies as st
from properties import PROPERTY, SEEDS

from dslo_jax.ops import (
    bilinear_labels,
    bilinear_upsample,
    dense_bilateral_labels,
    dense_bilateral_upsample,
    joint_bilateral_labels,
    joint_bilateral_upsample,
    resize_weights,
)
from dslo_jax.ops.cells import cell_layout


LAYOUTS = [  # photo, grid: broken and whole factors, photos smaller than the grid
    ((37, 53), (8, 6)),
    ((32, 48), (4, 8)),
    ((5, 40), (8, 6)),
    ((1, 1), (4, 3)),
]
SIZE, GRID = LAYOUTS[0]
VARIANCES = st.floats(-6, 2).map(lambda exponent: 10**exponent)
UPSAMPLERS = [joint_bilateral_upsample, dense_bilateral_upsample]


def inputs(size=SIZE, grid=GRID, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    values = jnp.asarray(rng.normal(size=(classes, *grid)), jnp.float32)
    return values, rng.random((*size, 3), np.float32)


def positions(length, cells):
    """Pixel centres in the coordinates of the grid."""
    return (np.arange(length) + 0.5) * cells / length - 0.5


def joint_by_definition(values, guide, spatial_variance, range_variance, radius):
    """Eq. 23 over the cells around each pixel's own, one pixel at a time."""
    values, guide = np.asarray(values, np.float64), guide.astype(np.float64)
    (classes, h, w), (height, width, _) = values.shape, guide.shape
    means = np.einsum(
        "hy,yxc,wx->hwc",
        resize_weights(height, h, "area").astype(np.float64),
        guide,
        resize_weights(width, w, "area").astype(np.float64),
    )
    result = np.empty((classes, height, width))
    for i, y in enumerate(positions(height, h)):
        for j, x in enumerate(positions(width, w)):
            row, column = int(np.floor(y + 0.5)), int(np.floor(x + 0.5))
            near = np.s_[
                max(row - radius, 0) : row + radius + 1,
                max(column - radius, 0) : column + radius + 1,
            ]
            distance = (np.arange(h)[:, None] - y) ** 2 + (np.arange(w) - x) ** 2
            change = np.sum((means - guide[i, j]) ** 2, axis=-1)
            exponent = distance / spatial_variance + change / range_variance
            weights = np.exp(-exponent)[near]
            result[:, i, j] = np.sum(
                weights * values[(slice(None), *near)], axis=(1, 2)
            )
            result[:, i, j] /= weights.sum()
    return result


def dense_by_definition(values, guide, spatial_variance, range_variance):
    """Eq. 23 over all pixels of a disc, one pixel at a time."""
    size, (_, h, w) = guide.shape[:2], values.shape
    enlarged = torch.nn.functional.interpolate(
        torch.tensor(np.asarray(values, np.float64))[None], size, mode="bilinear"
    )[0].numpy()
    guide = guide.astype(np.float64)
    result = np.empty_like(enlarged)
    for i in range(size[0]):
        for j in range(size[1]):
            distance = ((np.arange(size[0]) - i) * h / size[0])[:, None] ** 2
            distance = distance + ((np.arange(size[1]) - j) * w / size[1]) ** 2
            change = np.sum((guide - guide[i, j]) ** 2, axis=-1)
            weights = np.exp(-distance / spatial_variance - change / range_variance)
            weights[distance > 9 * spatial_variance / 2 + 1e-9] = 0
            result[:, i, j] = np.sum(weights * enlarged, axis=(1, 2)) / weights.sum()
    return result


@pytest.mark.parametrize(("size", "grid"), LAYOUTS)
def test_joint_equals_its_definition(size, grid):
    values, guide = inputs(size, grid)
    actual = joint_bilateral_upsample(values, guide)
    expected = joint_by_definition(values, guide, 1.0, 0.1, 2)
    np.testing.assert_allclose(actual, expected, atol=2e-6)


def test_joint_options_equal_their_definition():
    values, guide = inputs()
    options = {"spatial_variance": 0.5, "range_variance": 0.02, "radius": 1}
    actual = joint_bilateral_upsample(values, guide, **options)
    expected = joint_by_definition(values, guide, *options.values())
    # Exponents reach 3 / 0.02 = 150, where a rounding of 6e-8 is worth 1e-5.
    np.testing.assert_allclose(actual, expected, atol=2e-5)


@pytest.mark.parametrize(("size", "grid"), LAYOUTS)
def test_dense_equals_its_definition(size, grid):
    values, guide = inputs(size, grid)
    actual = dense_bilateral_upsample(values, guide)
    expected = dense_by_definition(values, guide, 2.0, 0.02)
    np.testing.assert_allclose(actual, expected, atol=3e-6)


def test_dense_options_equal_their_definition():
    values, guide = inputs()
    actual = dense_bilateral_upsample(
        values, guide, spatial_variance=0.5, range_variance=0.1
    )
    expected = dense_by_definition(values, guide, 0.5, 0.1)
    np.testing.assert_allclose(actual, expected, atol=3e-6)


@pytest.mark.parametrize(("size", "grid"), LAYOUTS[::2])
def test_bilinear_equals_torch_as_maps_and_as_labels(size, grid):
    values, _ = inputs(size, grid, classes=12)
    expected = torch.nn.functional.interpolate(
        torch.tensor(np.asarray(values))[None], size, mode="bilinear"
    )[0].numpy()
    np.testing.assert_allclose(bilinear_upsample(values, size), expected, atol=1e-5)
    labels = bilinear_labels(values, size).labels
    second, first = np.sort(expected, axis=0)[-2:]
    clear = first - second > 1e-5
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(labels[clear], expected.argmax(axis=0)[clear])


@pytest.mark.parametrize("upsample", UPSAMPLERS)
@PROPERTY
@given(SEEDS, VARIANCES, VARIANCES)
@example(0, 1.0, 0.1)  # the defaults of one
@example(0, 2.0, 0.02)  # and of the other
def test_flat_maps_stay_flat_and_others_stay_in_range(
    upsample, seed, spatial_variance, range_variance
):
    values, guide = inputs(seed=seed)
    values = values.at[1].set(0.7)
    if upsample is dense_bilateral_upsample:
        # Its disc grows with the spatial variance, and its time with the disc.
        spatial_variance = min(spatial_variance, 2.0)
    maps = np.asarray(
        upsample(
            values,
            guide,
            spatial_variance=spatial_variance,
            range_variance=range_variance,
        )
    )
    # Float32 sums of up to 600 products, each rounded: some 20 units at the worst.
    np.testing.assert_allclose(maps[1], 0.7, rtol=3e-6)
    low, high = values.min(axis=(1, 2)), values.max(axis=(1, 2))
    assert (maps.min(axis=(1, 2)) >= low - 3e-6).all()
    assert (maps.max(axis=(1, 2)) <= high + 3e-6).all()


@pytest.mark.parametrize("upsample", UPSAMPLERS)
@PROPERTY
@given(SEEDS, st.floats(0, 1, width=32))
@example(0, 0.0)
@example(0, 1.0)
def test_a_photo_of_one_colour_leaves_only_the_distance(upsample, seed, shade):
    values, guide = inputs(seed=seed)
    maps = upsample(values, np.full_like(guide, shade))
    assert jnp.isfinite(maps).all()
    other = upsample(values, np.full_like(guide, 0.3))
    np.testing.assert_allclose(maps, other, atol=1e-6)


@pytest.mark.parametrize("upsample", UPSAMPLERS)
def test_a_tiny_range_variance_stays_finite(upsample):
    values, guide = inputs()
    assert jnp.isfinite(upsample(values, guide, range_variance=1e-6)).all()


@pytest.mark.parametrize("upsample", UPSAMPLERS)
def test_transposing_photo_and_values_transposes_the_maps(upsample):
    values, guide = inputs()
    maps = upsample(values, guide)
    turned = upsample(values.swapaxes(1, 2), guide.swapaxes(0, 1))
    np.testing.assert_allclose(turned.swapaxes(1, 2), maps, atol=2e-6)


def test_joint_traces_and_takes_photos_on_the_device():
    values, guide = inputs()
    expected = joint_bilateral_upsample(values, guide)
    actual = jax.jit(joint_bilateral_upsample)(values, jnp.asarray(guide))
    np.testing.assert_allclose(actual, expected, atol=2e-6)


@pytest.mark.parametrize("reading", ["joint", "dense"])
def test_labels_and_ties_equal_those_of_the_maps(reading):
    values, guide = inputs(classes=5)
    # Class 4 repeats class 0; class 3 would win everywhere but is inactive.
    values = values.at[4].set(values[0]).at[3].set(9.0)
    active = jnp.arange(5) != 3
    if reading == "joint":
        photo = np.rint(255 * guide).astype(np.uint8)
        labels, tied = joint_bilateral_labels(values, photo, active)
        guide = photo.astype(np.float32) / 255
        maps = np.array(joint_bilateral_upsample(values, guide))
    else:
        labels, tied = dense_bilateral_labels(values, guide, active)
        maps = np.array(dense_bilateral_upsample(values, guide))
    maps[3] = -np.inf
    assert labels.dtype == jnp.int32
    np.testing.assert_array_equal(labels, maps.argmax(axis=0))
    np.testing.assert_array_equal(tied, (maps == maps.max(axis=0)).sum(axis=0) > 1)
    np.testing.assert_array_equal(tied, np.asarray(labels) == 0)
    assert 0 < np.sum(tied) < np.size(tied)


@pytest.mark.usefixtures("x64")
def test_double_precision_mode_still_computes_in_float32():
    values, guide = inputs()
    assert joint_bilateral_upsample(values, guide).dtype == jnp.float32
    assert dense_bilateral_upsample(values, guide).dtype == jnp.float32
    cells = cell_layout(SIZE, GRID).fold(guide.astype(np.float64))
    assert {part.dtype for part in cells} == {np.dtype(np.float32)}
    assert bilinear_labels(values, SIZE).labels.dtype == jnp.int32


def test_misuse_is_named():
    values, guide = inputs()
    with pytest.raises(ValueError, match="range_variance=0"):
        joint_bilateral_upsample(values, guide, range_variance=0.0)
    with pytest.raises(ValueError, match="radius must be at least 1, got 0"):
        joint_bilateral_upsample(values, guide, radius=0)
    with pytest.raises(ValueError, match="spatial_variance=-1"):
        dense_bilateral_labels(values, guide, spatial_variance=-1.0)
    with pytest.raises(ValueError, match="divide by 255"):  # as without beartype
        inspect.unwrap(dense_bilateral_upsample)(values, guide.astype(np.uint8))
