import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from properties import PROPERTY, SEEDS

from dslo_jax.solvers import maximum_velocity
from dslo_jax.tuning import MANY
from solvers import oracles


PATCHES, CLASSES = 64, 4

_solve = jax.jit(
    maximum_velocity,
    static_argnames=(
        "threshold",
        "criterion",
        "balancing_steps",
        "max_steps",
        "interpolate",
    ),
)


def solve(source, affinity, **options):
    """Any arrays in, the solution in NumPy."""
    solution = _solve(jnp.asarray(source), jnp.asarray(affinity), **options)
    return jax.tree.map(np.asarray, solution)


@functools.cache
def problem(seed=0, patches=PATCHES, classes=CLASSES):
    arrays = oracles.scene(patches, classes, seed)
    return tuple(array.astype(np.float32) for array in arrays)


def in_float64(arrays):
    return tuple(np.asarray(array, np.float64) for array in arrays)


@pytest.mark.parametrize("options", [{}, {"criterion": "increment", "threshold": 0.2}])
@pytest.mark.parametrize(
    "classes", [MANY, pytest.param(MANY + 9, marks=pytest.mark.slow)]
)
def test_many_classes_walk_as_few_do(classes, options):
    """On a transposed copy, padded, in parts that shrink: the result is the same."""
    source, affinity = problem(classes=classes)
    many = solve(source, affinity, **options)
    halves = [solve(half, affinity, **options) for half in np.array_split(source, 2)]
    few = jax.tree.map(lambda *leaves: np.concatenate(leaves), *halves)
    assert many.num_steps.tolist() == few.num_steps.tolist()
    assert many.converged.all()
    np.testing.assert_allclose(many.velocity, few.velocity, rtol=1e-5)


@pytest.mark.parametrize("classes", [CLASSES, MANY])
def test_a_narrow_affinity_is_that_of_its_values(classes):
    source, affinity = problem(classes=classes)
    narrow = jnp.asarray(affinity, jnp.bfloat16)
    found = solve(source, narrow)
    expected = solve(source, narrow.astype(jnp.float32))
    np.testing.assert_allclose(found.velocity, expected.velocity, rtol=1e-5)


def test_a_class_that_fails_spoils_no_other_of_many():
    source, affinity = problem(classes=MANY)
    expected = solve(source, affinity)
    spoiled = oracles.replace(source, ((0, 0), np.nan))
    solution = solve(spoiled, affinity)
    assert np.isnan(solution.error[0])
    assert not solution.velocity[0].any()
    np.testing.assert_allclose(solution.velocity[1:], expected.velocity[1:], rtol=1e-6)


@pytest.mark.slow
def test_gradients_of_many_classes_are_those_of_few():
    source, affinity = map(jnp.asarray, problem(classes=MANY))

    def total(source, affinity):
        return jnp.sum(maximum_velocity(source, affinity).velocity ** 2)

    gradient = jax.jit(jax.grad(total, argnums=(0, 1)))
    to_source, to_affinity = gradient(source, affinity)
    parts = [gradient(half, affinity) for half in jnp.split(source, 2)]
    few = jnp.concatenate([part[0] for part in parts])
    np.testing.assert_allclose(to_source, few, atol=1e-4 * np.abs(few).max())
    few = parts[0][1] + parts[1][1]
    np.testing.assert_allclose(to_affinity, few, atol=1e-4 * np.abs(few).max())


@pytest.mark.parametrize(
    ("threshold", "interpolate"), [(0.3, True), (0.3, False), (0.7, True)]
)
def test_saturation_equals_the_loop(threshold, interpolate):
    source, affinity = problem()
    options = {"threshold": threshold, "interpolate": interpolate}
    solution = solve(source, affinity, **options)
    mass, exact = in_float64((source, affinity))
    arrival, steps = oracles.saturation(mass, oracles.transition(exact), **options)
    assert bool(solution.converged.all())
    assert not solution.error.any()
    assert solution.num_steps.tolist() == steps.tolist()
    np.testing.assert_allclose(solution.velocity, 1 / (1 + arrival), atol=1e-4)
    seeds = mass > threshold * mass.max(axis=1, keepdims=True)
    assert np.all(np.asarray(solution.velocity)[seeds] == 1)


def test_increment_equals_the_loop():
    """Masses far above 1, so that Eq. 12 has something to wait for."""
    source, affinity = problem()
    solution = solve(source * 40, affinity, criterion="increment")
    mass, exact = in_float64((source, affinity))
    arrival = oracles.increment(mass * 40, oracles.transition(exact))
    assert arrival.max() > 1
    assert bool(solution.converged.all())
    np.testing.assert_array_equal(solution.arrival, arrival)
    np.testing.assert_allclose(solution.velocity, 1 / arrival, rtol=1e-6)


def test_increment_of_a_distribution_is_one_everywhere():
    """The degenerate literal reading: no patch moves by 0.3 of the whole mass."""
    source, affinity = problem()
    spread = (source + np.float32(1 / PATCHES)) / 2
    solution = solve(spread, affinity, criterion="increment")
    assert solution.num_steps.tolist() == [1] * CLASSES
    assert np.all(np.asarray(solution.velocity) == 1)


def test_two_patches_in_closed_form():
    """From [1, 0] with T = [[a, b], [b, a]] the states differ by (a - b)^l."""
    affinity = np.asarray([[0.9, 0.1], [0.1, 0.9]], np.float32)
    solution = solve(np.asarray([[1, 0]], np.float32), affinity, threshold=0.5)
    levels = [(1 - 0.8**step) / (1 + 0.8**step) for step in range(20)]
    step = next(step for step, level in enumerate(levels) if level > 0.5)
    part = (levels[step] - 0.5) / (levels[step] - levels[step - 1])
    assert int(solution.num_steps[0]) == step
    assert solution.velocity[0].tolist() == pytest.approx([1, 1 / (1 + step - part)])


def test_uniform_source_has_arrived_before_the_first_step():
    _, affinity = problem()
    solution = solve(np.ones((CLASSES, PATCHES), np.float32), affinity)
    assert solution.num_steps.tolist() == [0] * CLASSES
    assert np.all(np.asarray(solution.velocity) == 1)
    assert bool(solution.converged.all())


@pytest.mark.parametrize("affinity", ["permutation", "blocks"])
def test_disconnected_patches_reach_the_cap(affinity):
    source, full = problem()
    half = np.arange(PATCHES) < PATCHES // 2
    if affinity == "blocks":
        source = source * half
        matrix = full * (half[:, None] == half)
    else:
        source = np.eye(CLASSES, PATCHES, dtype=np.float32)
        matrix = np.roll(np.eye(PATCHES, dtype=np.float32), 2, axis=1)
    solution = solve(source, matrix, max_steps=20)
    assert solution.num_steps.tolist() == [20] * CLASSES
    assert not solution.converged.any()
    missing = np.asarray(solution.arrival) == 20
    np.testing.assert_allclose(solution.error, missing.mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(np.asarray(solution.velocity)[missing], 1 / 21)


def test_one_patch_and_one_class():
    solution = solve(np.ones((1, 1), np.float32), np.full((1, 1), 0.2, np.float32))
    assert solution.velocity.tolist() == [[1]]
    assert bool(solution.converged[0])


def test_batched_equals_one_by_one():
    """Classes leave the batch at different steps; none may notice."""
    source, affinity = problem(classes=12)
    together = solve(source, affinity, threshold=0.7)
    assert len(set(together.num_steps.tolist())) > 2
    for c in range(12):
        alone = solve(source[c : c + 1], affinity, threshold=0.7)
        np.testing.assert_allclose(alone.velocity[0], together.velocity[c], atol=1e-5)
        assert int(alone.num_steps[0]) == int(together.num_steps[c])


@PROPERTY
@given(SEEDS)
def test_higher_thresholds_are_reached_later(seed):
    source, affinity = problem(seed)
    early, late = (solve(source, affinity, threshold=tau) for tau in (0.3, 0.7))
    assert (late.arrival >= early.arrival - 1e-5).all()
    assert (late.num_steps >= early.num_steps).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threshold": 0.0}, r"`threshold` is 0.0, expected a number in \(0, 1\]"),
        ({"threshold": float("nan")}, "`threshold` is nan"),
        ({"threshold": 1.5}, "`threshold` is 1.5"),
        ({"criterion": "speed"}, "`criterion` is 'speed', expected one of"),
        ({"balancing_steps": 0}, "`balancing_steps` is 0"),
        ({"max_steps": 0}, "`max_steps` is 0, expected an integer >= 1"),
        ({"affinity": jnp.ones((4, 3))}, r"`affinity` has shape \(4, 3\)"),
        ({"source": jnp.ones((2, 2, 1))}, r"`source` has shape \(2, 2, 1\)"),
    ],
)
def test_misuse_is_refused_before_tracing(unchecked, change, message):
    arguments = {"source": jnp.ones((2, 4)), "affinity": jnp.ones((4, 4))} | change
    source, affinity = arguments.pop("source"), arguments.pop("affinity")
    with pytest.raises(ValueError, match=message):
        jax.jit(functools.partial(maximum_velocity, **arguments))(source, affinity)
