"""What is claimed to be the error of scalings, against the truth in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dslo_jax.solvers import Reason, sinkhorn
from dslo_jax.solvers._error import begin_estimate
from solvers import oracles


PATCHES, CLASSES = 32, 3
EPSILONS = (0.5, 0.1, 0.05, 0.02)

TOO_LOW, TOO_HIGH = 4, 100
"""How many times the truth may exceed the claim, and the claim the truth. Rounding is
counted at its worst, which it rarely is: the claim is high where it decides."""

ROUNDING = 1e-6
"""Below it the truth is a matter of chance."""


def costs():
    """Attention, its complement, random and Euclidean costs, and attention sinks."""
    rng = np.random.default_rng(0)
    source, affinity = oracles.scene(PATCHES, CLASSES)
    place = rng.random((PATCHES, 2))
    sinks = affinity.copy()
    sinks[:, :4] = affinity[:, 4:].sum(axis=1, keepdims=True) / 4
    dense = rng.dirichlet(np.ones(PATCHES), CLASSES)
    dense[2] = np.eye(PATCHES)[4] + np.eye(PATCHES)[7]
    yield source, affinity
    yield source, 1 - affinity / affinity.max(axis=1, keepdims=True)
    yield dense, rng.random((PATCHES, PATCHES))
    yield dense, ((place[:, None] - place[None]) ** 2).sum(axis=2)
    yield source, sinks / sinks.sum(axis=1, keepdims=True)


@functools.cache
def problems():
    """Sources, costs and epsilons in float32, and the logarithms of the solutions."""
    cases = [(*case, epsilon) for case in costs() for epsilon in EPSILONS]
    inputs = [np.asarray(part, np.float32) for part in zip(*cases, strict=True)]
    wide = zip(*(part.astype(np.float64) for part in inputs), strict=True)
    return inputs, np.array([solution(*case) for case in wide])


def solution(source, cost, epsilon):
    """Logarithm of the column scaling at the fixed point."""
    kernel = np.exp((cost.mean() - cost) / epsilon)
    mass = source / source.sum(axis=1, keepdims=True)
    column = np.ones((len(mass), len(cost)))
    for _ in range(3000):
        new = 1 / len(cost) / ((mass / (column @ kernel.T)) @ kernel)
        change = np.log(new / column)
        column = new
    assert np.ptp(change, axis=1).max() < 1e-12
    return np.log(column)


def claims(domain, **options):
    """The solutions, and the spread of their scalings around the true ones."""
    inputs, truth = problems()

    def solve(source, cost, epsilon):
        return sinkhorn(source, cost, epsilon=epsilon, domain=domain, **options)

    found = jax.device_get(jax.jit(jax.vmap(solve))(*map(jnp.asarray, inputs)))
    epsilon = inputs[2].astype(np.float64)[:, None, None]
    # What has no solution has no potential either.
    column = np.nan_to_num(found.column_potential, neginf=0).astype(np.float64)
    true = np.ptp(column / epsilon - truth, axis=2)
    return found, true


def assert_honest(claimed, true, tolerance=0.0):
    claimed = claimed.astype(np.float64)
    assert np.all(true <= TOO_LOW * np.maximum(claimed, max(tolerance, ROUNDING)))
    assert np.all(claimed <= TOO_HIGH * (true + ROUNDING))


@pytest.mark.parametrize("domain", ["kernel", "log"])
@pytest.mark.parametrize("max_steps", [3, 10, 60])
def test_after_a_number_of_steps(domain, max_steps):
    """Also where they do nothing any more: changes are rounding errors then."""
    found, true = claims(domain, max_steps=max_steps, tolerance=0.0)
    is_solved = ~np.isnan(found.error)
    assert is_solved.mean() > (0.8 if domain == "kernel" else 0.99)
    assert_honest(found.error[is_solved], true[is_solved])


@pytest.mark.parametrize("domain", ["kernel", "log"])
def test_after_stopping(domain):
    tolerance = 1e-5
    found, true = claims(domain, max_steps=1000, tolerance=tolerance)
    is_solved = ~np.isnan(found.error)
    assert_honest(found.error[is_solved], true[is_solved], tolerance)
    assert np.all(true[found.converged] < 2 * tolerance)
    # Slow ones cannot be as exact as that in float32, and stop before the cap.
    is_stalled = found.reason == Reason.STALLED
    assert np.array_equal(found.converged | is_stalled, is_solved)
    assert is_stalled.any()
    assert found.num_steps.max() < 1000


@pytest.mark.slow
def test_small_epsilon_in_the_log_domain():
    """Costs of 1000 epsilon: rounding alone moves the scalings by a hundredth."""
    rng = np.random.default_rng(0)
    cost = rng.random((20, 20)).astype(np.float32)
    source = rng.random((2, 20)).astype(np.float32)
    found = sinkhorn(
        jnp.asarray(source),
        jnp.asarray(cost),
        epsilon=1e-3,
        max_steps=100_000,
        domain="log",
    )
    assert found.reason.tolist() == [Reason.STALLED] * 2
    assert (found.num_steps < 10_000).all()
    with jax.enable_x64(True):
        exact = sinkhorn(
            jnp.asarray(source, jnp.float64),
            jnp.asarray(cost, jnp.float64),
            epsilon=1e-3,
            max_steps=100_000,
            tolerance=1e-6,
            domain="log",
        )
    assert exact.converged.all()
    moved = np.asarray(found.column_potential, np.float64) - np.asarray(
        exact.column_potential
    )
    true = np.ptp(moved / 1e-3, axis=1)
    assert (true > 1e-3).all()
    assert_honest(np.asarray(found.error), true)


def test_a_ratio_is_believed_as_far_as_rounding_lets_it_be_seen():
    estimate = begin_estimate((), jnp.float32)
    rounding = jnp.float32(1e-6)
    for change in (1.0, 0.1, 0.01):
        estimate = estimate.after(jnp.float32(change), rounding)
    np.testing.assert_allclose(estimate.ratio, 0.1, rtol=1e-3)
    for change in (1e-6, 1.1e-6, 1.1e-6, 0.0, 9e-7):
        estimate = estimate.after(jnp.float32(change), rounding)
        assert 1e-4 < estimate.ratio < 0.1
    for _ in range(2):  # far above rounding: the steps are slow after all
        estimate = estimate.after(jnp.float32(1e-3), rounding)
    assert estimate.ratio > 0.99


def test_a_change_from_far_away_tells_nothing():
    """The first step is as long as the costs span; the second is short by chance."""
    estimate = begin_estimate((), jnp.float32)
    for change in (900.0, 0.14):
        estimate = estimate.after(jnp.float32(change), jnp.float32(1e-4))
    assert estimate.error(jnp.float32(1000)) > 1000
