"""Costs that are given as a geometry, as OTT-JAX has them."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ott.geometry import epsilon_scheduler, geometry, grid, pointcloud
from ott.problems.linear import linear_problem
from ott.solvers.linear import sinkhorn as ott_sinkhorn

from dslo_jax import solvers


ROWS, COLUMNS, EPSILON = 12, 9, 0.2


@pytest.fixture(autouse=True)
def _as_ott_needs_it():
    """OTT promotes shapes and types, which other tests forbid."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def marginals():
    rng = np.random.default_rng(0)
    a, b = rng.random(ROWS, np.float32), rng.random(COLUMNS, np.float32)
    return jnp.asarray(a / a.sum()), jnp.asarray(b / b.sum())


def dense_cost():
    return jnp.asarray(np.random.default_rng(1).random((ROWS, COLUMNS), np.float32))


def points():
    rng = np.random.default_rng(2)
    x, y = rng.random((ROWS, 3), np.float32), rng.random((COLUMNS, 3), np.float32)
    return pointcloud.PointCloud(jnp.asarray(x), jnp.asarray(y), epsilon=EPSILON)


def relative():
    """A negative cost, and an epsilon that is a part of its deviation."""
    cost = dense_cost() - 3
    return geometry.Geometry(cost, epsilon=0.5, relative_epsilon="std")


def solve_by_ott(given, a, b, **options):
    problem = linear_problem.LinearProblem(given, a, b)
    solver = ott_sinkhorn.Sinkhorn(threshold=1e-6, max_iterations=5000)
    return solver(problem, **options)


def plan(f, g, cost, epsilon):
    return np.exp((f[:, None] + g[None] - cost) / epsilon)


@pytest.mark.parametrize("make", [relative, points])
def test_solutions_are_those_of_ott(make):
    (a, b), given = marginals(), make()
    found = solvers.sinkhorn(a[None], given, target=b, max_steps=1000, domain="kernel")
    assert bool(found.converged[0])
    theirs = solve_by_ott(given, a, b)
    mine = plan(
        found.row_potential[0],
        found.column_potential[0],
        given.cost_matrix,
        given.epsilon,
    )
    np.testing.assert_allclose(mine, theirs.matrix, rtol=2e-4, atol=1e-7)
    shift = theirs.g[0] - found.column_potential[0, 0]  # they are known up to this
    np.testing.assert_allclose(found.column_potential[0] + shift, theirs.g, atol=2e-5)
    np.testing.assert_allclose(found.row_potential[0] - shift, theirs.f, atol=2e-5)


def test_potentials_go_both_ways():
    """A solver that begins with the solution of the other one needs no more steps."""
    a, b = marginals()
    given = geometry.Geometry(cost_matrix=dense_cost(), epsilon=0.02)
    options = {"target": b, "max_steps": 2000, "tolerance": 1e-4, "domain": "kernel"}
    cold = solvers.sinkhorn(a[None], given, **options)
    theirs = solve_by_ott(given, a, b)
    warm = solvers.sinkhorn(a[None], given, initial=theirs.g, **options)
    assert int(warm.num_steps[0]) <= 2 < int(cold.num_steps[0])
    potentials = [warm.row_potential[0], warm.column_potential[0]]
    np.testing.assert_allclose(
        plan(*potentials, dense_cost(), 0.02), theirs.matrix, rtol=2e-3, atol=1e-7
    )
    again = solve_by_ott(given, a, b, init=tuple(potentials))
    assert int(again.n_iters) < int(theirs.n_iters)


def test_potentials_of_a_target_with_zeros_can_be_begun_with():
    a, b = marginals()
    b = b.at[3].set(0)
    given = geometry.Geometry(cost_matrix=dense_cost(), epsilon=EPSILON)
    solve = functools.partial(solvers.sinkhorn, target=b, domain="kernel")
    first = solve(a[None], given)
    again = solve(a[None], given, initial=first.column_potential[0])
    assert bool(again.converged[0])
    plans = [
        plan(found.row_potential[0], found.column_potential[0], dense_cost(), EPSILON)
        for found in (first, again)
    ]
    np.testing.assert_allclose(plans[1], plans[0], rtol=1e-4)
    assert not plans[1][:, 3].any()


@pytest.mark.filterwarnings("ignore:.*NormalCG")  # in OTT
def test_gradients_are_those_of_ott():
    """Of the dual objective: by the cost it is the plan, by ``a`` the potential."""
    a, b = marginals()

    def ours(a, cost):
        given = geometry.Geometry(cost_matrix=cost, epsilon=EPSILON)
        options = {"max_steps": 200, "tolerance": 0.0, "domain": "kernel"}
        found = solvers.sinkhorn(a[None], given, target=b, **options)
        return found.row_potential[0] @ a + found.column_potential[0] @ b

    def theirs(a, cost):
        given = geometry.Geometry(cost_matrix=cost, epsilon=EPSILON)
        found = solve_by_ott(given, a, b)
        return found.f @ a + found.g @ b

    mine = jax.jit(jax.grad(ours, argnums=(0, 1)))(a, dense_cost())
    other = jax.jit(jax.grad(theirs, argnums=(0, 1)))(a, dense_cost())
    # A gradient by marginals is known up to a constant: their mass is fixed.
    np.testing.assert_allclose(
        mine[0] - mine[0].mean(), other[0] - other[0].mean(), atol=1e-4
    )
    np.testing.assert_allclose(mine[1], other[1], atol=2e-5)


def test_an_object_that_looks_like_a_geometry_and_one_under_jit():
    a, b = marginals()
    given = geometry.Geometry(cost_matrix=dense_cost(), epsilon=EPSILON)
    alike = types.SimpleNamespace(cost_matrix=dense_cost(), epsilon=EPSILON)
    solve = functools.partial(solvers.sinkhorn, a[None], target=b, domain="kernel")
    expected = solve(dense_cost(), epsilon=EPSILON)
    for found in (jax.jit(solve)(given), solve(alike)):
        np.testing.assert_allclose(
            found.column_potential, expected.column_potential, atol=1e-6
        )


def test_a_cost_that_is_not_finite_is_a_reason():
    a, b = marginals()
    given = geometry.Geometry(
        cost_matrix=dense_cost().at[2, 3].set(jnp.nan), epsilon=EPSILON
    )
    found = solvers.sinkhorn(a[None], given, target=b, domain="kernel")
    assert solvers.Reason(int(found.reason[0])).name == "AFFINITY_NOT_FINITE"


def test_what_cannot_be_used_is_refused(unchecked):
    a, b = marginals()
    given = geometry.Geometry(cost_matrix=dense_cost(), epsilon=EPSILON)
    schedule = epsilon_scheduler.Epsilon(0.1, init=10.0, decay=0.9)
    cases = [
        ("give it once", given, {"epsilon": 0.1}),
        ("is a schedule", geometry.Geometry(dense_cost(), epsilon=schedule), {}),
        ("no dense `cost_matrix`", grid.Grid(grid_size=(4, 3), epsilon=0.1), {}),
        ("no dense", types.SimpleNamespace(cost_matrix=None, epsilon=0.1), {}),
        ("no dense", types.SimpleNamespace(epsilon=0.1), {}),
        ("no `epsilon`", Incomplete(), {}),
        ("`cost` has shape", geometry.Geometry(dense_cost().T, epsilon=0.1), {}),
        ("`initial` has shape", given, {"initial": a}),
        ("`epsilon` is", geometry.Geometry(dense_cost(), epsilon=-1.0), {}),
    ]
    for words, cost, options in cases:
        with pytest.raises(ValueError, match=words):
            solvers.sinkhorn(a[None], cost, target=b, **options)


class Incomplete:
    """A geometry without epsilon."""

    cost_matrix = np.zeros((ROWS, COLUMNS), np.float32)
