import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dslo_jax.solvers import optimal_path
from dslo_jax.solvers.path import _normalise
from solvers import oracles


PATCHES, CLASSES = 144, 4
SUPPORT = 60  # 48 patches carry mass

compiled = jax.jit(
    optimal_path,
    static_argnames=(
        *("epsilon", "max_steps", "tolerance", "norm", "support", "pairs", "domain"),
    ),
)


def solve(source, affinity, *, domain="kernel", **options):
    """Any arrays in, the solution in NumPy.

    With the kernel alone, where it suffices: the logarithms take as long to compile.
    """
    arrays = jnp.asarray(source), jnp.asarray(affinity)
    solution = compiled(*arrays, domain=domain, **options)
    return jax.tree.map(np.asarray, solution)


@functools.cache
def problem(seed=0, patches=PATCHES, classes=CLASSES):
    arrays = oracles.scene(patches, classes, seed)
    return tuple(array.astype(np.float32) for array in arrays)


@pytest.mark.parametrize(
    ("options", "rtol"),
    [({}, 1e-5), ({"tolerance": 1e-6}, 1e-6), ({"tolerance": 0.0}, 1e-6)],
)
def test_equals_the_loop(options, rtol):
    """Float32 against float64 on the same float32 inputs, within the tolerance."""
    source, affinity = problem()
    solution = solve(source, affinity, **options)
    expected = oracles.optimal_path(
        np.asarray(source, np.float64), np.asarray(affinity, np.float64)
    )
    np.testing.assert_allclose(solution.path, expected, rtol=rtol)
    if options != {"tolerance": 0.0}:
        assert bool(solution.converged.all())
        assert (solution.num_steps <= 4).all()


def test_float64_in_float64_out(x64):
    source, affinity = oracles.scene(PATCHES, CLASSES)
    solution = solve(source, affinity, tolerance=1e-13)
    expected = oracles.optimal_path(source, affinity, steps=500)
    assert solution.path.dtype == jnp.float64
    assert bool(solution.converged.all())
    np.testing.assert_allclose(solution.path, expected, rtol=1e-12)


def test_one_hot_source_gives_its_row_of_the_affinity():
    """One row carries all mass, so the columns alone fix the plan: p_j = A_ij / N."""
    _, affinity = problem()
    rows = np.asarray([3, 17, 60, 143])
    solution = solve(np.eye(PATCHES, dtype=np.float32)[rows], affinity)
    assert bool(solution.converged.all())
    np.testing.assert_allclose(solution.path, affinity[rows] / PATCHES, rtol=1e-6)


def test_large_epsilon_gives_one_step_of_propagation():
    source, affinity = problem()
    solution = solve(source, affinity, epsilon=1e4)
    np.testing.assert_allclose(
        solution.path, np.asarray(source) @ np.asarray(affinity) / PATCHES, rtol=1e-4
    )


@functools.cache
def overlapping():
    """Sources that share most patches, and the affinity of ``problem``."""
    rng = np.random.default_rng(5)
    source = rng.uniform(0.5, 1.5, (CLASSES, PATCHES)).astype(np.float32)
    source *= rng.uniform(size=source.shape) < 0.7
    return source, problem()[1]


@pytest.mark.parametrize("reading", [{"support": SUPPORT}, {"pairs": SUPPORT}])
@pytest.mark.parametrize("at_once", [2**22, 0])
def test_only_rows_with_mass_are_read(monkeypatch, at_once, reading):
    """Whether they are gathered once, or block by block."""
    monkeypatch.setattr("dslo_jax.tuning.GATHERED_AT_ONCE", at_once)
    source, affinity = problem()
    carries = (source > 0).any(axis=0)
    plain = solve(source, affinity)
    poisoned = np.where(carries[:, None], affinity, np.float32(np.nan))
    solve_anew = jax.jit(functools.partial(optimal_path, **reading, domain="kernel"))
    solution = solve_anew(jnp.asarray(source), jnp.asarray(poisoned))
    assert bool(solution.converged.all())
    np.testing.assert_allclose(solution.path, plain.path, rtol=1e-6)


@pytest.mark.parametrize(
    "options", [{}, {"tolerance": 0.0}, {"epsilon": 2e-4, "domain": "auto"}]
)
def test_pairs_equal_shared_rows(options):
    """In the kernel and, where epsilon is tiny, in the log domain; in two blocks."""
    source, affinity = overlapping()
    count = int((source > 0).sum())
    assert count > 256
    owned = solve(source, affinity, pairs=count, **options)
    shared = solve(source, affinity, **options)
    np.testing.assert_allclose(owned.path, shared.path, rtol=2e-6)
    # They sum in another order: an error near the tolerance may end a step later.
    np.testing.assert_allclose(owned.num_steps, shared.num_steps, atol=1)
    np.testing.assert_array_equal(owned.converged, shared.converged)


def test_a_class_without_mass_has_no_pairs():
    source, affinity = overlapping()
    empty = oracles.replace(source, (1, 0), ((2, 5), np.nan))
    solution = solve(empty, affinity, pairs=int((empty[[0, 3]] > 0).sum()))
    assert solution.converged.tolist() == [True, False, False, True]
    assert not solution.path[1:3].any()
    nothing = solve(np.zeros_like(source), affinity, pairs=1)
    assert np.isnan(nothing.error).all()
    assert not nothing.path.any()


@pytest.mark.parametrize("missing", [{"support": -1}, {"pairs": -1}])
def test_a_reading_that_is_too_small_is_a_value(missing):
    source, affinity = overlapping()
    counts = {
        "support": int((source > 0).any(axis=0).sum()),
        "pairs": int((source > 0).sum()),
    }
    options = {name: counts[name] + less for name, less in missing.items()}
    solution = solve(source, affinity, **options)
    assert not solution.converged.any()
    assert np.isnan(np.asarray(solution.error)).all()
    assert not np.asarray(solution.path).any()


def test_norm():
    source, affinity = problem()
    path = np.asarray(solve(source, affinity).path)
    scaled = path - path.min(axis=1, keepdims=True)
    scaled /= scaled.max(axis=1, keepdims=True)
    actual = solve(source, affinity, norm="minmax").path
    np.testing.assert_allclose(actual, scaled, atol=2e-6)
    empty = jnp.asarray(oracles.replace(path, (0, 0)))
    actual = np.asarray(_normalise(empty, "sum"))
    np.testing.assert_allclose(actual[1:].sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(actual[0], 0)
    actual = np.asarray(_normalise(empty, "max"))
    np.testing.assert_allclose(actual[1:].max(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(actual[0], 0)


def test_minmax_does_not_stretch_the_rounding_of_a_constant_path():
    source, _ = problem()
    constant = np.full((PATCHES, PATCHES), 1 / PATCHES, np.float32)
    path = solve(oracles.replace(source, (0, 0)), constant, norm="minmax").path
    np.testing.assert_array_equal(path, 0)


def test_affinity_with_zeros_and_permutation_affinity():
    """Zeros are costs like any other: no status, and still equal to the loop."""
    source, affinity = problem()
    affinities = (
        oracles.replace(affinity, (3, 0), ((slice(None), 7), 0)),
        np.roll(np.eye(PATCHES, dtype=np.float32), 1, axis=1),
    )
    for cost in affinities:
        solution = solve(source, cost)
        expected = oracles.optimal_path(
            np.asarray(source, np.float64), np.asarray(cost, np.float64), steps=500
        )
        assert bool(solution.converged.all())
        np.testing.assert_allclose(solution.path, expected, rtol=1e-5, atol=1e-12)


def test_epsilon_of_a_thousandth():
    """The exponent reaches 300 and is rounded to 300 * 6e-8 = 2e-5 before exp."""
    source, affinity = problem()
    solution = solve(source, affinity, epsilon=1e-3)
    expected = oracles.optimal_path(
        np.asarray(source, np.float64),
        np.asarray(affinity, np.float64),
        epsilon=1e-3,
        steps=500,
    )
    assert bool(solution.converged.all())
    np.testing.assert_allclose(solution.path, expected, rtol=5e-5, atol=1e-12)


def underflowing():
    """Sources for which no kernel is large enough at 1e-3, but where one row has all.

    The paths of the first, third and fourth are known.
    """
    _, affinity = problem()
    source = np.eye(CLASSES, PATCHES, dtype=np.float32)
    source[1, 9] = 1
    one_row = [0, 2, 3]
    return source, affinity, one_row, affinity[one_row] / PATCHES


def test_a_kernel_that_underflows_is_a_status():
    source, affinity, one_row, expected = underflowing()
    solution = solve(source, affinity, domain="kernel", epsilon=1e-3)
    assert solution.converged.tolist() == [True, False, True, True]
    assert np.isnan(solution.error[1])
    assert not solution.path[1].any()
    np.testing.assert_allclose(solution.path[one_row], expected, rtol=1e-6)


@pytest.mark.parametrize("reading", [{}, {"support": SUPPORT}, {"pairs": SUPPORT}])
def test_what_underflows_is_solved_by_logarithms(reading):
    source, affinity, one_row, expected = underflowing()
    solution = solve(source, affinity, domain="auto", epsilon=1e-3, **reading)
    assert bool(solution.converged.all())
    np.testing.assert_allclose(solution.path[one_row], expected, rtol=1e-6)
    logs = solve(source, affinity, domain="log", epsilon=1e-3)
    np.testing.assert_allclose(solution.path, logs.path, rtol=1e-5)


def test_a_row_that_is_not_read_may_hold_anything_but_the_only_row_may_not():
    _, affinity = problem()
    source = np.eye(CLASSES, PATCHES, dtype=np.float32)
    for patch, is_solved in ((100, True), (1, False)):
        poisoned = oracles.replace(affinity, (patch, np.nan))
        solution = solve(source, poisoned, epsilon=1e-3, support=CLASSES)
        assert (solution.converged == is_solved).all()
        assert np.isfinite(solution.path).all()


def test_traced_epsilon_that_is_not_positive_is_a_status():
    source, affinity = (jnp.asarray(array) for array in problem())
    path = functools.partial(optimal_path, source, affinity, domain="kernel")
    solve_at = jax.jit(lambda epsilon: path(epsilon=epsilon))
    for epsilon in (0.0, -0.1, np.nan):
        solution = solve_at(epsilon)
        assert np.isnan(np.asarray(solution.error)).all()
        assert not np.asarray(solution.path).any()
    # A constant epsilon is divided by in another way.
    expected = solve(source, affinity).path
    np.testing.assert_allclose(solve_at(0.1).path, expected, rtol=1e-6)


def test_one_patch():
    solution = solve(np.ones((1, 1), np.float32), np.ones((1, 1), np.float32))
    assert bool(solution.converged[0])
    assert solution.path.item() == pytest.approx(1)


def test_batched_equals_one_by_one():
    source, affinity = problem()
    together = solve(source, affinity)
    for c in range(CLASSES):
        alone = solve(source[c : c + 1], affinity)
        np.testing.assert_allclose(alone.path[0], together.path[c], rtol=1e-6)
        assert int(alone.num_steps[0]) == int(together.num_steps[c])


@pytest.mark.parametrize("reading", [{"support": SUPPORT}, {"pairs": SUPPORT}])
def test_vmapped_over_images_equals_the_loop(reading):
    """The second image needs more steps than the others: its costs span more."""
    images = [problem(seed) for seed in range(3)]
    source, affinity = (np.stack(arrays) for arrays in zip(*images, strict=True))
    affinity *= np.asarray([1, 10, 1], np.float32)[:, None, None]
    one = functools.partial(optimal_path, **reading, domain="kernel")
    together = jax.jit(jax.vmap(one))(jnp.asarray(source), jnp.asarray(affinity))
    together = jax.tree.map(np.asarray, together)
    assert bool(together.converged.all())
    for i in range(3):
        alone = solve(source[i], affinity[i], **reading)
        np.testing.assert_allclose(together.path[i], alone.path, rtol=2e-6)
        assert together.num_steps[i].tolist() == alone.num_steps.tolist()
    assert int(together.num_steps[1].max()) > int(together.num_steps[0].max())


@pytest.mark.parametrize(
    ("dtype", "unit"), [(jnp.bfloat16, 2.0**-8), (jnp.float16, 2.0**-11)]
)
@pytest.mark.parametrize("sharpness", [1, 2])
def test_a_narrow_affinity_moves_the_path_within_its_bound(dtype, unit, sharpness):
    """The bound of docs/solvers/theory.md; one-hot sources attain its first part."""
    source, affinity = (np.array(each) for each in problem())
    affinity = affinity**sharpness
    affinity /= affinity.sum(axis=1, keepdims=True)
    source[0] = 0
    source[0, 5] = 1
    wide, narrow = solve(source, affinity), solve(source, affinity.astype(dtype))
    error = np.abs(narrow.path - wide.path) / wide.path
    bound = unit * (1 + 4 * affinity.max() / 0.1)
    if dtype == jnp.float16:  # below 6e-5 its steps are 6e-8, whatever the number is
        bound += 2.0**-25 / (PATCHES * wide.path)
    assert (error <= bound).all()
    assert error.max() > unit / 4  # the affinity was narrow indeed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epsilon": -1.0}, "`epsilon` is -1.0, expected a number > 0; the paper"),
        ({"norm": "softmax"}, "`norm` is 'softmax', expected one of"),
        ({"support": 0}, "`support` is 0, expected 1 to 4"),
        ({"support": 5}, "`support` is 5, expected 1 to 4"),
        ({"pairs": 9}, "`pairs` is 9, expected 1 to 8"),
        ({"support": 2, "pairs": 2}, "`support` is 2 and `pairs` is 2: give one"),
        ({"affinity": jnp.ones((4, 3))}, r"`affinity` has shape \(4, 3\)"),
        ({"affinity": jnp.ones((3, 3))}, "bring both to one patch grid"),
    ],
)
def test_misuse_is_refused_before_tracing(unchecked, change, message):
    arguments = {"source": jnp.ones((2, 4)), "affinity": jnp.ones((4, 4))} | change
    source, affinity = arguments.pop("source"), arguments.pop("affinity")
    with pytest.raises(ValueError, match=message):
        jax.jit(functools.partial(optimal_path, **arguments))(source, affinity)
