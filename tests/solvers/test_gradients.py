"""Gradients against central differences, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import QUICK_COMPILE

from dslo_jax.solvers import (
    doubly_stochastic,
    maximum_velocity,
    optimal_path,
    sinkhorn,
)
from dslo_jax.solvers._loop import Rule, begin, iterate
from solvers import oracles


PATCHES, CLASSES = 30, 3


@pytest.fixture
def scene(x64):
    return tuple(jnp.asarray(array) for array in oracles.scene(PATCHES, CLASSES))


WEIGHTS = np.random.default_rng(1).normal(size=(CLASSES, PATCHES))


@functools.lru_cache(maxsize=1)
def in_a_hurry(function, count):
    """A function of so many arguments and its gradients, compiled without optimisation.

    Gradients are found before the compiler sees them; the other tests of the solvers
    run the code that users run.
    """
    compile_ = functools.partial(jax.jit, compiler_options=QUICK_COMPILE)
    return compile_(function), compile_(jax.grad(function, tuple(range(count))))


def assert_gradient(function, *arguments, step=1e-6, rtol=1e-6):
    """Along a random direction that keeps zeros zero and signs as they are."""
    rng = np.random.default_rng(2)
    value_of, gradients_of = in_a_hurry(function, len(arguments))
    gradients = jax.device_get(gradients_of(*arguments))
    arguments = jax.device_get(arguments)
    directions = [rng.normal(size=np.shape(value)) * value for value in arguments]

    def at(distance):
        moved = zip(arguments, directions, strict=True)
        return value_of(*(value + distance * way for value, way in moved))

    expected = (at(step) - at(-step)) / (2 * step)
    pairs = zip(gradients, directions, strict=True)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    assert abs(float(expected)) > 1e-5
    actual = sum(np.sum(gradient * way) for gradient, way in pairs)
    np.testing.assert_allclose(actual, expected, rtol=rtol)


@pytest.mark.parametrize(
    "options",
    [
        {"domain": "kernel"},
        pytest.param({"support": 16}, marks=pytest.mark.slow),
        {"pairs": 16, "domain": "kernel"},
        {"domain": "log"},
        pytest.param({"tolerance": 0.0, "max_steps": 1}, marks=pytest.mark.slow),
        pytest.param({"tolerance": 0.0, "max_steps": 7}, marks=pytest.mark.slow),
        pytest.param({"norm": "minmax"}, marks=pytest.mark.slow),
    ],
)
def test_path(scene, options):
    options = {"tolerance": 1e-12} | options

    def function(source, affinity, epsilon):
        path = optimal_path(source, affinity, epsilon=epsilon, **options).path
        return PATCHES * jnp.sum(WEIGHTS * path)

    assert_gradient(function, *scene, jnp.asarray(0.05))


def test_path_on_rows_that_are_gathered_block_by_block(scene, monkeypatch):
    monkeypatch.setattr("dslo_jax.tuning.GATHERED_AT_ONCE", 0)
    options = {"support": 16, "domain": "kernel", "tolerance": 1e-12}

    def function(source, affinity):
        path = optimal_path(source, affinity, epsilon=0.05, **options).path
        return PATCHES * jnp.sum(WEIGHTS * path)

    assert_gradient(function, *scene)


def test_path_of_a_class_that_no_kernel_can_solve(scene):
    """Its failure in the kernel must not leak NaN into the affinity they share."""
    source, affinity = scene
    source = source.at[0].set(jnp.eye(PATCHES)[4]).at[1].set(jnp.eye(PATCHES)[5])
    source = source.at[1, 7].set(0.3)  # with one row alone the path is known

    def function(affinity, epsilon):
        path = optimal_path(source, affinity, epsilon=epsilon, max_steps=9).path
        return PATCHES * jnp.sum(WEIGHTS * path)

    for epsilon in (2e-3, 2e-4):
        assert_gradient(function, affinity, jnp.asarray(epsilon), step=1e-7, rtol=1e-5)


def test_unusable_classes_have_gradient_zero(scene):
    source, affinity = scene
    source = source.at[0].set(0).at[1, 3].set(jnp.nan)

    def function(source, affinity):
        path = optimal_path(source, affinity, domain="kernel").path
        return PATCHES * jnp.sum(WEIGHTS * path)

    _, gradients_of = in_a_hurry(function, 2)
    gradients = gradients_of(source, affinity)
    assert not np.asarray(gradients[0][:2]).any()
    assert np.isfinite(np.asarray(gradients[1])).all()


SOLVERS = {
    "path": lambda source, affinity: optimal_path(source, affinity).path,
    "velocity": lambda source, affinity: maximum_velocity(source, affinity).velocity,
    "balancing": lambda _, affinity: doubly_stochastic(affinity).column_scaling,
}
FORWARD = {
    "jvp": lambda f, x: jax.jvp(f, (x,), (x,)),
    "jit jvp": lambda f, x: jax.jit(lambda x: jax.jvp(f, (x,), (x,)))(x),
    "jvp jit": lambda f, x: jax.jvp(jax.jit(f), (x,), (x,)),
    "jacfwd": lambda f, x: jax.jacfwd(f)(x),
    "jit jacfwd": lambda f, x: jax.jit(jax.jacfwd(f))(x),
    "linearize": lambda f, x: jax.linearize(f, x)[1](x),
    "hessian": lambda f, x: jax.hessian(lambda x: f(x).sum())(x),
}


# All solvers are refused by their loop: one of them is derived in every way.
@pytest.mark.parametrize(
    ("name", "way"),
    [(name, "jit jvp") for name in SOLVERS]
    + [("balancing", way) for way in FORWARD if way != "jit jvp"],
)
def test_forward_mode_is_refused(name, way):
    solve, derive = SOLVERS[name], FORWARD[way]
    source, affinity = map(jnp.asarray, oracles.scene(8, 2))
    with pytest.raises(NotImplementedError, match=r"no forward mode .* use jax\.grad"):
        derive(functools.partial(solve, source), affinity)


def test_second_derivatives_are_refused():
    source, affinity = map(jnp.asarray, oracles.scene(8, 2))

    def total(affinity):
        return optimal_path(source, affinity, domain="kernel").path.sum()

    with pytest.raises(NotImplementedError, match="no second derivatives"):
        jax.grad(lambda x: jax.grad(total)(x).sum())(affinity)


@pytest.mark.slow
def test_transport_cost(scene):
    def function(source, affinity, epsilon):
        return optimal_path(source, affinity, epsilon=epsilon).path.sum()

    assert_gradient(function, *scene, jnp.asarray(0.05))


def test_potentials(scene):
    source, cost = scene
    target = jnp.asarray(np.random.default_rng(0).dirichlet(np.ones(PATCHES)))

    def function(source, cost, target, epsilon):
        options = {"tolerance": 0.0, "max_steps": 8, "domain": "kernel"}
        found = sinkhorn(source, cost, target=target, epsilon=epsilon, **options)
        rows = jnp.where(source > 0, found.row_potential, 0)
        return jnp.sum(WEIGHTS * (rows + found.column_potential))

    assert_gradient(function, source, cost, target, jnp.asarray(0.05))


@pytest.mark.slow
def test_weights_of_layers(scene):
    """The affinity of a photo is a weighted mean of the attention of several layers."""
    source, affinity = scene
    layers = jnp.stack([affinity, jnp.roll(affinity, 3, axis=1)])

    def function(weights):
        mixed = jnp.tensordot(weights / weights.sum(), layers, axes=1)
        path = optimal_path(source, mixed, tolerance=1e-12).path
        return PATCHES * jnp.sum(WEIGHTS * path)

    assert_gradient(function, jnp.asarray([0.3, 0.7]))


@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param({"balancing_steps": 1}, marks=pytest.mark.slow),
        pytest.param({"max_steps": 3}, marks=pytest.mark.slow),
    ],
)
def test_velocity(scene, options):
    def function(source, affinity):
        solution = maximum_velocity(source, affinity, **options)
        return jnp.sum(WEIGHTS * solution.velocity)

    assert_gradient(function, *scene, step=1e-7, rtol=1e-5)


@pytest.mark.slow
def test_velocity_without_interpolation_is_flat(scene):
    def function(source, affinity):
        return maximum_velocity(source, affinity, interpolate=False).velocity.sum()

    for gradient in jax.grad(function, (0, 1))(*scene):
        assert not np.asarray(gradient).any()


@pytest.mark.slow
def test_balancing(scene):
    _, affinity = scene

    def function(affinity):
        return jnp.sum(WEIGHTS @ doubly_stochastic(affinity).matrix(affinity) ** 2)

    assert_gradient(function, affinity)


@pytest.mark.slow
def test_vmapped_equals_the_loop(scene):
    source, affinity = scene
    batch = jnp.stack([affinity, affinity**2])

    def function(affinity):
        paths = optimal_path(source, affinity).path
        return jnp.sum(
            WEIGHTS * (PATCHES * paths + maximum_velocity(source, affinity).velocity)
        )

    gradient = jax.jit(jax.grad(function))
    together = jax.jit(jax.vmap(jax.grad(function)))(batch)
    for one, alone in zip(together, map(gradient, batch), strict=True):
        np.testing.assert_allclose(one, alone, rtol=1e-9, atol=1e-12)


def test_memory_does_not_grow_with_the_steps(x64):
    """A thousand steps keep the states of 2 * 32, not of 1000."""

    def last(start, max_steps):
        def step(matrix, state, _):
            return jnp.tanh(state @ matrix), jnp.ones(8)

        progress = begin(start, jnp.full(8, jnp.inf))
        final = iterate(step, jnp.eye(64), progress, Rule(max_steps, 0.0))
        return final.state.sum()

    def memory(max_steps):
        gradient = jax.jit(jax.grad(last), static_argnums=1)
        lowered = gradient.lower(jnp.ones((8, 64)), max_steps)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    state = 8 * 64 * 8
    assert memory(1024) < memory(4) + 3 * 32 * state
