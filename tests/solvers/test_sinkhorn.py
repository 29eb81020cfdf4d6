import functools

import jax
import jax.numpy as jnp
import numpy as np
import ot
import pytest
from hypothesis import given, strategies as st
from properties import PROPERTY, SEEDS

from dslo_jax.solvers import Reason, sinkhorn
from solvers import oracles


PATCHES, CLASSES = 64, 4

compiled = jax.jit(
    sinkhorn, static_argnames=("epsilon", "max_steps", "tolerance", "domain")
)


def solve(source, cost, *, target=None, tolerance=1e-6, domain="kernel", **options):
    """Inputs in float32, the solution in NumPy.

    With the kernel alone, where it suffices: the logarithms take as long to compile.
    """
    options["domain"] = domain
    source, cost = jnp.asarray(source, jnp.float32), jnp.asarray(cost, jnp.float32)
    if target is not None:
        target = jnp.asarray(target, jnp.float32)
    solution = compiled(source, cost, target=target, tolerance=tolerance, **options)
    return jax.tree.map(np.asarray, solution)


def problem(seed=0, patches=PATCHES, classes=CLASSES):
    arrays = oracles.scene(patches, classes, seed)
    return tuple(array.astype(np.float32) for array in arrays)


def plans(solution, cost, epsilon=0.1):
    """The plans in float64, from the documented formula."""
    row = solution.row_potential.astype(np.float64)[:, :, None]
    column = solution.column_potential.astype(np.float64)[:, None, :]
    return np.exp((row + column - np.asarray(cost, np.float64)) / epsilon)


@pytest.mark.parametrize("epsilon", [0.1, 0.02])
def test_equals_the_loop(epsilon):
    source, cost = oracles.scene(PATCHES, CLASSES)
    solution = solve(
        source,
        cost,
        epsilon=epsilon,
    )
    expected = oracles.sinkhorn(source, cost, epsilon=epsilon)
    assert bool(solution.converged.all())
    np.testing.assert_allclose(plans(solution, cost, epsilon), expected, rtol=3e-6)


def test_equals_pot_after_the_same_number_of_steps():
    source, cost = problem()
    solution = solve(source, cost, max_steps=7, tolerance=0.0)
    uniform = np.full(PATCHES, 1 / PATCHES)
    cost = np.asarray(cost, np.float64)
    for mass, plan in zip(source, plans(solution, cost), strict=True):
        rows = np.flatnonzero(mass)  # POT divides by the masses
        expected = ot.sinkhorn(
            np.asarray(mass, np.float64)[rows],
            uniform,
            cost[rows],
            0.1,
            numItermax=7,
            stopThr=0.0,
            warn=False,
        )
        np.testing.assert_allclose(plan[rows], expected, rtol=3e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:JAXopt is no longer maintained")
def test_equals_ott_after_the_same_number_of_steps():
    """Slow to import and to compile."""
    from ott.geometry import geometry
    from ott.problems.linear import linear_problem
    from ott.solvers.linear import sinkhorn as ott_sinkhorn

    source, cost = problem()
    solution = solve(source, cost, max_steps=50, tolerance=0.0)
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        other = ott_sinkhorn.Sinkhorn(
            lse_mode=False, threshold=0.0, min_iterations=50, max_iterations=50
        )
        geom = geometry.Geometry(cost_matrix=jnp.asarray(cost), epsilon=0.1)
        expected = other(
            linear_problem.LinearProblem(geom, a=jnp.asarray(source[0]))
        ).matrix
    # OTT's scalings are float32 sums over K itself, not over 1 - K.
    np.testing.assert_allclose(plans(solution, cost)[0], expected, rtol=1e-5)


def rectangular():
    """Costs of any sign, and masses of zero on both sides."""
    rng = np.random.default_rng(3)
    source = rng.dirichlet(np.ones(7), 2)
    source[0, 3] = 0
    source[0] /= source[0].sum()
    target = rng.dirichlet(np.ones(5))
    target[2] = 0
    return source, rng.uniform(-1, 1, (7, 5)), target / target.sum()


def test_rectangular_cost_and_own_target():
    source, cost, target = rectangular()
    solution = solve(source, cost, target=target, epsilon=0.5, tolerance=2e-6)
    expected = oracles.sinkhorn(source, cost, target=target, epsilon=0.5)
    assert bool(solution.converged.all())
    assert solution.row_potential[0, 3] == -np.inf
    assert (solution.column_potential[:, 2] == -np.inf).all()
    np.testing.assert_allclose(plans(solution, cost, 0.5), expected, rtol=1e-5)


def test_target_that_is_no_distribution():
    source, cost, target = rectangular()
    solution = solve(source, cost, target=-target, epsilon=0.5)
    assert np.isnan(np.asarray(solution.error)).all()
    assert (solution.column_potential == -np.inf).all()


def test_source_is_scaled_to_the_mass_of_the_target():
    source, cost = problem()
    doubled = solve(source * 2, cost)
    plain = solve(source, cost)
    np.testing.assert_allclose(doubled.row_potential, plain.row_potential, rtol=1e-6)


def test_steps():
    source, cost = problem()
    exact = solve(source, cost, max_steps=7, tolerance=0.0)
    assert exact.num_steps.tolist() == [7] * CLASSES
    assert not exact.converged.any()
    capped = solve(source, cost, max_steps=1)
    assert capped.num_steps.tolist() == [1] * CLASSES
    assert not capped.converged.any()
    stopped = solve(source, cost)
    assert (stopped.num_steps < 20).all()
    assert (stopped.error <= 1e-5).all()


def test_error_estimates_what_is_left():
    """Slow convergence: costs span 20 epsilon. The estimate follows the truth."""
    rng = np.random.default_rng(0)
    source = rng.dirichlet(np.ones(24), 1)
    cost = rng.uniform(0, 1, (24, 24))
    final = oracles.sinkhorn(source, cost, epsilon=0.05, steps=3000)
    solution = solve(source, cost, epsilon=0.05, max_steps=12, tolerance=0.0)
    ratio = np.log(plans(solution, cost, 0.05) / final)
    left = ratio.max() - ratio.min()
    assert left / 2 < float(solution.error[0]) < 4 * left


def test_unusable_classes_do_not_touch_the_others():
    source, cost = problem()
    bad = oracles.replace(source, (0, 0), ((1, 3), np.nan), ((2, 3), -1))
    solution = solve(bad, cost)
    good = solve(source, cost)
    assert np.isnan(np.asarray(solution.error)).tolist() == [True, True, True, False]
    assert solution.converged.tolist() == [False, False, False, True]
    assert solution.num_steps.tolist()[:3] == [0, 0, 0]
    assert (solution.row_potential[:3] == -np.inf).all()
    assert (solution.column_potential[:3] == -np.inf).all()
    np.testing.assert_array_equal(solution.row_potential[3], good.row_potential[3])
    np.testing.assert_array_equal(
        solution.column_potential[3], good.column_potential[3]
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_cost_that_is_not_finite(value):
    source, cost = problem()
    solution = solve(source, oracles.replace(cost, ((5, 6), value)))
    assert np.isnan(np.asarray(solution.error)).all()
    assert not solution.converged.any()
    assert (solution.column_potential == -np.inf).all()


def two_rows():
    """Every class has mass in two rows: with one its plan would be known."""
    return np.eye(CLASSES, PATCHES) + np.eye(CLASSES, PATCHES, 1)


@pytest.mark.parametrize("domain", ["auto", "kernel"])
def test_one_row_needs_no_kernel(domain):
    """Costs that span 1000 epsilon, and a target that is 0 somewhere."""
    rng = np.random.default_rng(0)
    source, cost = np.eye(CLASSES, PATCHES), rng.uniform(0, 100, (PATCHES, PATCHES))
    target = oracles.replace(rng.dirichlet(np.ones(PATCHES)), (3, 0))
    solution = solve(source, cost, target=jnp.asarray(target), domain=domain)
    assert bool(solution.converged.all())
    assert (solution.num_steps == 1).all()
    plan = plans(solution, cost)
    expected = source[:, :, None] * target
    # The exponents reach 1000 and are rounded to 6e-5 before exp.
    np.testing.assert_allclose(plan, expected, rtol=3e-4)
    counted = solve(source, cost, tolerance=0.0, domain=domain)
    assert (counted.num_steps == 50).all()


def test_a_kernel_that_underflows_is_reported():
    """Two rows in costs that span 1000 epsilon: a column with K = 0 cannot be met."""
    source = two_rows()
    cost = np.random.default_rng(0).uniform(0, 100, (PATCHES, PATCHES))
    solution = solve(source, cost, domain="kernel")
    assert not solution.converged.any()
    assert np.isnan(np.asarray(solution.error)).all()
    assert (solution.column_potential == -np.inf).all()


def test_cancellation_is_reported():
    """K of both rows spans e^12, so sum(v) - E @ v loses more than 1e-5."""
    source = two_rows()
    cost = oracles.replace(np.zeros((PATCHES, PATCHES)), ((slice(None), 0), 1.2))
    assert np.isnan(solve(source, cost, domain="kernel").error).all()
    solution = solve(source, cost, tolerance=2e-6, domain="auto")
    assert bool(solution.converged.all())
    np.testing.assert_allclose(
        plans(solution, cost), oracles.sinkhorn(source, cost), rtol=3e-6
    )


@pytest.mark.parametrize("epsilon", [0.1, 1e-2, 1e-3])
def test_log_domain_equals_the_kernel(epsilon):
    """With sources that are spread, the kernel lasts to costs of 300 epsilon.

    Both go on to the limit of float32, which is 2e-5 for the smallest epsilon.
    """
    source, cost = problem()
    kernel, log = (
        solve(source, cost, epsilon=epsilon, domain=domain)
        for domain in ("kernel", "log")
    )
    for solution in (kernel, log):
        assert np.isin(solution.reason, (Reason.CONVERGED, Reason.STALLED)).all()
        assert (solution.error < 3e-5).all()
    atol = 1e-6 * max(epsilon, cost.max() / 10)
    np.testing.assert_allclose(log.row_potential, kernel.row_potential, atol=atol)
    np.testing.assert_allclose(log.column_potential, kernel.column_potential, atol=atol)


def test_log_domain_meets_the_marginals_where_no_kernel_can():
    """Costs of any sign that span 400 epsilon, dense and sparse sources together."""
    rng = np.random.default_rng(0)
    cost = rng.uniform(-1, 3, (20, 30))
    source = rng.dirichlet(np.ones(20), 3)
    source[0], source[1, 5:] = np.eye(20)[4], 0
    solution = solve(
        source, cost, epsilon=1e-2, max_steps=5000, tolerance=1e-3, domain="log"
    )
    plan = plans(solution, cost, epsilon=1e-2)
    # They converge slowly: rounding errors of 5e-5 a step add up.
    assert solution.reason.tolist() == [Reason.CONVERGED, *[Reason.STALLED] * 2]
    assert (solution.error < 2e-2).all()
    np.testing.assert_allclose(plan.sum(axis=1), 1 / 30, rtol=2e-3)
    source[1] /= source[1].sum()
    np.testing.assert_allclose(plan.sum(axis=2), source, atol=1e-4)


def test_classes_in_either_domain_do_not_touch_each_other():
    source, cost = problem()
    mixed = oracles.replace(source, (0, two_rows()[0]))
    wide = oracles.replace(cost, ((slice(2), 0), 1.2))
    together = solve(mixed, wide, tolerance=2e-6, domain="auto")
    assert np.isnan(solve(mixed, wide, domain="kernel").error).tolist() == [
        True,
        *[False] * 3,
    ]
    assert bool(together.converged.all())
    alone = solve(source, wide, tolerance=2e-6, domain="auto")
    np.testing.assert_array_equal(
        together.column_potential[1:], alone.column_potential[1:]
    )


def test_blocks_do_not_change_the_result(monkeypatch):
    source, cost = problem()
    whole = solve(source, cost)
    monkeypatch.setattr("dslo_jax.tuning.BLOCK_ROWS", 20)
    options = {"tolerance": 1e-6, "domain": "kernel"}
    cut = jax.jit(lambda *arrays: sinkhorn(*arrays, **options))(
        jnp.asarray(source), jnp.asarray(cost)
    )
    assert cut.row_potential.shape == whole.row_potential.shape
    # Both stop at an error of 1e-6 of their own.
    np.testing.assert_allclose(cut.row_potential, whole.row_potential, atol=4e-7)
    np.testing.assert_allclose(cut.column_potential, whole.column_potential, atol=4e-7)


@PROPERTY
@given(SEEDS)
def test_marginals_hold(seed):
    source, cost = problem(seed)
    solution = solve(source, cost)
    plan = plans(solution, cost)
    assert bool(solution.converged.all())
    assert (plan >= 0).all()
    assert np.all(plan[np.asarray(source) == 0] == 0)
    np.testing.assert_allclose(plan.sum(axis=2), source, rtol=3e-6)
    np.testing.assert_allclose(plan.sum(axis=1), 1 / PATCHES, rtol=3e-6)


@PROPERTY
@given(SEEDS, st.floats(-5, 5, width=32))
def test_a_constant_added_to_the_cost_changes_nothing(seed, constant):
    source, cost = problem(seed)
    moved = cost + np.float32(constant)
    # The sum is rounded at the size of the constant: 5 * 6e-8 / epsilon = 3e-6.
    np.testing.assert_allclose(
        plans(solve(source, moved), moved), plans(solve(source, cost), cost), rtol=1e-5
    )


@PROPERTY
@given(SEEDS)
def test_permuted_patches_permute_the_scalings(seed):
    source, cost = problem(seed)
    order = np.random.default_rng(seed).permutation(PATCHES)
    plain = solve(source, cost)
    permuted = solve(source[:, order], cost[order][:, order])
    np.testing.assert_allclose(
        permuted.row_potential, plain.row_potential[:, order], atol=4e-7
    )
    np.testing.assert_allclose(
        permuted.column_potential, plain.column_potential[:, order], atol=4e-7
    )


@PROPERTY
@given(SEEDS)
def test_cost_and_epsilon_scale_together(seed):
    source, cost = problem(seed)
    plain = solve(source, cost)
    scaled = solve(source, cost * 4, epsilon=0.4)
    np.testing.assert_allclose(scaled.row_potential, 4 * plain.row_potential, atol=1e-6)


@PROPERTY
@given(SEEDS)
def test_more_steps_never_violate_the_rows_more(seed):
    source, cost = problem(seed)
    violation = np.inf
    for steps in (1, 2, 50):
        rows = plans(solve(source, cost, max_steps=steps), cost).sum(axis=2)
        new = np.abs(rows - np.asarray(source)).sum(axis=1).max()
        assert new <= violation + 1e-7
        violation = new


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epsilon": 0.0}, "`epsilon` is 0.0, expected a number > 0"),
        ({"epsilon": float("nan")}, "`epsilon` is nan"),
        ({"max_steps": 0}, "`max_steps` is 0, expected an integer >= 1"),
        ({"tolerance": -1.0}, "`tolerance` is -1.0, expected a number >= 0"),
        ({"tolerance": float("nan")}, "`tolerance` is nan"),
        ({"domain": "float"}, "`domain` is 'float', expected one of"),
        ({"source": jnp.ones(4)}, r"`source` has shape \(4,\)"),
        ({"source": jnp.ones((0, 4))}, "at least one of each"),
        ({"cost": jnp.ones((5, 4))}, r"`cost` has shape \(5, 4\), expected \[4, tar"),
        ({"target": jnp.ones(3)}, r"`target` has shape \(3,\), expected \(4,\)"),
    ],
)
def test_misuse_is_refused_before_tracing(unchecked, change, message):
    arguments = {"source": jnp.ones((2, 4)), "cost": jnp.ones((4, 4))} | change
    source, cost = arguments.pop("source"), arguments.pop("cost")
    with pytest.raises(ValueError, match=message):
        jax.jit(functools.partial(sinkhorn, **arguments))(source, cost)
