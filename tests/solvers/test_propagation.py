"""Label propagation against its closed form in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dslo_jax.bench.truth import true_propagation
from dslo_jax.solvers import LabelPropagation, Reason
from solvers.jitted import solve


CLASSES, PATCHES = 3, 40


def problem(seed=0):
    rng = np.random.default_rng(seed)
    source = rng.random((CLASSES, PATCHES)) * (rng.random((CLASSES, PATCHES)) > 0.7)
    affinity = rng.exponential(size=(PATCHES, PATCHES)) ** 3
    return source.astype(np.float32), affinity.astype(np.float32)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.9, 0.99])
def test_the_map_is_the_closed_form(alpha):
    source, affinity = problem()
    found = solve(LabelPropagation(alpha=alpha, max_steps=5000), source, affinity)
    expected = true_propagation(source, affinity, alpha=alpha)
    assert all(found.converged)
    np.testing.assert_allclose(found.value, expected, atol=2e-6)
    np.testing.assert_allclose(np.sum(found.value, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 3, 10, 30])
def test_the_error_bounds_the_true_one(steps):
    source, affinity = problem(1)
    solver = LabelPropagation(alpha=0.8, max_steps=steps, tolerance=0.0)
    found = solve(solver, source, affinity)
    true = np.abs(found.value - true_propagation(source, affinity, alpha=0.8)).sum(
        axis=1
    )
    assert (found.num_steps == steps).all()
    assert (true <= found.error + 1e-6).all()
    assert (found.reason == Reason.STEP_CAP).all() or steps == 30


def test_classes_that_cannot_be_solved_say_why():
    source, affinity = problem(2)
    source[0] = 0
    source[1, 4] = np.nan
    found = solve(LabelPropagation(), source, affinity)
    reasons = [Reason(int(each)) for each in found.reason]
    assert reasons == [Reason.NO_MASS, Reason.SOURCE_NOT_FINITE, Reason.CONVERGED]
    assert not found.value[:2].any()
    assert np.isnan(found.error[:2]).all()
    for spoilt, reason in (
        (-1.0, Reason.AFFINITY_NEGATIVE),
        (np.inf, Reason.AFFINITY_NOT_FINITE),
    ):
        broken = affinity.copy()
        broken[3, 5] = spoilt
        found = solve(LabelPropagation(), problem()[0], broken)
        assert (found.reason == reason).all()
    empty = affinity.copy()
    empty[7] = 0
    found = solve(LabelPropagation(), problem()[0], empty)
    assert (found.reason == Reason.UNBALANCEABLE).all()


def test_the_gradient_is_that_of_the_closed_form(x64):
    source, affinity = (array.astype(np.float64) for array in problem(3))
    weights = np.random.default_rng(0).random((CLASSES, PATCHES))
    solver = LabelPropagation(alpha=0.6, tolerance=1e-13, max_steps=500)

    def loss(affinity):
        return jnp.sum(weights * solver.solve(jnp.asarray(source), affinity).value)

    def exact(affinity):
        scaled = affinity / jnp.sum(affinity, axis=1, keepdims=True)
        start = source / source.sum(axis=1, keepdims=True)
        system = jnp.eye(PATCHES) - 0.6 * scaled
        return jnp.sum(weights * 0.4 * jnp.linalg.solve(system.T, start.T).T)

    np.testing.assert_allclose(
        jax.jit(jax.grad(loss))(jnp.asarray(affinity)),
        jax.grad(exact)(affinity),
        rtol=1e-7,
        atol=1e-12,
    )


@pytest.mark.parametrize(
    "options", [{"alpha": 1.0}, {"alpha": -0.1}, {"alpha": np.nan}, {"max_steps": 0}]
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        LabelPropagation(**options)
