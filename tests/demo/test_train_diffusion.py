"""The bundled diffusion checkpoint: its recipes, and that diffusers loads the result.

diffusers computes every prediction, every decoded pixel and the noise a second time.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from checkpoints import diffusion as checkpoints
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from flax import nnx
from quick import QUICK_COMPILE

from dslo_jax import pairs, prompts, scenes
from dslo_jax.attention import AffinityOptions, DiffusionAffinity
from dslo_jax.demo.train import diffusion
from dslo_jax.demo.train.denoiser import Autoencoder, Denoiser
from dslo_jax.models.unet_config import UNetConfig
from dslo_jax.models.vae import VAEConfig
from dslo_jax.weights import load_module, open_weights, read_config


_TOLERANCE = 2e-5

_VAE = diffusion.VAE_CONFIG | {
    "block_out_channels": [4, 8],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "norm_num_groups": 2,
}
_UNET = diffusion.UNET_CONFIG | {
    "block_out_channels": [8],  # one level; tests of the UNet have several
    "down_block_types": ["CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D"],
    "layers_per_block": 1,
    "attention_head_dim": [2],
    "norm_num_groups": 4,
}
_SCHEDULE = (diffusion.Windows(32, 2),)


def _recipes(folder, steps: int = 8):
    """The two recipes; the second needs what the first has saved."""
    options = {"steps": steps, "schedule": _SCHEDULE, "rate": 3e-3}
    yield _begun_at_once(diffusion.autoencoder_recipe(folder, settings=_VAE, **options))
    clip = pairs.BUNDLED["demo"] / "clip"
    yield _begun_at_once(
        diffusion.denoiser_recipe(folder, settings=_UNET, clip=clip, **options)
    )


def _begun_at_once(recipe):
    """Its first progress as one program: step by step, each shape would be several."""
    begin = jax.jit(recipe.begin, compiler_options=QUICK_COMPILE)
    return dataclasses.replace(recipe, begin=begin)


def _shaken(progress, seed: int):
    """Every averaged parameter moved, biases too, so that a lost one would show."""
    rng = np.random.default_rng(seed)
    return progress._replace(
        average=jax.tree.map(
            lambda leaf: jnp.asarray(leaf + 0.1 * rng.standard_normal(leaf.shape, "f")),
            jax.device_get(progress.average),
        )
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder, and the two recipes, each of which has saved something there."""
    folder, recipes = tmp_path_factory.mktemp("diffusion"), []
    for seed, recipe in enumerate(_recipes(folder)):
        recipe.save(_shaken(recipe.begin(), seed))
        recipes.append(recipe)
    return folder, recipes


@pytest.fixture(scope="module")
def folder(saved):
    return saved[0]


@pytest.fixture(scope="module")
def trainings(saved):
    """Each recipe with its step, compiled in a hurry."""
    return [(recipe, _quick(recipe)) for recipe in saved[1]]


def _quick(recipe):
    arguments = jax.eval_shape(recipe.begin), recipe.batch(0), jnp.asarray(0)
    return recipe.update.lower(*arguments).compile(QUICK_COMPILE)


def _random(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).standard_normal(shape, np.float32)


def _call(module: nnx.Module, method, *arguments) -> np.ndarray:
    graph, state = nnx.split(module)
    call = jax.jit(
        lambda state, *arguments: method(nnx.merge(graph, state), *arguments),
        compiler_options=QUICK_COMPILE,
    )
    with jax.default_matmul_precision("highest"):
        return np.asarray(call(state, *map(jnp.asarray, arguments)))


def _check(ours: np.ndarray, theirs: torch.Tensor) -> None:
    expected = checkpoints.to_nhwc(theirs)
    assert ours.shape == expected.shape
    assert np.abs(ours - expected).max() <= _TOLERANCE * np.abs(expected).max()


@pytest.mark.slow
def test_diffusers_predicts_the_same_at_every_timestep(folder):
    config = UNetConfig.from_dict(read_config(folder / "unet"))
    ours = load_module(partial(Denoiser, config), open_weights(folder / "unet"))
    theirs = UNet2DConditionModel.from_pretrained(
        folder / "unet", torch_dtype=torch.float32
    )
    latents, context = _random(3, 6, 10, 4), _random(3, 2, config.cross_attention_dim)
    timesteps = np.array([0, 321, 999], np.int32)
    with torch.inference_mode():
        expected = theirs(
            checkpoints.to_nchw(latents),
            torch.from_numpy(timesteps),
            torch.from_numpy(context),
        ).sample
    _check(_call(ours, Denoiser.predict, latents, context, timesteps), expected)


@pytest.mark.slow
def test_diffusers_decodes_and_encodes_the_same(folder):
    config = VAEConfig.from_dict(read_config(folder / "vae"))
    ours = load_module(partial(Autoencoder, config), open_weights(folder / "vae"))
    theirs = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32)
    latents, pixels = _random(2, 5, 3, 4), _random(2, 12, 20, 3)
    with torch.inference_mode():
        decoded = theirs.decode(checkpoints.to_nchw(latents)).sample
        posterior = theirs.encode(checkpoints.to_nchw(pixels)).latent_dist
    _check(_call(ours, Autoencoder.decode, latents), decoded)
    for index, expected in enumerate((posterior.mean, posterior.logvar)):
        found = _call(ours, lambda vae, x, i=index: vae.posterior(x)[i], pixels)
        _check(found, expected)


@pytest.mark.slow
def test_the_pipeline_loads_what_was_saved(folder):
    affinity = DiffusionAffinity.load(folder, options=AffinityOptions(size=32))
    pixels = diffusion.draw_batch(_SCHEDULE[0], 7, 0)["pixels"].astype(np.float32) / 255
    latents = _call(affinity, DiffusionAffinity.encode, pixels)
    theirs = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32)
    expected = checkpoints.latents_of(theirs, 2 * pixels - 1)
    assert np.abs(latents - expected).max() <= _TOLERANCE * np.abs(expected).max()
    assert 0.5 < latents.std() < 2  # the saved factor makes it 1 over many photos
    rows = _call(affinity, DiffusionAffinity.attend, latents).sum(axis=-1)
    np.testing.assert_allclose(rows, 1, atol=1e-5)


def test_noise_is_that_of_the_saved_schedule(folder):
    scheduler = DDIMScheduler.from_pretrained(folder / "scheduler")
    assert scheduler.config["prediction_type"] == "v_prediction"
    latents, noise = _random(3, 2, 2, 4), _random(3, 2, 2, 4)[::-1].copy()
    timesteps = np.array([0, 500, 999], np.int32)
    arguments = (
        checkpoints.to_nchw(latents),
        checkpoints.to_nchw(noise),
        torch.from_numpy(timesteps).long(),
    )
    noisy, velocity = map(
        np.asarray, diffusion.add_noise(*map(jnp.asarray, (latents, noise, timesteps)))
    )
    _check(noisy, scheduler.add_noise(*arguments))
    _check(velocity, scheduler.get_velocity(*arguments))


@pytest.mark.slow
def test_both_losses_fall_on_one_batch(trainings):
    for recipe, update in trainings:
        progress, batch, errors = recipe.begin(), recipe.batch(0), []
        for _ in range(20):  # one step's noise, so that errors compare
            progress, metrics = update(progress, batch, jnp.asarray(0))
            errors.append(float(metrics["error"]))
        assert errors[-1] < 0.8 * errors[0]
        moved = [
            bool((now != first).any())
            for now, first in zip(
                jax.tree.leaves(jax.device_get(progress.average)),
                jax.tree.leaves(jax.device_get(recipe.begin().average)),
                strict=True,
            )
        ]
        assert sum(moved) > 0.9 * len(moved)


@pytest.mark.slow
def test_a_step_depends_on_its_number_alone(trainings):
    recipe, update = trainings[0]
    batches = [recipe.batch(step)["pixels"] for step in (3, 4, 3)]
    assert batches[0].shape == (2, 32, 32, 3)
    assert batches[0].dtype == np.uint8
    np.testing.assert_array_equal(batches[0], batches[2])
    assert (batches[0] != batches[1]).any()
    first, again, other = (
        update(recipe.begin(), {"pixels": batches[0]}, jnp.asarray(step))[1]["error"]
        for step in (3, 3, 4)
    )
    assert first.item() == again.item() != other.item()


def test_no_scene_is_drawn_twice_nor_held_out(monkeypatch):
    seeds = []
    draw = scenes.draw_scene
    monkeypatch.setattr(
        scenes, "draw_scene", lambda seed: (seeds.append(seed), draw(seed))[1]
    )
    for step in range(3):
        diffusion.draw_batch(diffusion.Windows(32, 4), step, 0)
    assert len(set(seeds)) == len(seeds) > 3
    assert min(seeds) >= scenes.FIRST_TRAINING_SEED


def test_captions_are_all_that_the_denoiser_hears_of_a_window():
    tokenizer = prompts.load_tokenizer(pairs.BUNDLED["demo"] / "clip")
    windows = diffusion.Windows(32, 40)
    batch = diffusion.draw_captioned(tokenizer, windows, 0, 0)
    assert set(batch) == {"pixels", "captions"}
    np.testing.assert_array_equal(
        batch["pixels"], diffusion.draw_batch(windows, 0, 0)["pixels"]
    )
    (empty,) = prompts.tokenize(tokenizer, [""], length=batch["captions"].shape[1])
    wordless = (batch["captions"] == empty).all(axis=1)
    assert 0 < wordless.sum() < len(wordless) / 2


def test_the_schedule_is_spread_over_the_run():
    small, large = diffusion.Windows(32, 4), diffusion.Windows(64, 1)
    found = [diffusion.windows_at((small, small, large), i, 9) for i in range(9)]
    assert found == [small] * 6 + [large] * 3
