"""Class reduction, rejection, suppression and normalisation."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dslo_jax.ops import normalize, reduce_synonyms, reject_classes, suppress


METHODS = ["minmax", "softmax", "relative", "none"]


def cosines(classes=5, patches=40, seed=0):
    values = np.random.default_rng(seed).normal(0.25, 0.03, size=(classes, patches))
    return values.astype(np.float32)


def expected_keep(logits, method, threshold, scale=100.0):
    """The definitions, in float64 and one class at a time."""
    logits = logits.astype(np.float64)
    powers = np.exp(scale * (logits - logits.max(axis=0)))
    probability = powers / powers.sum(axis=0)
    keep = np.zeros(logits.shape, bool)
    for c, (row, confidence) in enumerate(zip(logits, probability, strict=True)):
        if method == "minmax":
            score = (row - row.min()) / (row.max() - row.min())
            keep[c] = score >= threshold
        elif method == "softmax":
            score = confidence
            keep[c] = score >= threshold
        elif method == "relative":
            score = confidence
            keep[c] = score >= threshold * score.max()
        else:
            keep[c] = True
        if not keep[c].any():
            keep[c, score.argmax()] = True
    return keep


def test_synonyms_are_merged_by_maximum():
    logits, names = cosines(classes=4), (1, 0, 1, 2)
    expected = [logits[1], logits[[0, 2]].max(axis=0), logits[3]]
    for class_of_name in (names, np.array(names), jnp.array(names)):
        merged = reduce_synonyms(jnp.asarray(logits), class_of_name, 3)
        np.testing.assert_array_equal(merged, expected)


def test_synonym_lists_of_equal_length_share_a_program():
    traces = []

    @jax.jit
    def merge(logits, class_of_name):
        traces.append(None)
        return reduce_synonyms(logits, class_of_name, 2)

    merge(jnp.ones((3, 2)), jnp.array([0, 0, 1]))
    merge(jnp.ones((3, 2)), jnp.array([0, 1, 1]))
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("names", "message"),
    [((0, 2), "each of 0 to 2"), ((0, 5), "each of 0 to 2"), ((0, 1, 2), "3 entries")],
)
def test_synonym_lists_that_fit_no_class_list_are_refused(names, message):
    with pytest.raises(ValueError, match=message):
        reduce_synonyms(jnp.ones((2, 4)), names, 3)


def test_a_class_stays_when_it_wins_a_patch():
    logits = jnp.array([[1.0, 0.0, 0.5], [0.9, 0.1, 0.4], [1.0, 0.1, 0.0]])
    # Patch 0 is a tie of classes 0 and 2, patch 1 of classes 1 and 2.
    np.testing.assert_array_equal(reject_classes(logits), [True, True, False])


def test_rejection_equals_the_unique_winners():
    logits = cosines(classes=30, patches=20)
    stays = np.isin(np.arange(30), np.unique(logits.argmax(axis=0)))
    np.testing.assert_array_equal(reject_classes(jnp.asarray(logits)), stays)


@pytest.mark.parametrize("share", [0.0, 0.04, 0.05, 0.1, 0.3, 0.99])
def test_a_class_stays_when_it_wins_more_than_a_share(share):
    logits = cosines(classes=8, patches=20)
    wins = np.bincount(logits.argmax(axis=0), minlength=8)
    stays = wins > 20 * share
    if not stays.any():
        stays = wins == wins.max()
    found = reject_classes(jnp.asarray(logits), share=share)
    np.testing.assert_array_equal(found, stays)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("threshold", [0.3, 0.9])
def test_suppression_equals_its_definition(method, threshold):
    logits = cosines()
    keep = suppress(jnp.asarray(logits), method=method, threshold=threshold)
    np.testing.assert_array_equal(keep, expected_keep(logits, method, threshold))


@pytest.mark.parametrize("method", METHODS)
def test_flat_maps_keep_everything(method):
    assert suppress(jnp.full((5, 40), 0.2), method=method).all()


@pytest.mark.parametrize("method", ["softmax", "relative"])
def test_a_class_that_is_never_sure_keeps_its_best_in_one_program(method):
    """One program computes its score twice, with different rounding."""

    @jax.jit
    @jax.vmap
    def both(logits):
        keep = suppress(logits, method=method, threshold=1.0)
        return keep, normalize(logits, keep, scale=100.0)

    generator = np.random.default_rng(0)
    logits = generator.normal(0.1, 0.01, (4, 20, 256)).astype(np.float32)
    keep, source = both(jnp.asarray(logits))
    assert keep.any(axis=2).all()
    np.testing.assert_allclose(source.sum(axis=2), 1, rtol=1e-5)


def test_a_flat_class_among_others_keeps_everything_by_minmax():
    logits = jnp.asarray(cosines()).at[2].set(0.25)
    keep = suppress(logits, method="minmax")
    assert keep[2].all()
    assert not keep[1].all()


@pytest.mark.parametrize("method", ["softmax", "relative"])
def test_a_hopeless_class_keeps_its_best_patch_alone(method):
    logits = cosines(classes=2)
    logits[1] -= 5.0  # exp(-500): its probability is 0 in float32, everywhere
    margin = (logits[1] - logits[0]).astype(np.float64)
    keep = np.asarray(suppress(jnp.asarray(logits), method=method))
    np.testing.assert_array_equal(np.flatnonzero(keep[1]), [margin.argmax()])


@pytest.mark.parametrize("method", METHODS)
def test_every_threshold_leaves_a_patch_and_zero_keeps_all(method):
    logits = jnp.asarray(cosines())
    assert suppress(logits, method=method, threshold=1.0).any(axis=1).all()
    assert suppress(logits, method=method, threshold=0.0).all()


@pytest.mark.parametrize("method", METHODS)
def test_inactive_rows_change_nothing(method):
    logits = cosines()
    padded = np.concatenate([logits, np.full((3, 40), 0.9, np.float32)])
    active = jnp.arange(8) < 5
    keep = suppress(jnp.asarray(padded), method=method, active=active)
    np.testing.assert_array_equal(
        keep[:5], suppress(jnp.asarray(logits), method=method)
    )
    assert keep.any(axis=1).all()


def test_sources_are_distributions_over_the_kept_patches():
    logits = cosines()
    keep = suppress(jnp.asarray(logits))
    for scale in (1.0, 100.0):
        source = np.asarray(normalize(jnp.asarray(logits), keep, scale=scale))
        powers = np.where(keep, np.exp(scale * logits.astype(np.float64)), 0)
        expected = powers / powers.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(source, expected, rtol=2e-5)
        np.testing.assert_allclose(source.sum(axis=1), 1, atol=1e-6)
        assert (source[~np.asarray(keep)] == 0).all()


def test_large_scales_stay_finite():
    logits = jnp.array([[30.0, -30.0], [0.0, 1.0]])
    source = normalize(logits, jnp.array([[True, True], [False, True]]), scale=100.0)
    np.testing.assert_array_equal(source, [[1.0, 0.0], [0.0, 1.0]])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_class_that_is_not_finite_is_not_made_to_look_usable(method, bad):
    logits = jnp.asarray(cosines()).at[1, 3].set(bad)
    source = normalize(logits, suppress(logits, method=method))
    assert jnp.isnan(source[1]).any()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float64])
def test_other_precisions_become_float32(dtype):
    logits = jnp.asarray(cosines(), dtype)
    source = normalize(logits, suppress(logits))
    assert source.dtype == jnp.float32
    np.testing.assert_allclose(source.sum(axis=1), 1, atol=1e-6)


def test_jit_and_vmap_change_nothing():
    batch = jnp.asarray(np.stack([cosines(seed=1), cosines(seed=2)]))

    def source(logits):
        return normalize(logits, suppress(logits, method="softmax")), reject_classes(
            logits
        )

    mapped = jax.jit(jax.vmap(source))(batch)
    for i, logits in enumerate(batch):
        expected = source(logits)
        np.testing.assert_allclose(mapped[0][i], expected[0], rtol=1e-6)
        np.testing.assert_array_equal(mapped[1][i], expected[1])


def test_misuse_is_named():
    with pytest.raises(ValueError, match=r"threshold must lie in \[0, 1\], got 90"):
        suppress(jnp.ones((2, 3)), threshold=90.0)
    with pytest.raises(ValueError, match="unknown method 'max'"):
        inspect.unwrap(suppress)(jnp.ones((2, 3)), method="max")  # as without beartype
