"""The recipe of the bundled DINO, on few and small views."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import QUICK_COMPILE

from dslo_jax import scenes
from dslo_jax.demo.train import dino
from dslo_jax.demo.train.loop import train
from dslo_jax.models.proxy import load_proxy


TINY = dino.Views(scenes=2, large=32, small=16, count=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("dino")


@pytest.fixture(scope="module")
def recipe(folder):
    config = dino.configuration()
    config |= {"num_hidden_layers": 1, "hidden_size": 16, "image_size": 32}
    config |= {"intermediate_size": 32, "num_attention_heads": 2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dino, "_VIEWS", TINY)
        patch.setattr(dino, "configuration", lambda: config)
        recipe = dino.dino_recipe(folder, steps=5)
        step = jnp.asarray(0, jnp.int32)
        begun = jax.eval_shape(recipe.begin)
        lowered = recipe.update.lower(begun, recipe.batch(0), step)
    return dataclasses.replace(recipe, update=lowered.compile(QUICK_COMPILE))


def test_a_batch_is_pixels_alone_and_depends_on_seed_and_step():
    first, again = (dino.draw_views(TINY, 3, seed=0) for _ in range(2))
    assert {name: value.shape for name, value in first.items()} == {
        "large": (4, 32, 32, 3),
        "small": (4, 16, 16, 3),
    }
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
        others = dino.draw_views(TINY, 4, seed=0), dino.draw_views(TINY, 3, seed=1)
        for other in others:
            assert not np.array_equal(first[name], other[name])


def test_no_other_training_sees_the_scenes():
    first = dino.first_seed(dino._FIRST_STEP)
    assert first - scenes.FIRST_TRAINING_SEED > 64 * 250_000


def test_an_interrupted_training_continues_exactly(recipe, folder, tmp_path):
    whole = train(recipe, tmp_path / "whole", every=2)
    part = dataclasses.replace(recipe, steps=2)
    train(part, tmp_path / "parts", every=2)
    parts = train(recipe, tmp_path / "parts", every=2)
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        np.testing.assert_array_equal(one, other)
    curves = [(tmp_path / n / "dino.jsonl").read_text() for n in ("whole", "parts")]
    assert curves[0] == curves[1]
    network = load_proxy(folder)
    pixels = jnp.full((1, 32, 24, 3), 0.5)
    assert np.isfinite(network(pixels)).all()


def test_the_teacher_is_the_average_and_gets_no_slope(recipe):
    begun = recipe.begin()
    before = jax.tree.map(np.array, begun)
    after, metrics = recipe.update(begun, recipe.batch(0), jnp.asarray(0, jnp.int32))
    moved = jax.tree.map(
        lambda old, new: (1 - dino._TEACHER_MEMORY) * (np.asarray(new) - old),
        before.average,
        after.params,
    )
    for old, new, change in zip(
        *map(jax.tree.leaves, (before.average, after.average, moved)), strict=True
    ):
        np.testing.assert_allclose(np.asarray(new) - old, change, atol=1e-6)
    assert set(metrics) == {"whole", "patches", "spread"}
    assert 0 < metrics["spread"] <= 1
