"""Layers that are computed in two ways: both against the definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dslo_jax.models.diffusion_layers import GroupNorm, convolution
from dslo_jax.models.vae import by_patch


def _norm(dtype) -> GroupNorm:
    random = np.random.default_rng(3)
    norm = GroupNorm(12, groups=4, epsilon=1e-6)
    norm.scale = nnx.Param(jnp.asarray(1 + 0.1 * random.standard_normal(12), dtype))
    norm.bias = nnx.Param(jnp.asarray(random.standard_normal(12), dtype))
    return norm


def _definition(norm: GroupNorm, sample) -> np.ndarray:
    sample = np.asarray(sample, np.float64)
    grouped = sample.reshape(len(sample), -1, 4, 3)
    mean = grouped.mean((1, 3), keepdims=True)
    variance = grouped.var((1, 3), keepdims=True)
    normed = ((grouped - mean) / np.sqrt(variance + 1e-6)).reshape(sample.shape)
    return normed * np.float64(norm.scale[...]) + np.float64(norm.bias[...])


@pytest.mark.parametrize("offset", [0, 3, 30])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    # The results of half precision have 8 or 11 bits.
    [(jnp.float32, 2e-5), (jnp.bfloat16, 2e-2), (jnp.float16, 3e-3)],
)
def test_group_norm_equals_the_definition(offset, dtype, tolerance):
    """Also where the mean is far from zero, in units of the standard deviation."""
    random = np.random.default_rng(4)
    sample = jnp.asarray(offset + random.standard_normal((2, 96, 80, 12)), dtype)
    norm = _norm(dtype)
    found = norm(sample)
    assert found.dtype == dtype
    np.testing.assert_allclose(
        np.float64(found), _definition(norm, sample), atol=tolerance, rtol=tolerance
    )


def test_one_pass_is_as_exact_as_the_rounding_of_bfloat16():
    random = np.random.default_rng(5)
    sample = jnp.asarray(30 + random.standard_normal((1, 128, 128, 12)), jnp.bfloat16)
    norm = _norm(jnp.float32)
    rows = sample.reshape(1, -1, 12).astype(jnp.float32)
    one, two = norm._in_one_pass(rows), norm._in_two_passes(rows)
    assert float(jnp.abs(one - two).max()) < 2**-8 * float(jnp.abs(two).max())


def test_a_constant_map_has_no_variance():
    """The difference of two equal numbers may round to a negative one."""
    sample = jnp.full((1, 64, 64, 12), 3.3, jnp.bfloat16)
    norm = GroupNorm(12, groups=4, epsilon=1e-6)
    found = np.float64(norm(sample))
    assert np.isfinite(found).all()
    assert np.abs(found).max() < 1


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 3e-2)]
)
def test_a_convolution_by_patch_is_the_same(dtype, tolerance):
    random = np.random.default_rng(6)
    conv = convolution(3, 8, rngs=nnx.Rngs(0))
    conv.kernel = nnx.Param(conv.kernel[...].astype(dtype))
    conv.bias = nnx.Param(jnp.asarray(random.standard_normal(8), dtype))
    pixels = jnp.asarray(random.standard_normal((2, 5, 7, 3)), dtype)
    with jax.default_matmul_precision("highest"):
        found, expected = by_patch(conv, pixels), conv(pixels)
    assert found.dtype == dtype
    np.testing.assert_allclose(
        np.asarray(found, np.float32), np.asarray(expected, np.float32), atol=tolerance
    )
