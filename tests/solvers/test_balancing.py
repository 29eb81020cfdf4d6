import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from properties import PROPERTY, SEEDS

from dslo_jax.bench.scenes import draw_affinity
from dslo_jax.solvers import doubly_stochastic
from solvers import oracles


PATCHES = 64

_balance = jax.jit(doubly_stochastic, static_argnames=("max_steps", "tolerance"))


def balance(affinity, **options):
    """Any array in, the solution in NumPy."""
    return jax.tree.map(np.asarray, _balance(jnp.asarray(affinity), **options))


def matrix_of(transition, affinity):
    """The transition in float64, from the documented formula."""
    row, column, affinity = in_float64([*transition[:2], affinity])
    return row[:, None] * affinity * column[None]


@functools.cache
def problem(seed=0):
    _, affinity = oracles.scene(PATCHES, 4, seed)
    return affinity.astype(np.float32)


def in_float64(arrays):
    return tuple(np.asarray(array, np.float64) for array in arrays)


def test_balancing_equals_the_loop():
    affinity = problem()
    transition = balance(affinity)
    (exact,) = in_float64([affinity])
    matrix = matrix_of(transition, affinity)
    np.testing.assert_allclose(matrix, oracles.transition(exact), rtol=1e-5)
    assert int(transition.num_steps) == 15
    assert float(transition.error) == pytest.approx(
        np.abs(matrix.sum(axis=0) - 1).max(), abs=1e-5
    )
    assert not bool(transition.converged)  # tolerance 0 asks for a count, not for 0
    formed = doubly_stochastic(jnp.asarray(affinity)).matrix(jnp.asarray(affinity))
    np.testing.assert_allclose(formed, matrix, rtol=1e-5)


def test_thousands_of_patches_do_not_cost_digits():
    """Summed one after another, 1024 numbers are off by 1e-5 after 15 rounds."""
    affinity = draw_affinity(1024)
    transition = balance(affinity)
    (exact,) = in_float64([affinity])
    row = np.ones(len(exact))
    for _ in range(15):
        column = 1 / (row @ exact)
        row = 1 / (exact @ column)
    np.testing.assert_allclose(transition.row_scaling, row, rtol=1e-6)
    np.testing.assert_allclose(transition.column_scaling, column, rtol=1e-6)


@pytest.mark.parametrize("patches", [1, 2, 63, 65, 100])
def test_any_number_of_patches_is_balanced(patches):
    affinity = np.random.default_rng(0).uniform(0.1, 1, (patches, patches))
    transition = balance(affinity.astype(np.float32))
    matrix = matrix_of(transition, affinity)
    np.testing.assert_allclose(matrix, oracles.transition(affinity), rtol=1e-5)


def test_balancing_to_a_tolerance():
    affinity = problem()
    transition = balance(affinity, max_steps=500, tolerance=1e-4)
    matrix = matrix_of(transition, affinity)
    assert bool(transition.converged)
    assert 1 < int(transition.num_steps) < 500
    np.testing.assert_allclose(matrix.sum(axis=0), 1, atol=1.1e-4)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-5)
    before = balance(affinity, max_steps=int(transition.num_steps) - 1, tolerance=1e-4)
    assert not bool(before.converged)
    assert float(before.error) > 1e-4


def test_long_rows_are_summed_in_parts(monkeypatch):
    affinity = jnp.asarray(problem())
    whole = doubly_stochastic(affinity)
    monkeypatch.setattr("dslo_jax.tuning.PART", PATCHES // 3)
    parts = doubly_stochastic(affinity)
    np.testing.assert_allclose(parts.row_scaling, whole.row_scaling, rtol=1e-6)
    np.testing.assert_allclose(parts.column_scaling, whole.column_scaling, rtol=1e-6)


def test_affinity_without_total_support_stops_at_the_cap():
    """A triangle has no doubly stochastic form: balancing drifts and says so."""
    affinity = problem()
    transition = balance(np.triu(affinity))
    assert int(transition.num_steps) == 15
    assert not bool(transition.converged)
    assert float(transition.error) > 1e-3


@PROPERTY
@given(SEEDS)
def test_balanced_chain_keeps_mass_and_the_uniform_state(seed):
    affinity = problem(seed)
    transition = balance(affinity, max_steps=200, tolerance=1e-6)
    matrix = matrix_of(transition, affinity)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=2e-6)
    np.testing.assert_allclose(matrix.sum(axis=0), 1, atol=2e-5)
    assert (matrix > 0).all()


@pytest.mark.parametrize("shape", [(3, 4), (4,), (0, 0)])
def test_balancing_refuses_other_shapes(unchecked, shape):
    with pytest.raises(ValueError, match=r"expected \[patches, patches\]"):
        doubly_stochastic(jnp.ones(shape))


@pytest.mark.parametrize(
    "spoil",
    [
        (3, 0),
        ((slice(None), 3), 0),
        ((3, 4), np.nan),
        ((3, 4), np.inf),
        ((3, 4), -1e-3),
    ],
    ids=["zero row", "zero column", "nan", "infinity", "negative"],
)
def test_affinity_that_cannot_be_balanced(spoil):
    transition = balance(oracles.replace(problem(), spoil))
    assert np.isnan(float(transition.error))
    assert not bool(transition.converged)
    assert np.isfinite(np.asarray(transition.row_scaling)).all()
    assert np.isfinite(np.asarray(transition.column_scaling)).all()
