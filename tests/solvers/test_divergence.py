import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import rel_entr

from dslo_jax.solvers import kl_map
from solvers import oracles


PATCHES, CLASSES = 64, 4


compiled = jax.jit(kl_map, static_argnames="direction")


def solve(source, **options):
    """Inputs in float32, the map in NumPy."""
    if "target" in options:
        options["target"] = jnp.asarray(options["target"], jnp.float32)
    return np.asarray(compiled(jnp.asarray(source, jnp.float32), **options))


def problem():
    source, _ = oracles.scene(PATCHES, CLASSES)
    return source.astype(np.float32)


def test_source_to_target_equals_scipy():
    source = problem()
    expected = rel_entr(np.asarray(source, np.float64), 1 / PATCHES)
    actual = solve(source)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-7)
    assert np.all(np.asarray(actual)[np.asarray(source) == 0] == 0)


def test_target_to_source_equals_scipy_and_is_finite_at_zero():
    source = problem()
    actual = solve(source, direction="target_to_source")
    exact = np.asarray(source, np.float64)
    positive = exact > 0
    expected = rel_entr(1 / PATCHES, exact, where=positive, out=np.zeros(exact.shape))
    np.testing.assert_allclose(
        actual[positive], expected[positive], rtol=1e-5, atol=1e-7
    )
    limit = np.log(1 / PATCHES / np.finfo(np.float32).tiny) / PATCHES
    np.testing.assert_allclose(actual[~positive], limit, rtol=1e-6)
    assert actual[~positive].min() > actual[positive].max()


@pytest.mark.parametrize("direction", ["source_to_target", "target_to_source"])
def test_uniform_source_is_at_no_distance(direction):
    source = np.full((CLASSES, PATCHES), 1 / PATCHES)
    assert not solve(source, direction=direction).any()


def test_sum_of_the_map_is_the_divergence_and_not_negative():
    target = np.random.default_rng(1).dirichlet(np.ones(PATCHES))
    source = problem()
    total = solve(source, target=target).sum(axis=1)
    expected = rel_entr(np.asarray(source, np.float64), target).sum(axis=1)
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    assert (total >= 0).all()


@pytest.mark.parametrize("direction", ["source_to_target", "target_to_source"])
def test_never_nan(direction):
    source = oracles.replace(problem(), (0, 0), ((1, 3), np.nan), ((2, 3), -1))
    values = solve(source, direction=direction)
    assert np.isfinite(values).all()
    assert not values[:3].any()
    np.testing.assert_array_equal(values[3], solve(problem(), direction=direction)[3])
    target = np.eye(1, PATCHES)[0]
    values = solve(source, target=target, direction=direction)
    assert np.isfinite(values).all()


def test_vmap_and_narrow_inputs():
    source = problem()
    together = jax.jit(jax.vmap(kl_map))(jnp.asarray([source, source[::-1]]))
    np.testing.assert_allclose(together[1], solve(source)[::-1], rtol=1e-6)
    assert compiled(jnp.asarray(source, jnp.float16)).dtype == jnp.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"direction": "both"}, "`direction` is 'both', expected one of"),
        ({"target": jnp.ones(3)}, r"`target` has shape \(3,\), expected \(4,\)"),
    ],
)
def test_misuse_is_refused(unchecked, change, message):
    with pytest.raises(ValueError, match=message):
        kl_map(jnp.ones((2, 4)), **change)
