"""The error after every step, against runs of so many steps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dslo_jax.solvers import doubly_stochastic, maximum_velocity, optimal_path, sinkhorn
from dslo_jax.tuning import MANY
from solvers import oracles


PATCHES, CLASSES, STEPS = 36, 3, 6


def problem(classes=CLASSES):
    source, affinity = oracles.scene(PATCHES, classes)
    return jnp.asarray(source, jnp.float32), jnp.asarray(affinity, jnp.float32)


@pytest.mark.parametrize(
    ("solve", "domain"), [(optimal_path, "kernel"), (sinkhorn, "log")]
)
def test_scalings(solve, domain):
    source, cost = problem()
    source = source.at[1].set(0)
    options = {"tolerance": 0.0, "domain": domain}
    solve = jax.jit(solve, static_argnames=(*options, "max_steps", "record"))
    found = solve(source, cost, max_steps=4, record=True, **options)
    assert found.history.shape == (4, CLASSES)
    for steps in (1, 2, 4):
        alone = solve(source, cost, max_steps=steps, **options)
        assert alone.history is None
        np.testing.assert_allclose(found.history[steps - 1], alone.error, rtol=1e-3)
    assert np.isnan(found.history[:, 1]).all()


def test_a_class_that_is_done_writes_no_more():
    source, affinity = problem()
    source = source.at[1].set(jnp.eye(PATCHES)[4]).at[2].set(jnp.eye(PATCHES)[5])
    source = source.at[2, 7].set(1)
    solve = jax.jit(lambda s: optimal_path(s, affinity, epsilon=2e-3, record=True))
    found = solve(source)
    assert len(set(found.num_steps.tolist())) > 1  # in the kernel, one row, logarithms
    for c, steps in enumerate(found.num_steps.tolist()):
        assert not np.isnan(found.history[:steps, c]).any()
        assert np.isnan(found.history[steps:, c]).all()
        assert found.history[steps - 1, c] == found.error[c]


@pytest.mark.parametrize(
    "classes", [CLASSES, pytest.param(MANY, marks=pytest.mark.slow)]
)
def test_velocity(classes):
    """The share of the patches that have not arrived; few and many classes."""
    source, affinity = problem(classes)
    velocity = functools.partial(maximum_velocity, max_steps=40, record=True)
    found = jax.device_get(jax.jit(velocity)(source, affinity))
    assert found.history.shape == (40, classes)
    for c, steps in enumerate(found.num_steps.tolist()):
        for step in range(steps):
            late = found.arrival[c] > step + 1
            assert found.history[step, c] == pytest.approx(np.mean(late), abs=1e-6)
        assert np.isnan(found.history[steps:, c]).all()
    assert found.converged.all()


def test_balancing():
    _, affinity = problem()
    found = doubly_stochastic(affinity, max_steps=STEPS, record=True)
    assert found.history.shape == (STEPS,)
    assert found.history[-1] == found.error
    alone = doubly_stochastic(affinity, max_steps=3)
    np.testing.assert_allclose(found.history[2], alone.error, rtol=1e-5)


@pytest.mark.slow
def test_images_and_gradients():
    source, affinity = problem()

    def total(affinity, record):
        paths = optimal_path(source, affinity, record=record, domain="kernel").path
        arrived = maximum_velocity(source, affinity, record=record).velocity
        return paths.sum() + (arrived**2).sum()

    batch = jnp.stack([affinity, affinity**2])
    gradient = jax.jit(jax.vmap(jax.grad(total), in_axes=(0, None)), static_argnums=1)
    plain, recorded = (gradient(batch, record) for record in (False, True))
    np.testing.assert_allclose(recorded, plain, rtol=1e-5, atol=1e-7)
