"""Discrepancies as values: the registry, their options, and one of one's own."""

from dataclasses import dataclass, replace
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dslo_jax.solvers import (
    DISCREPANCIES,
    Counts,
    Discrepancy,
    Divergence,
    Fused,
    Logits,
    MaximumVelocity,
    OptimalPath,
    Reason,
    Solution,
    discrepancy_of,
    kl_map,
    maximum_velocity,
    optimal_path,
)
from solvers import oracles
from solvers.jitted import solve


PATCHES, CLASSES = 36, 3


def problem():
    source, affinity = oracles.scene(PATCHES, CLASSES)
    return jnp.asarray(source, jnp.float32), jnp.asarray(affinity, jnp.float32)


def test_names_are_those_of_the_registry():
    for name, kind in DISCREPANCIES.items():
        assert kind.name == name
        assert discrepancy_of(name) == kind()
        assert hash(discrepancy_of(name)) == hash(kind())


@pytest.mark.parametrize(
    ("discrepancy", "expected"),
    [
        (
            OptimalPath(epsilon=0.05, domain="kernel"),
            lambda s, a: optimal_path(s, a, epsilon=0.05, domain="kernel").path,
        ),
        (
            MaximumVelocity(threshold=0.7),
            lambda s, a: maximum_velocity(s, a, threshold=0.7).velocity,
        ),
        (
            Divergence("target_to_source"),
            lambda s, _: kl_map(s, direction="target_to_source"),
        ),
        (Logits(), lambda s, _: s),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_values_are_those_of_the_functions(discrepancy, expected):
    source, affinity = problem()
    solution = solve(discrepancy, source, affinity)
    assert solution.converged.all()
    np.testing.assert_array_equal(
        solution.value, jax.jit(expected)(source, affinity), strict=True
    )


@pytest.mark.slow
def test_fused_is_the_mean_of_both_scaled_over_all_classes():
    source, affinity = problem()
    parts = OptimalPath(norm="max"), MaximumVelocity()
    solution = Fused(*parts).solve(source, affinity)
    path, velocity = (part.solve(source, affinity) for part in parts)
    scaled = [
        (part.value - part.value.min()) / (part.value.max() - part.value.min())
        for part in (path, velocity)
    ]
    np.testing.assert_allclose(solution.value, sum(scaled) / 2, rtol=1e-6)
    np.testing.assert_array_equal(
        solution.num_steps, path.num_steps + velocity.num_steps
    )
    np.testing.assert_array_equal(solution.error, path.error)  # those of M.V. are 0


@pytest.mark.slow
def test_fused_says_why_the_first_did_not_converge():
    source, affinity = problem()
    capped = Fused(OptimalPath(max_steps=1), MaximumVelocity()).solve(source, affinity)
    assert (capped.reason == Reason.STEP_CAP).all()
    faulty = Fused().solve(source.at[0].set(0), affinity.at[:, 4].set(0))
    assert faulty.reason.tolist() == [Reason.NO_MASS, *[Reason.UNBALANCEABLE] * 2]
    assert np.isnan(faulty.error).all()


@dataclass(frozen=True)
class Propagation(Discrepancy):
    """The one of the documentation: what a person writes."""

    name: ClassVar[str] = "propagation"

    def solve(self, source, affinity=None):
        return Solution.exact(source @ affinity)


def test_one_of_ones_own():
    source, affinity = problem()
    own = Propagation()
    assert own.needs_affinity
    assert own.attempts == (own,)
    assert own.fitted(Counts.of(source)) is own
    solution = solve(own, source, affinity)
    np.testing.assert_allclose(solution.value, source @ affinity, rtol=1e-6)
    assert solution.converged.all()
    assert not solution.error.any()
    assert solve(Fused(own, Divergence()), source, affinity).converged.all()


@pytest.mark.parametrize(
    "discrepancy",
    # The default Fused has the parts of others: a quick one combines them as well.
    [
        *(kind() for kind in DISCREPANCIES.values() if kind is not Fused),
        Fused(Logits(), Logits()),
    ],
    ids=repr,
)
def test_rows_of_zeros_pad_the_classes(discrepancy):
    source, affinity = problem()
    source = source + 0.5 if discrepancy.takes_logits else source  # far from zero
    padded = jnp.concatenate([source, jnp.zeros_like(source)])
    expected = solve(discrepancy, source, affinity)
    found = solve(discrepancy, padded, affinity)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one[: len(source)], other, rtol=1e-5, atol=1e-7)
    assert np.isfinite(found.value).all()
    assert not found.num_steps[len(source) :].any()


def test_a_discrepancy_is_a_static_argument():
    """Equal ones share a compilation."""
    source, affinity = problem()
    count = 0

    def counted(discrepancy, source, affinity):
        nonlocal count
        count += 1
        return discrepancy.solve(source, affinity).value

    counted = jax.jit(counted, static_argnums=0)
    for epsilon in (0.1, 0.1, 0.2):
        counted(OptimalPath(epsilon=epsilon, domain="kernel"), source, affinity)
    assert count == 2


def test_a_fitted_path_reads_what_the_counts_say():
    source, affinity = problem()
    counts = Counts.of(source, step=8)
    assert counts == Counts(12, 12, CLASSES, PATCHES, step=8)
    fitted = OptimalPath().fitted(counts)
    assert fitted == OptimalPath(support=16)
    assert not fitted.wants_counts
    assert fitted.fitted(counts._replace(rows=30)) is fitted
    np.testing.assert_allclose(
        solve(fitted, source, affinity).value,
        solve(OptimalPath(), source, affinity).value,
        rtol=1e-6,
    )
    assert Fused().fitted(counts) == Fused(fitted, MaximumVelocity())
    assert Fused().wants_counts
    assert not Fused(fitted, MaximumVelocity()).wants_counts


def test_attempts():
    """What the kernel leaves is solved by the next attempt; what it solved stays."""
    source, affinity = problem()
    source = source.at[0].set(jnp.eye(PATCHES)[4] + jnp.eye(PATCHES)[5])
    whole = OptimalPath(epsilon=1e-2)
    first, last = whole.attempts
    assert first == replace(whole, domain="kernel")
    assert last == whole
    tried = solve(first, source, affinity)
    assert tried.reason[0] == Reason.KERNEL_UNDERFLOW
    again = solve(last, source, affinity)
    assert Reason(int(again.reason[0])).is_solved
    np.testing.assert_array_equal(again.value[1:], tried.value[1:])
    assert first.attempts == (first,)
    velocity = MaximumVelocity()
    assert Fused(whole, velocity).attempts == (
        Fused(first, velocity),
        Fused(whole, velocity),
    )
    assert Fused(velocity, velocity).attempts == (Fused(velocity, velocity),)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: discrepancy_of("pth"), r"`name` is 'pth', expected one of \('veloc"),
        (lambda: discrepancy_of("path", eps=1.0), "`eps` is no option of 'path'"),
        (lambda: discrepancy_of("path", epsilon=0.0), "`epsilon` is 0.0, expected"),
        (lambda: OptimalPath(epsilon="0.1"), "`epsilon` is '0.1', expected a number"),
        (lambda: OptimalPath(tolerance=-1.0), "`tolerance` is -1.0"),
        (lambda: OptimalPath(max_steps=1.5), "`max_steps` is 1.5, expected an int"),
        (lambda: OptimalPath(norm="l2"), "`norm` is 'l2', expected one of"),
        (lambda: OptimalPath(domain="f"), "`domain` is 'f', expected one of"),
        (lambda: OptimalPath(support=0), "`support` is 0, expected an integer >= 1"),
        (lambda: OptimalPath(support=2, pairs=2), "give one"),
        (lambda: MaximumVelocity(threshold=2.0), "`threshold` is 2.0, expected"),
        (lambda: MaximumVelocity(criterion="x"), "`criterion` is 'x', expected"),
        (lambda: MaximumVelocity(balancing_steps=0), "`balancing_steps` is 0"),
        (lambda: MaximumVelocity(max_steps=-3), "`max_steps` is -3"),
        (lambda: Divergence(direction="both"), "`direction` is 'both', expected"),
        (lambda: Fused(Logits(), OptimalPath()), "`first` is 'logits' and `second`"),
    ],
)
def test_options_are_judged_where_they_are_given(unchecked, build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("kind", [OptimalPath, MaximumVelocity, Fused])
def test_a_missing_affinity_is_refused(kind):
    source, _ = problem()
    assert kind().needs_affinity
    with pytest.raises(ValueError, match="`affinity` is None, expected"):
        kind().solve(source)
