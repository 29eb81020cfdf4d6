"""Every discrepancy of the registry, crossed with everything that all must satisfy.

A new entry of ``DISCREPANCIES`` is tested here without a new test. Where it differs
from the others in what data does to it, ``TOLD`` says how.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dslo_jax.solvers import DISCREPANCIES, Reason
from solvers import jitted, oracles


PATCHES, CLASSES = 16, 4


@functools.cache
def problem(seed=0):
    arrays = oracles.scene(PATCHES, CLASSES, seed)
    return tuple(array.astype(np.float32) for array in arrays)


def solve(name, source, affinity):
    arrays = jnp.asarray(source), jnp.asarray(affinity)
    return jax.device_get(jitted.solve(DISCREPANCIES[name](), *arrays))


def assert_same(actual, expected, atol=2e-5):
    """Up to rounding, relative to the largest value."""
    atol *= np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=atol)


def order_of_classes(name):
    source, affinity = problem()
    order = np.asarray([2, 0, 3, 1])
    plain, permuted = (
        solve(name, source, affinity),
        solve(name, source[order], affinity),
    )
    assert_same(permuted.value, plain.value[order])
    assert permuted.num_steps.tolist() == plain.num_steps[order].tolist()


def order_of_patches(name):
    source, affinity = problem()
    order = np.random.default_rng(0).permutation(PATCHES)
    plain = solve(name, source, affinity)
    permuted = solve(name, source[:, order], affinity[np.ix_(order, order)])
    assert_same(permuted.value, plain.value[:, order])


def class_given_twice(name):
    source, affinity = problem()
    value = solve(name, oracles.replace(source, (3, source[0])), affinity).value
    assert_same(value[3], value[0])


def padding_with_a_class(name):
    """As classes are brought to the size of a bucket: the others do not notice."""
    source, affinity = problem()
    padded = solve(name, oracles.replace(source, (3, source[0])), affinity)
    assert_same(padded.value[:3], solve(name, source[:3], affinity).value)


def images_at_once(name):
    images = [problem(seed) for seed in range(2)]
    batch = (jnp.stack(arrays) for arrays in zip(*images, strict=True))
    together = jax.device_get(jax.jit(jax.vmap(DISCREPANCIES[name]().solve))(*batch))
    for i, image in enumerate(images):
        alone = solve(name, *image)
        assert_same(together.value[i], alone.value)
        assert together.num_steps[i].tolist() == alone.num_steps.tolist()
        assert together.reason[i].tolist() == alone.reason.tolist()


def numpy_in_float64_without_a_compiler(name):
    """No warning, and float32 as for all that computes in float32."""
    source, affinity = (array.astype(np.float64) for array in problem())
    solution = DISCREPANCIES[name]().solve(source, affinity)
    expected = solve(name, *problem())
    assert solution.value.dtype == jnp.float32
    assert_same(solution.value, expected.value)
    np.testing.assert_array_equal(solution.reason, expected.reason)


def narrow_arrays(name):
    source, affinity = (jnp.asarray(array, jnp.bfloat16) for array in problem())
    solution = jitted.solve(DISCREPANCIES[name](), source, affinity)
    assert solution.value.dtype == jnp.float32
    assert solution.error.dtype == jnp.float32
    wide = (array.astype(jnp.float32) for array in (source, affinity))
    assert_same(solution.value, solve(name, *wide).value)


def affinity_left_out(name):
    kind = DISCREPANCIES[name]()
    source, affinity = map(jnp.asarray, problem())
    if kind.needs_affinity:
        with pytest.raises(ValueError, match="`affinity` is None"):
            kind.solve(source)
    else:
        value = kind.solve(source).value
        np.testing.assert_array_equal(value, kind.solve(source, affinity).value)


def gradient_is_finite(name):
    source, affinity = map(jnp.asarray, problem())
    source = source.at[0].set(0)  # a class that fails must not spoil the others

    def total(source, affinity):
        return jnp.sum(DISCREPANCIES[name]().solve(source, affinity).value ** 2)

    gradients = jax.jit(jax.grad(total, (0, 1)))(source, affinity)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


PROPERTIES = (
    *(order_of_classes, order_of_patches, class_given_twice, padding_with_a_class),
    *(images_at_once, numpy_in_float64_without_a_compiler, narrow_arrays),
    *(affinity_left_out, gradient_is_finite),
)


def _property(name, holds):
    """The parts of the default Fused have the long ones of these properties too."""
    long = (numpy_in_float64_without_a_compiler, gradient_is_finite)
    marks = [pytest.mark.slow] * (name == "fused" and holds in long)
    return pytest.param(name, holds, id=f"{holds.__name__}-{name}", marks=marks)


@pytest.mark.parametrize(
    ("name", "holds"),
    [_property(name, holds) for holds in PROPERTIES for name in DISCREPANCIES],
)
def test_property(name, holds):
    holds(name)


SOURCES = {
    "no mass": (0, 0),
    "a NaN": ((0, 3), np.nan),
    "infinite": ((0, 3), np.inf),
    "negative": ((0, 3), -0.5),
}
"""What is wrong with class 0. The others are as they would be without it."""

AFFINITIES = {
    "a row of zeros": (3, 0),
    "a column of zeros": ((slice(None), 3), 0),
    "a negative value": ((3, 4), -0.1),
    "a NaN value": ((3, 4), np.nan),
}
"""What is wrong with the affinity, for all classes."""

BALANCED = ("velocity", "fused")
WALKED = (*BALANCED, "propagation")
TOLD = {
    "no mass": {"": Reason.NO_MASS, "logits": Reason.CONVERGED},
    "a NaN": {"": Reason.SOURCE_NOT_FINITE},
    "infinite": {"": Reason.SOURCE_NOT_FINITE},
    "negative": {"": Reason.SOURCE_NEGATIVE, "logits": Reason.CONVERGED},
    # To a path these are costs like any other.
    "a row of zeros": dict.fromkeys(WALKED, Reason.UNBALANCEABLE),
    "a column of zeros": dict.fromkeys(BALANCED, Reason.UNBALANCEABLE),
    "a negative value": dict.fromkeys(WALKED, Reason.AFFINITY_NEGATIVE),
    "a NaN value": dict.fromkeys(("path", *WALKED), Reason.AFFINITY_NOT_FINITE),
}
"""What each says to it; who is left out says what stands under "", or converges."""


def told(case, name):
    reasons = TOLD[case]
    return reasons.get(name, reasons.get("", Reason.CONVERGED))


def assert_told(solution, which, reason):
    assert set(solution.reason[which].tolist()) == {reason}
    assert (solution.converged == (solution.reason == Reason.CONVERGED)).all()
    assert np.isfinite(solution.value).all()
    if not reason.is_solved:
        assert np.isnan(solution.error[which]).all()
        assert not solution.value[which].any()


@pytest.mark.parametrize("name", DISCREPANCIES)
@pytest.mark.parametrize("case", SOURCES)
def test_source(name, case):
    source, affinity = problem()
    solution = solve(name, oracles.replace(source, SOURCES[case]), affinity)
    assert_told(solution, [0], told(case, name))
    assert_told(solution, [1, 2, 3], Reason.CONVERGED)
    assert_same(solution.value[1:], solve(name, source[1:], affinity).value)


@pytest.mark.parametrize("name", DISCREPANCIES)
@pytest.mark.parametrize("case", AFFINITIES)
def test_affinity(name, case):
    source, affinity = problem()
    solution = solve(name, source, oracles.replace(affinity, AFFINITIES[case]))
    assert_told(solution, [0, 1, 2, 3], told(case, name))


@pytest.mark.parametrize("name", DISCREPANCIES)
def test_uniform_source(name):
    """Nothing tells one class from another."""
    uniform = np.full((CLASSES, PATCHES), 1 / PATCHES, np.float32)
    solution = solve(name, uniform, problem()[1])
    assert_told(solution, [0, 1, 2, 3], Reason.CONVERGED)
    assert_same(solution.value, np.tile(solution.value[:1], (CLASSES, 1)))
    if name not in ("path", "fused", "propagation"):  # those follow the columns
        assert np.ptp(solution.value) == 0
