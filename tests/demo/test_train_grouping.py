"""The stage in which the attention of the bundled UNet learns to group."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dslo_jax import pairs, scenes
from dslo_jax.demo.train import grouping
from dslo_jax.models.clip import load_clip


DEMO = pairs.BUNDLED["demo"]


@pytest.fixture(scope="module")
def recipe():
    return grouping.grouping_recipe(DEMO / "diffusion", steps=10)


@pytest.fixture(scope="module")
def batch(recipe):
    return recipe.batch(3)


def _names(groups: list[int]) -> jnp.ndarray:
    return jax.nn.one_hot(jnp.asarray(groups), 3)[None]


def _equal(groups: list[int]) -> np.ndarray:
    same = np.equal.outer(groups, groups)
    return (same / same.sum(axis=1, keepdims=True))[None].astype(np.float32)


def test_attention_that_stays_in_its_group_loses_nothing():
    groups = [0, 0, 0, 1, 1, 2]
    spread, leak, kept = grouping.grouped(_names(groups), jnp.asarray(_equal(groups)))
    assert leak == pytest.approx(0, abs=1e-5)
    assert kept == pytest.approx(1, abs=1e-5)
    for other in ([0, 0, 1, 1, 1, 2], [0, 0, 0, 0, 0, 0]):
        worse = grouping.grouped(_names(groups), jnp.asarray(_equal(other)))
        assert worse[0] > spread
        assert worse[1] > 0.05
        assert worse[2] < 0.95


def test_attention_to_itself_alone_is_not_a_group():
    groups = [0, 0, 0, 1, 1, 2]
    best, _, _ = grouping.grouped(_names(groups), jnp.asarray(_equal(groups)))
    alone = jnp.eye(len(groups))[None]
    spread, leak, _ = grouping.grouped(_names(groups), alone)
    assert leak == pytest.approx(0, abs=1e-5)
    assert spread > best + 1


def test_a_small_group_counts_more_than_its_part():
    groups = [0] * 15 + [1]
    attention = np.array(_equal(groups))
    attention[0, 15] = 1 / 16  # the small group attends everywhere
    _, _, kept = grouping.grouped(_names(groups), jnp.asarray(attention))
    assert 1 - float(kept) > 2 / 16 * (1 - 1 / 16)


def test_a_batch_tells_names_of_tiles_and_no_places(batch):
    photos, classes = len(batch["photos"]), len(scenes.CLASSES)
    assert set(batch) == {
        *("pixels", "captions", "photos", "large", "sentences"),
        *("present0", "present2"),
    }
    assert batch["present0"].shape == (photos * 8**2, classes)
    assert batch["present2"].shape == (photos * 7**2, classes)
    assert batch["present0"].any(axis=1).all()


def test_the_teacher_gives_patches_only_names_of_their_tiles(batch):
    clip = load_clip(DEMO / "clip")
    names = np.asarray(jax.jit(partial(grouping.teach, clip))(batch))
    np.testing.assert_allclose(names.sum(axis=2), 1, atol=1e-4)
    known = batch["present0"].reshape(len(names), 8, 8, -1)
    # Patches at the edge of the photo are in one tile alone.
    corner = names.reshape(len(names), 32, 32, -1)[:, 0, 0]
    assert not corner[~known[:, 0, 0]].any()


@pytest.mark.slow
def test_the_step_can_be_traced_and_names_its_losses(recipe, batch):
    progress = recipe.begin()
    _, metrics = jax.eval_shape(recipe.update, progress, batch, jnp.asarray(0))
    assert set(metrics) == {"error", "spread", "leak", "kept"}


def test_the_part_before_the_fall_is_the_same_for_any_number_of_steps():
    short, long = (grouping.rates(1.0, steps) for steps in (200, 1000))
    assert [float(short(step)) for step in (0, 25, 139)] == pytest.approx(
        [float(long(step)) for step in (0, 25, 139)]
    )
    assert float(short(199)) < 0.05
