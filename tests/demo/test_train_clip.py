"""The recipe of the bundled CLIP, on few and small windows."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from quick import QUICK_COMPILE

from dslo_jax import prompts, scenes
from dslo_jax.demo.tokenizer import write_tokenizer
from dslo_jax.demo.train import clip, clip_batches, clip_losses
from dslo_jax.demo.train.loop import train
from dslo_jax.models.clip import Clip


TINY = clip_batches.Windows(side=16, count=6, per_scene=3, names=4, tokens=40)
TILED = TINY._replace(tiles=2)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder, clip.words())
    return prompts.load_tokenizer(folder)


def _smaller(configuration):
    """One block and few channels: what is left compiles in seconds."""

    def shrink(vocabulary):
        config = configuration(vocabulary)
        for part in ("text_config", "vision_config"):
            config[part] |= {"num_hidden_layers": 1, "hidden_size": 16}
            config[part] |= {"intermediate_size": 32, "num_attention_heads": 2}
        return config

    return shrink


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.setattr(clip, "SMALL", (TINY,))
    monkeypatch.setattr(clip, "MIXED", (TINY,))
    monkeypatch.setattr(clip, "configuration", _smaller(clip.configuration))
    return clip.clip_recipe(tmp_path / "clip", steps=6)


def _quick(recipe):
    """The recipe with its step compiled in a hurry."""
    step = jnp.asarray(0, jnp.int32)
    lowered = recipe.update.lower(jax.eval_shape(recipe.begin), recipe.batch(0), step)
    return dataclasses.replace(recipe, update=lowered.compile(QUICK_COMPILE))


def test_a_batch_depends_on_seed_and_step_alone(tokenizer):
    first, again = (clip_batches.draw_batch(tokenizer, TINY, 3, 0) for _ in range(2))
    other = clip_batches.draw_batch(tokenizer, TINY, 4, 0)
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
    assert not np.array_equal(first["pixels"], other["pixels"])


def test_no_word_of_a_caption_is_spelled_in_pieces(tokenizer):
    rng = np.random.default_rng(0)
    for _ in range(200):
        text = scenes.caption(rng.permutation(scenes.NAMES)[:5].tolist(), rng)
        words = text.replace(",", " ,").replace("-", " - ").split()
        assert len(tokenizer(text)["input_ids"]) == len(words) + 2, text


@pytest.mark.parametrize("windows", [*clip.SMALL, *clip.MIXED, *clip.TILED])
def test_the_longest_caption_fits(tokenizer, windows):
    rng = np.random.default_rng(0)
    captions = [
        scenes.caption(rng.permutation(scenes.NAMES)[: windows.names].tolist(), rng)
        for _ in range(500)
    ]
    prompts.tokenize(tokenizer, captions, length=windows.tokens)


@pytest.mark.parametrize(("windows", "tiles"), [(TINY, 6), (TILED, 24)])
def test_nothing_of_the_truth_but_names_reaches_the_network(tokenizer, windows, tiles):
    batch = clip_batches.draw_batch(tokenizer, windows, 0, 0)
    shapes = {name: value.shape for name, value in batch.items()}
    assert shapes.pop("pixels") == (6, 16, 16, 3)
    assert shapes.pop("present") == (tiles, len(scenes.NAMES))
    assert set(shapes) == {"sentences", "captions", "same"}


def test_a_window_shows_what_its_tiles_show(tokenizer):
    whole = clip_batches.draw_batch(tokenizer, TINY, 0, 0)
    cut = clip_batches.draw_batch(tokenizer, TILED, 0, 0)
    np.testing.assert_array_equal(whole["pixels"], cut["pixels"])
    tiles = cut["present"].reshape(6, 4, -1)
    assert (tiles.any(axis=1) >= whole["present"]).all()
    assert not (tiles == tiles[:, :1]).all()


def test_tiles_are_cut_and_joined_row_by_row():
    rng = np.random.default_rng(0)
    windows = rng.random((2, 12, 12, 3), dtype=np.float32)
    tiles = clip_losses.cut(jnp.asarray(windows), 3)
    expected = [
        window[4 * i : 4 * i + 4, 4 * j : 4 * j + 4]
        for window in windows
        for i in range(3)
        for j in range(3)
    ]
    np.testing.assert_array_equal(tiles, np.stack(expected))
    joined = clip_losses.joined(tiles.reshape(18, 16, 3), 3)
    np.testing.assert_array_equal(joined, windows.reshape(2, 144, 3))


def test_a_patch_may_be_any_of_the_names_of_its_window():
    logits = jnp.asarray([[[9.0, 0.0, 0.0], [0.0, 9.0, 0.0]]])
    both = clip_losses.explained(logits, jnp.asarray([[True, True, False]]))
    one = clip_losses.explained(logits, jnp.asarray([[True, False, False]]))
    assert both < 1e-3
    assert one > 4


def test_patches_are_shared_out_among_the_names_of_their_window():
    """All three look like the first name: one of them is still the second's."""
    logits = jnp.asarray([[[3.0, 0.0, 0.0], [3.0, 0.0, 0.0], [3.0, 1.0, 0.0]]])
    present = jnp.asarray([[True, True, False]])
    slopes = jax.jit(jax.grad(clip_losses.shared_out), compiler_options=QUICK_COMPILE)
    slope = slopes(logits, present)[0]
    assert slope[2, 1] < 0 < slope[2, 0]
    assert slope[0, 1] < 0
    assert (slope[:, 2] > 0).all()
    alone = slopes(logits, jnp.asarray([[True, False, False]]))[0]
    assert (alone[:, 0] < 0).all()
    assert (alone[:, 1:] > 0).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("later", "phase", "windows"),
    [
        ("sharing", "SHARED", TINY),
        ("tiling", "TILED", TILED),
        ("keys", "TILED", TILED),
    ],
)
def test_a_later_stage_goes_on_from_what_is_there(
    recipe, tmp_path, monkeypatch, later, phase, windows
):
    monkeypatch.setattr(clip, phase, (windows,))
    recipe.save(recipe.begin())
    stage = getattr(clip, f"{later}_recipe")(tmp_path / "clip", steps=2)
    begun = stage.begin()
    assert begun.params["logit_scale"][...].shape == ()
    final = train(stage, tmp_path / "run", every=2, report=lambda line: None)
    moved = jax.tree.map(
        lambda a, b: float(abs(a - b).max()), begun.params, final.params
    )
    assert 0 < max(jax.tree.leaves(moved)) < 1
    assert (tmp_path / "run" / f"{later}.jsonl").read_text()


def test_every_name_wants_a_patch():
    logits = jnp.asarray([[[9.0, 0.0, 0.0], [0.0, 9.0, 0.0]]])
    there = clip_losses.found(logits, jnp.asarray([[True, True, False]]))
    absent = clip_losses.found(logits, jnp.asarray([[True, True, True]]))
    assert there < 1e-2
    assert absent > 2


@pytest.mark.slow
def test_an_interrupted_run_ends_where_the_whole_one_does(recipe, tmp_path):
    recipe = _quick(recipe)
    whole = train(recipe, tmp_path / "whole", every=3, report=lambda line: None)

    def fail_at_four(step):
        if step == 4:
            raise KeyboardInterrupt
        return recipe.batch(step)

    broken = dataclasses.replace(recipe, batch=fail_at_four)
    with pytest.raises(KeyboardInterrupt):
        train(broken, tmp_path / "parts", every=3, report=lambda line: None)
    parts = train(recipe, tmp_path / "parts", every=3, report=lambda line: None)
    jax.tree.map(np.testing.assert_array_equal, parts.params, whole.params)
    curves = [(tmp_path / run / "clip.jsonl").read_text() for run in ("whole", "parts")]
    assert curves[0] == curves[1]


def test_transformers_loads_what_was_saved(recipe, tmp_path):
    import torch
    from transformers import CLIPModel

    from dslo_jax.models.clip import load_clip
    from torch_bridge import to_jax

    recipe.save(recipe.begin())
    theirs = CLIPModel.from_pretrained(tmp_path / "clip", dtype=torch.float32)
    ours = load_clip(tmp_path / "clip")
    batch = recipe.batch(0)
    ids = batch["captions"]
    with torch.no_grad():
        text = theirs.get_text_features(torch.from_numpy(ids).long())
    text = to_jax(getattr(text, "pooler_output", text))
    text = text / jnp.linalg.norm(text, axis=-1, keepdims=True)
    encoded = nnx.jit(Clip.encode_text)(ours, jnp.asarray(ids))
    np.testing.assert_allclose(encoded, text, atol=2e-5)
