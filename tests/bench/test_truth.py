"""The truth of the benchmarks against the loops of the tests, and against the ops."""

import jax.numpy as jnp
import numpy as np
import pytest
from solvers import oracles

from dslo_jax import ops
from dslo_jax.attention import average_attention
from dslo_jax.bench import truth
from dslo_jax.bench.scenes import draw_affinity, draw_source
from dslo_jax.models.query_key import QueryKey
from dslo_jax.solvers import kl_map


@pytest.fixture(scope="module")
def scene():
    return draw_source(100, 4), draw_affinity(100)


def test_path(scene):
    expected = oracles.optimal_path(*scene)
    np.testing.assert_allclose(truth.true_path(*scene), expected, rtol=1e-6)


def test_velocity(scene):
    source, affinity = (array.astype(np.float64) for array in scene)
    arrival, _ = oracles.saturation(source, oracles.transition(affinity))
    np.testing.assert_allclose(
        truth.true_velocity(*scene), 1 / (1 + arrival), rtol=1e-9
    )


def test_kl(scene):
    found = kl_map(jnp.asarray(scene[0]))
    np.testing.assert_allclose(truth.true_kl(scene[0]), found, atol=1e-6)


def test_upsampling():
    rng = np.random.default_rng(0)
    values = rng.random((2, 4, 4), np.float32)
    photo = rng.random((32, 32, 3), np.float32)
    found = ops.joint_bilateral_upsample(jnp.asarray(values), photo)
    expected = truth.true_upsampled(values, photo)
    assert truth.scaled_error(np.asarray(found), expected) < 3e-6


def test_attention():
    rng = np.random.default_rng(0)
    queries, keys = rng.normal(size=(2, 2, 30, 3, 8)).astype(np.float32)
    pairs = [
        QueryKey(jnp.asarray(q)[None], jnp.asarray(k)[None])
        for q, k in zip(queries, keys, strict=True)
    ]
    found = average_attention(pairs, [1.0, 1.0])[0]
    expected = truth.true_attention(queries, keys)
    assert truth.scaled_error(np.asarray(found), expected) < 3e-6


def test_errors():
    found, true = np.array([1.1, 10.0]), np.array([1.0, 10.0])
    assert truth.relative_error(found, true) == pytest.approx(0.1)
    assert truth.scaled_error(found, true) == pytest.approx(0.01)
    assert np.isnan(truth.relative_error(np.array([np.nan, 1.0]), true))
