"""The resamplers against torch, and invariants for any size."""

import inspect

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from dslo_jax.ops import resize, resize_positions, resize_weights


SIZES = [((7, 9), (21, 5)), ((14, 14), (21, 28)), ((5, 1), (3, 4)), ((6, 8), (6, 8))]


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("source", "target"), SIZES)
def test_equals_torch_interpolate(method, source, target):
    values = np.random.default_rng(0).normal(size=(3, *source)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.tensor(values)[None], target, mode=method, align_corners=False
    )[0]
    actual = resize(jnp.asarray(values), target, method)
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    channels_last = jnp.moveaxis(jnp.asarray(values), 0, -1)
    actual = resize(channels_last, target, method, axes=(-3, -2))
    np.testing.assert_allclose(jnp.moveaxis(actual, -1, 0), expected, atol=1e-5)


@pytest.mark.parametrize("native", [(14, 14), (6, 10)])
@pytest.mark.parametrize("size", [(21, 28), (9, 5), (7, 28)])
@pytest.mark.parametrize("offset", [0.1, 0.0])
def test_positions_equal_torch_with_an_inflated_scale(native, size, offset):
    embeddings = np.random.default_rng(1).normal(size=(*native, 4)).astype(np.float32)
    scale = [(size[axis] + offset) / native[axis] for axis in (0, 1)]
    # The output length is floor(native * scale), which misses ``size`` by one when
    # the division rounds down; that is the rounding which the offset guards.
    lengths = [int(native[axis] * scale[axis]) for axis in (0, 1)]
    assert lengths == list(size), "choose other sizes: torch would round down"
    expected = torch.nn.functional.interpolate(
        torch.tensor(embeddings).permute(2, 0, 1)[None],
        scale_factor=scale,
        mode="bicubic",
        align_corners=False,
        recompute_scale_factor=False,
    )[0].permute(1, 2, 0)
    actual = resize_positions(jnp.asarray(embeddings), size, offset=offset)
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_positions_of_the_native_grid_are_untouched():
    embeddings = jnp.asarray(np.random.default_rng(2).normal(size=(3, 5, 2)))
    assert resize_positions(embeddings, (3, 5)) is embeddings


def test_half_precision_is_resampled_in_float32():
    values = np.random.default_rng(3).normal(size=(4, 6, 2)).astype(np.float32)
    half = jnp.asarray(values, jnp.bfloat16)
    expected = resize(half.astype(jnp.float32), (9, 9), axes=(0, 1))
    actual = resize(half, (9, 9), axes=(0, 1))
    assert actual.dtype == jnp.bfloat16
    np.testing.assert_array_equal(actual, expected.astype(jnp.bfloat16))


@pytest.mark.parametrize("method", ["bilinear", "bicubic", "area"])
@pytest.mark.parametrize(("length", "size"), [(7, 3), (3, 7), (1, 4), (4, 1), (37, 8)])
def test_rows_sum_to_one_and_mirror(method, length, size):
    weights = resize_weights(length, size, method)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(weights, weights[::-1, ::-1], atol=1e-6)


@pytest.mark.parametrize(("length", "size"), [(12, 4), (7, 3), (3, 7)])
def test_area_is_the_mean_over_each_cell(length, size):
    samples = np.random.default_rng(4).normal(size=length)
    # Every sample repeated ``size`` times makes cells of ``length`` whole samples.
    expected = np.repeat(samples, size).reshape(size, length).mean(axis=1)
    actual = resize_weights(length, size, "area") @ samples
    np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_misuse_is_named():
    with pytest.raises(ValueError, match="unknown method 'nearest'"):
        inspect.unwrap(resize_weights)(3, 4, "nearest")  # as without beartype
    with pytest.raises(ValueError, match="size=0"):
        resize_weights(3, 0)
