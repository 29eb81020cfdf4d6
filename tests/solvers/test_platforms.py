"""What GPUs and TPUs compute instead of a CPU, run on a CPU and held to its results."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dslo_jax import tuning
from dslo_jax.solvers import (
    LabelPropagation,
    _chain,
    _products,
    balancing,
    doubly_stochastic,
    maximum_velocity,
    optimal_path,
)
from solvers import oracles


PATCHES, ROWS = 96, 80


@pytest.fixture
def on(monkeypatch):
    """A function that solves with the code for ``"cpu"`` or for ``"other"``."""

    def solve(platform, function, *arrays, **options):
        monkeypatch.setattr(tuning, "BLOCK_ROWS", 24)
        monkeypatch.setattr(
            tuning,
            "by_platform",
            lambda *args, cpu, other: (cpu if platform == "cpu" else other)(*args),
        )
        return jax.jit(lambda *arrays: function(*arrays, **options))(*arrays)

    return solve


def problem(classes, dtype=jnp.float32):
    source, affinity = oracles.scene(PATCHES, classes)
    return jnp.asarray(source, jnp.float32), jnp.asarray(affinity, dtype)


FORMS = {
    "row": (_products.row_by_parts, balancing.row_by_blocks),
    "column": (_products.column_by_parts, balancing.column_by_long_parts),
    "thin": (_chain.thin_product, _chain.thin_product_on_cpu),
    "wide": (_chain.wide_product, _chain.wide_product_on_cpu),
    "least": (balancing.least_and_sums, balancing.least_and_sums_on_cpu),
}


@pytest.mark.parametrize(
    ("name", "function"),
    [(name, function) for name, both in FORMS.items() for function in both],
    ids=lambda each: getattr(each, "__name__", each),
)
@pytest.mark.parametrize("classes", [1, 5, 40])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_form_computes_what_float64_does(name, function, classes, dtype):
    state, affinity = problem(classes, dtype)
    exact, wide = np.asarray(affinity, np.float64), np.asarray(state, np.float64)
    if name == "least":
        least, found = function(affinity)
        assert float(least) == exact.min()
        expected = exact.sum(axis=0)
    elif name == "row":
        found, expected = function(state[0], affinity), wide[0] @ exact
    elif name == "column":
        found, expected = function(affinity, state[0]), exact @ wide[0]
    elif name == "thin":
        found, expected = function(state, affinity), wide @ exact
    else:
        on_cpu = function is _chain.wide_product_on_cpu
        found = function(state.T, affinity.T if on_cpu else affinity)
        expected = exact.T @ wide.T
    np.testing.assert_allclose(found, expected, rtol=2e-6)


@pytest.mark.parametrize(
    ("classes", "dtype"),
    [(1, jnp.float32), (5, jnp.bfloat16), (21, jnp.float32), (40, jnp.bfloat16)],
)
def test_velocities(on, classes, dtype):
    arrays = problem(classes, dtype)
    here, there = (on(where, maximum_velocity, *arrays) for where in ("cpu", "other"))
    assert here.converged.all()
    assert here.num_steps.tolist() == there.num_steps.tolist()
    np.testing.assert_allclose(there.velocity, here.velocity, rtol=2e-5)


@pytest.mark.parametrize(("classes", "dtype"), [(1, jnp.float32), (4, jnp.bfloat16)])
def test_propagation(on, classes, dtype):
    arrays, solve = problem(classes, dtype), LabelPropagation().solve
    here, there = (on(where, solve, *arrays) for where in ("cpu", "other"))
    assert here.converged.all()
    np.testing.assert_allclose(there.value, here.value, rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_balancing(on, dtype):
    _, affinity = problem(1, dtype)
    here, there = (on(each, doubly_stochastic, affinity) for each in ("cpu", "other"))
    assert there.row_scaling.dtype == here.row_scaling.dtype == jnp.float32
    np.testing.assert_allclose(there.row_scaling, here.row_scaling, rtol=1e-5)
    np.testing.assert_allclose(there.error, here.error, rtol=1e-3)


def test_affinities_that_cannot_be_balanced(on):
    source, affinity = problem(3)
    values = (np.nan, np.inf, -1.0, 0.0)
    affinities = jnp.stack([affinity.at[7].set(value) for value in values])
    velocities = jax.vmap(maximum_velocity, in_axes=(None, 0))
    here, there = (
        on(each, velocities, source, affinities) for each in ("cpu", "other")
    )
    assert there.reason.tolist() == here.reason.tolist()
    assert not there.converged.any()
    assert not there.velocity.any()


@pytest.mark.parametrize(
    ("reading", "dtype"),
    [
        ({}, jnp.float32),
        ({}, jnp.bfloat16),
        ({"support": ROWS}, jnp.bfloat16),
        ({"pairs": 3 * ROWS}, jnp.float32),
    ],
)
def test_paths(on, reading, dtype):
    """Several blocks at once, shared and owned, with everything found on the way."""
    source, affinity = problem(5, dtype)
    source = jnp.where(jnp.arange(PATCHES) < ROWS // 2, source, 0)
    options = reading | {"record": True, "max_steps": 12, "domain": "kernel"}
    here, there = (
        on(where, optimal_path, source, affinity, **options)
        for where in ("cpu", "other")
    )
    assert here.converged.all()
    assert here.num_steps.tolist() == there.num_steps.tolist()
    np.testing.assert_allclose(there.path, here.path, rtol=5e-6)
    np.testing.assert_allclose(there.history, here.history, rtol=0.1, atol=1e-6)


@pytest.mark.parametrize(
    ("solve", "options", "dtype"),
    [
        (maximum_velocity, {"balancing_steps": 3}, jnp.float32),
        pytest.param(
            maximum_velocity,
            {"balancing_steps": 3},
            jnp.bfloat16,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            optimal_path,
            {"max_steps": 2, "domain": "kernel"},
            jnp.float32,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_gradients(on, solve, options, dtype):
    source, affinity = problem(5, dtype)

    def total(source, affinity):
        return jnp.sum(solve(source, affinity, **options)[0] ** 2)

    gradient = jax.grad(total, argnums=(0, 1))
    here, there = (on(where, gradient, source, affinity) for where in ("cpu", "other"))
    scale = 2e-2 if dtype == jnp.bfloat16 else 1e-4
    for one, other in zip(here, there, strict=True):
        assert one.dtype == other.dtype
        one, other = (np.asarray(each, np.float64) for each in (one, other))
        np.testing.assert_allclose(other, one, atol=scale * np.abs(one).max())


@pytest.mark.parametrize("blocks", [1, 2, 6, 7])
def test_a_step_takes_blocks_that_divide_evenly(blocks, monkeypatch):
    monkeypatch.setattr(tuning, "BLOCKS_TOGETHER", 3000)
    together = tuning.blocks_together(blocks, 1000)
    assert together == {1: 1, 2: 2, 6: 3, 7: 1}[blocks]
    assert tuning.blocks_together(blocks, 4000) == 1


def test_a_program_for_three_platforms_gives_the_same():
    source, affinity = problem(3)

    def solve(source, affinity):
        velocity = maximum_velocity(source, affinity).velocity
        return velocity, optimal_path(source, affinity, domain="kernel").path

    export = jax.export.export(jax.jit(solve), platforms=["cpu", "cuda", "tpu"])
    found = export(source, affinity).call(source, affinity)
    for one, other in zip(found, jax.jit(solve)(source, affinity), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_loops_of_a_gpu_are_left_to_it(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    (options,) = tuning.compiler_options("gpu").values()
    assert "WHILE" in options.split(",")
    assert tuning.compiler_options("cpu") == tuning.compiler_options("tpu") == {}
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_enable_command_buffer=-WHILE")
    assert tuning.compiler_options("gpu") == {}
