"""The reference and ``dslo_jax``, written independently, give the same results."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from quick import QUICK_COMPILE

from dslo_jax import ops, solvers
from torch_bridge import reference


CLASSES, PATCHES = 3, 48


@pytest.fixture
def case():
    """Logits, sources and an affinity in float64."""
    generator = torch.Generator().manual_seed(11)
    shape = (PATCHES, PATCHES)
    scores = torch.randn(shape, generator=generator, dtype=torch.float64)
    affinity = torch.softmax(1.5 * scores, dim=1)
    shape = (CLASSES, PATCHES)
    logits = 0.2 + 0.05 * torch.randn(shape, generator=generator, dtype=torch.float64)
    source = reference.normalize(logits, reference.suppress(logits, threshold=0.7))
    return logits.numpy(), source.numpy(), affinity.numpy()


def both(torch_function, jax_function, *arrays, **options):
    """Results of the two implementations on the same numbers, as NumPy arrays."""
    compiled = jax.jit(
        functools.partial(jax_function, **options), compiler_options=QUICK_COMPILE
    )
    actual = compiled(*map(jnp.asarray, arrays))
    wanted = torch_function(*map(torch.as_tensor, arrays), **options)
    return np.asarray(actual), wanted.numpy()


def jax_path(source, affinity, **options):
    return solvers.optimal_path(source, affinity, tolerance=0.0, **options).path


def jax_velocity(source, affinity, **options):
    return solvers.maximum_velocity(source, affinity, **options).velocity


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("norm", "epsilon"), [("sum", 0.1), ("minmax", 0.02)])
def test_optimal_path(case, norm, epsilon):
    _, *arrays = case
    options = {"norm": norm, "epsilon": epsilon}
    actual, wanted = both(reference.optimal_path, jax_path, *arrays, **options)
    np.testing.assert_allclose(actual, wanted, rtol=0, atol=1e-14 * wanted.max())


@pytest.mark.usefixtures("x64")
def test_balanced_transition(case):
    *_, affinity = case
    actual, wanted = both(
        reference.doubly_stochastic,
        lambda a: solvers.doubly_stochastic(a).matrix(a),
        affinity,
    )
    np.testing.assert_allclose(actual, wanted, rtol=1e-14, atol=0)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("criterion", "threshold"), [("saturation", 0.7), ("increment", 0.02)]
)
def test_maximum_velocity(case, criterion, threshold):
    _, source, affinity = case
    if criterion == "increment":
        source = np.eye(CLASSES, PATCHES)
    actual, wanted = both(
        reference.maximum_velocity,
        jax_velocity,
        source,
        affinity,
        criterion=criterion,
        threshold=threshold,
    )
    assert len(np.unique(wanted)) > 2
    np.testing.assert_allclose(actual, wanted, rtol=0, atol=1e-13)


def test_single_precision_costs_little(case):
    _, *arrays = (array.astype(np.float32) for array in case)
    actual, wanted = both(reference.optimal_path, jax_path, *arrays)
    np.testing.assert_allclose(actual, wanted, rtol=0, atol=2e-6 * wanted.max())
    actual, wanted = both(reference.maximum_velocity, jax_velocity, *arrays)
    # The interpolation divides by the growth of a state, which may be small.
    np.testing.assert_allclose(actual, wanted, rtol=0, atol=5e-6)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("direction", ["source_to_target", "target_to_source"])
def test_divergence(case, direction):
    _, source, _ = case
    actual, wanted = both(reference.kl_map, solvers.kl_map, source, direction=direction)
    mass = source > 0
    np.testing.assert_allclose(actual[mass], wanted[mass], rtol=0, atol=2e-15)


@pytest.mark.parametrize("method", ["minmax", "softmax", "relative", "none"])
@pytest.mark.parametrize("threshold", [0.5, 0.9])
def test_suppression(case, method, threshold):
    actual, wanted = both(
        reference.suppress,
        ops.suppress,
        case[0].astype(np.float32),
        method=method,
        threshold=threshold,
    )
    np.testing.assert_array_equal(actual, wanted)


def test_rejection_and_normalisation(case):
    logits = case[0].astype(np.float32) - np.float32([[0], [0.5], [0]])
    actual, wanted = both(reference.reject_classes, ops.reject_classes, logits)
    assert np.flatnonzero(actual).tolist() == wanted.tolist() == [0, 2]
    keep = reference.suppress(torch.as_tensor(logits), threshold=0.3).numpy()
    actual, wanted = both(reference.normalize, ops.normalize, logits, keep, scale=100.0)
    np.testing.assert_allclose(actual, wanted, rtol=2e-6, atol=0)


@pytest.mark.parametrize(
    ("name", "size"), [("joint", (37, 50)), ("joint", (5, 4)), ("dense", (13, 27))]
)
def test_bilateral_upsampling(name, size):
    rng = np.random.default_rng(12)
    values = rng.standard_normal((3, 6, 8), np.float32)
    photo = rng.random((*size, 3), np.float32)
    actual, wanted = both(
        getattr(reference, f"{name}_bilateral_upsample"),
        getattr(ops, f"{name}_bilateral_upsample"),
        values,
        photo,
    )
    np.testing.assert_allclose(actual, wanted, rtol=0, atol=2e-6)


@pytest.mark.parametrize("size", [(13, 9), (3, 20)])
def test_bilinear_resizing(size):
    values = np.random.default_rng(13).standard_normal((2, 6, 8), np.float32)
    actual, wanted = both(reference.resize, ops.resize, values, size=size)
    np.testing.assert_allclose(actual, wanted, rtol=0, atol=1e-6)
