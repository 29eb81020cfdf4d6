"""Every reason for which a class can end, brought about."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dslo_jax.solvers import (
    MaximumVelocity,
    OptimalPath,
    Reason,
    doubly_stochastic,
    iterate,
    optimal_path,
    sinkhorn,
)
from solvers import oracles
from solvers.jitted import solve


PATCHES, CLASSES = 16, 4


def problem(*edits):
    """A source and an affinity; edits of the affinity."""
    source, affinity = oracles.scene(PATCHES, CLASSES)
    affinity = oracles.replace(affinity, *edits)
    return jnp.asarray(source, jnp.float32), jnp.asarray(affinity, jnp.float32)


def two_rows():
    return jnp.eye(CLASSES, PATCHES) + jnp.eye(CLASSES, PATCHES, 1)


HALF = np.arange(PATCHES) < PATCHES // 2
KERNEL = OptimalPath(domain="kernel")

balance = jax.jit(doubly_stochastic, static_argnames=("max_steps", "tolerance"))


def bring_about(reason):
    """The reasons of all classes in a case that is made for this one."""
    source, affinity = problem()
    match reason:
        case Reason.CONVERGED:
            return solve(OptimalPath(), source, affinity).reason
        case Reason.STEP_CAP:
            return solve(MaximumVelocity(max_steps=1), source, affinity).reason
        case Reason.STALLED:
            kind = OptimalPath(tolerance=1e-9, domain="kernel")
            return solve(kind, source, affinity).reason
        case Reason.DISCONNECTED:
            blocks = jnp.where(HALF[:, None] == HALF, affinity, 0)
            solution = solve(MaximumVelocity(), jnp.eye(CLASSES, PATCHES), blocks)
            assert (solution.num_steps == 1000).all()
            return solution.reason
        case Reason.NO_MASS:
            return solve(OptimalPath(), 0 * source, affinity).reason
        case Reason.SOURCE_NEGATIVE:
            return solve(KERNEL, source.at[:, 3].set(-0.1), affinity).reason
        case Reason.SOURCE_NOT_FINITE:
            return solve(KERNEL, source.at[:, 3].set(jnp.inf), affinity).reason
        case Reason.TARGET_UNUSABLE:
            potentials = functools.partial(sinkhorn, domain="kernel")
            nothing = jnp.zeros(PATCHES)
            return jax.jit(potentials)(source, affinity, target=nothing).reason
        case Reason.AFFINITY_NEGATIVE:
            affinity = affinity.at[2, 3].set(-1)
            return solve(MaximumVelocity(), source, affinity).reason
        case Reason.AFFINITY_NOT_FINITE:
            return solve(OptimalPath(), source, affinity.at[2, 3].set(jnp.nan)).reason
        case Reason.UNBALANCEABLE:
            return solve(MaximumVelocity(), source, affinity.at[3].set(0)).reason
        case Reason.EPSILON_NOT_POSITIVE:
            path = functools.partial(optimal_path, source, affinity, domain="kernel")
            return jax.jit(lambda epsilon: path(epsilon=epsilon).reason)(-1.0)
        case Reason.EPSILON_TOO_SMALL:
            tiny = OptimalPath(epsilon=1e-9, domain="log")
            return solve(tiny, two_rows(), affinity).reason
        case Reason.KERNEL_UNDERFLOW:
            tight = OptimalPath(domain="kernel", epsilon=1e-4)
            return solve(tight, two_rows(), affinity).reason
        case Reason.TOO_MANY_ROWS:
            few = OptimalPath(domain="kernel", support=2)
            return solve(few, source, affinity).reason
        case Reason.NOT_FINITE:
            broken = iterate(
                lambda state: (state / 0, state[:, 0]),
                0 * source,
                max_steps=3,
                tolerance=1.0,
            )
            return broken.solution().reason


@pytest.mark.parametrize("reason", list(Reason), ids=lambda reason: reason.name)
def test_every_reason_is_told(reason):
    assert set(bring_about(reason).tolist()) == {reason}
    assert reason.sentence.endswith(".")


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf])
@pytest.mark.parametrize("kind", [KERNEL, OptimalPath(domain="log"), MaximumVelocity()])
def test_an_affinity_that_is_not_finite(kind, value):
    source, affinity = problem()
    solution = solve(kind, source, affinity.at[2, 3].set(value))
    assert set(solution.reason.tolist()) == {Reason.AFFINITY_NOT_FINITE}


def test_a_class_of_its_own_is_told_before_what_all_share():
    source, affinity = problem((3, np.nan))
    for kind in (OptimalPath(), MaximumVelocity()):
        solution = solve(kind, source.at[0].set(0), affinity)
        shared = [Reason.AFFINITY_NOT_FINITE] * (CLASSES - 1)
        assert solution.reason.tolist() == [Reason.NO_MASS, *shared]


def test_a_threshold_that_nothing_exceeds():
    source, affinity = problem()
    solution = solve(MaximumVelocity(threshold=1.0), source, affinity)
    assert set(solution.reason.tolist()) == {Reason.DISCONNECTED}


def test_a_chain_that_moves_in_circles_is_not_at_rest():
    """Half of the patches are out of reach, but the chain never rests."""
    circle = jnp.roll(jnp.eye(PATCHES), 2, axis=1)
    capped = MaximumVelocity(max_steps=20)
    solution = solve(capped, jnp.eye(CLASSES, PATCHES), circle)
    assert set(solution.reason.tolist()) == {Reason.STEP_CAP}


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        ((0, 1.0), Reason.STEP_CAP),
        ((3, 0.0), Reason.UNBALANCEABLE),
        (((3, 4), -1.0), Reason.AFFINITY_NEGATIVE),
        (((3, 4), np.inf), Reason.AFFINITY_NOT_FINITE),
    ],
)
def test_balancing(edit, reason):
    _, affinity = problem(edit)
    transition = balance(affinity)
    assert transition.reason == reason
    assert transition.converged == (reason == Reason.CONVERGED)
    _, affinity = problem()
    balanced = balance(affinity, max_steps=500, tolerance=1e-4)
    assert balanced.reason == Reason.CONVERGED
