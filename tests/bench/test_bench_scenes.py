import numpy as np
import pytest

from dslo_jax.bench.scenes import draw_affinity, draw_source


def test_the_affinity_does_not_depend_on_the_blocks_it_is_drawn_in():
    patches = 400  # more than one block
    rng = np.random.default_rng(3)
    place = np.stack(np.divmod(np.arange(patches), 20), axis=1) / 20
    centres = rng.uniform(0, 1, (5, 2))
    region = ((place[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
    distance = ((place[:, None] - place) ** 2).sum(axis=2)
    logits = 3 * (region[:, None] == region) - 12 * distance
    logits = logits + rng.normal(size=(patches, patches)) + 2 * np.eye(patches)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_array_equal(draw_affinity(patches, 3), np.float32(expected))


def test_a_number_of_patches_that_is_no_square_is_refused():
    with pytest.raises(ValueError, match="expected a square number"):
        draw_affinity(1000)


@pytest.mark.parametrize(("patches", "classes"), [(1024, 8), (64, 171)])
def test_every_class_has_mass_and_few_patches_do(patches, classes):
    source = draw_source(patches, classes, seed=5)
    np.testing.assert_allclose(source.sum(axis=1), 1, rtol=1e-5)
    # A hair beyond 15 %: one patch for each class, whatever the dice say.
    assert (source > 0).sum() <= 0.2 * patches + classes
