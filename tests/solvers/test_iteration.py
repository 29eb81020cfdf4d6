"""The loop for discrepancies of one's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dslo_jax.solvers import Reason, iterate
from solvers import oracles


PATCHES, CLASSES = 16, 3
ALPHA = 0.5


def problem():
    source, affinity = oracles.scene(PATCHES, CLASSES)
    affinity = affinity / affinity.sum(axis=1, keepdims=True)
    return jnp.asarray(source, jnp.float32), jnp.asarray(affinity, jnp.float32)


def walk(source, affinity, alpha=ALPHA, **options):
    """A walk that restarts; it reads arrays around it, and counts in its state."""
    order = jnp.arange(PATCHES)[::-1]  # integers around it have no gradient

    def step(state):
        value, count = state
        walked = jnp.matmul(value, affinity, precision="highest")[:, order][:, order]
        new = (1 - alpha) * source + alpha * walked
        return (new, count + 1), jnp.abs(new - value).sum(axis=1)

    start = source, jnp.zeros(len(source))
    return iterate(step, start, **{"max_steps": 60, "tolerance": 1e-6, **options})


def test_it_ends_in_the_fixed_point_and_every_class_counts_its_own_steps():
    source, affinity = problem()
    found = walk(source, affinity)
    inverse = np.linalg.inv(np.eye(PATCHES) - ALPHA * np.asarray(affinity, np.float64))
    exact = (1 - ALPHA) * np.asarray(source, np.float64) @ inverse
    solution = found.solution(found.state[0])
    np.testing.assert_allclose(solution.value, exact, atol=1e-6)
    assert solution.converged.all()
    assert (solution.reason == Reason.CONVERGED).all()
    np.testing.assert_array_equal(found.state[1], found.num_steps)
    assert found.history is None
    with pytest.raises(ValueError, match=r"state is a tuple.*`solution\(value\)`"):
        found.solution()


def test_classes_and_padding_do_not_change_each_other():
    source, affinity = problem()
    padded = jnp.concatenate([source, jnp.zeros((2, PATCHES))])
    both = walk(padded, affinity)
    alone = walk(source[1:2], affinity)
    np.testing.assert_allclose(both.state[0][1], alone.state[0][0], atol=1e-7)
    assert both.num_steps[1] == alone.num_steps[0]


def test_several_images_are_each_as_if_alone():
    source, affinity = problem()
    sources, affinities = jnp.stack([source, 2 * source]), jnp.stack([affinity] * 2)
    together = jax.jit(jax.vmap(walk))(sources, affinities)
    alone = walk(2 * source, affinity)
    np.testing.assert_allclose(together.state[0][1], alone.state[0], atol=1e-6)
    np.testing.assert_array_equal(together.num_steps[1], alone.num_steps)


def test_the_history_has_the_error_of_every_step():
    source, affinity = problem()
    found = walk(source, affinity, record=True)
    assert found.history is not None
    assert found.history.shape == (60, CLASSES)
    for row, steps in enumerate(found.num_steps.tolist()):
        assert found.history[steps - 1, row] == found.error[row]
        assert jnp.isnan(found.history[steps:, row]).all()
        assert (found.history[:steps, row] > 0).all()


def test_the_gradient_is_that_of_the_steps():
    source, affinity = problem()

    def plain(source, affinity, alpha):
        value = source
        for _ in range(9):
            walked = jnp.matmul(value, affinity, precision="highest")
            value = (1 - alpha) * source + alpha * walked
        return (value**2).sum()

    def ours(source, affinity, alpha):
        found = walk(source, affinity, alpha, max_steps=9, tolerance=0.0)
        return (found.state[0] ** 2).sum()

    given = source, affinity, jnp.float32(ALPHA)
    expected = jax.jit(jax.grad(plain, argnums=(0, 1, 2)))(*given)
    found = jax.jit(jax.grad(ours, argnums=(0, 1, 2)))(*given)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_a_class_that_has_not_converged_or_is_no_number_says_so():
    source, affinity = problem()
    short = walk(source, affinity, max_steps=2).reason
    assert (short == Reason.STEP_CAP).all()
    found = walk(source.at[1, 2].set(jnp.nan), affinity)
    solution = found.solution(found.state[0])
    assert solution.reason.tolist() == [0, Reason.NOT_FINITE, 0]
    assert (solution.value[1] == 0).all()
    assert jnp.isnan(solution.error).tolist() == [False, True, False]
    # A map that is made of a good state may still be no number.
    broken = found.solution(jnp.log(found.state[0] - found.state[0].max(1)[:, None]))
    assert (broken.reason == Reason.NOT_FINITE).all()


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (lambda s: s, "expected a tuple of two"),
        (lambda s: (s.sum(axis=1), s[:, 0]), r"state float32 \[3\] of a state float32"),
        (lambda s: (s, s.max()), r"error of `step` is float32 \[\], expected floats"),
        (lambda s: (s, jnp.arange(3)), r"error of `step` is int32"),
    ],
)
def test_a_step_that_does_not_fit_is_refused(step, words):
    with pytest.raises(ValueError, match=words):
        iterate(step, jnp.ones((3, 4)), max_steps=2, tolerance=0.1)


def test_options_out_of_range_are_refused():
    def step(state):
        return state, state[:, 0]

    with pytest.raises(ValueError, match="`max_steps` is 0"):
        iterate(step, jnp.ones((3, 4)), max_steps=0, tolerance=0.1)
    with pytest.raises(ValueError, match="`tolerance` is -1"):
        iterate(step, jnp.ones((3, 4)), max_steps=1, tolerance=-1.0)
