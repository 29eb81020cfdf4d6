"""Noise on the latents, against the schedulers of diffusers."""

import dataclasses
import json

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from quick import QUICK_COMPILE

from dslo_jax.attention import AffinityOptions, DiffusionAffinity, load_affinity
from dslo_jax.errors import CheckpointError, OptionError
from dslo_jax.models.noise_schedule import (
    FILE_NAME,
    NoiseSchedule,
    add_noise,
    noise_of,
    read_schedule,
)


# As in the files of Stable Diffusion 1 and 2.
STABLE = {
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
}


@pytest.fixture(scope="module")
def folder(pipeline):
    """A pipeline with the schedule of Stable Diffusion 2, which predicts velocities."""
    folder, _ = pipeline
    scheduler = diffusers.DDIMScheduler(**STABLE, prediction_type="v_prediction")
    scheduler.save_pretrained(folder / "scheduler")
    return folder


@pytest.fixture(scope="module")
def source(folder, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DSLO_CACHE", str(tmp_path_factory.mktemp("cache")))
        return load_affinity(folder, options=AffinityOptions(size=16))


@pytest.mark.parametrize("name", ["DDPMScheduler", "DDIMScheduler", "PNDMScheduler"])
@pytest.mark.parametrize("schedule", ["scaled_linear", "linear"])
def test_noise_is_added_as_diffusers_adds_it(tmp_path, name, schedule):
    """At the first, a middle and the last timestep."""
    scheduler = getattr(diffusers, name)(**{**STABLE, "beta_schedule": schedule})
    scheduler.save_pretrained(tmp_path / "scheduler")
    ours = read_schedule(tmp_path)
    latents = np.random.default_rng(0).standard_normal((2, 5, 7, 4)).astype(np.float32)
    noise = np.asarray(noise_of(11, (5, 7, 4)))
    for timestep in (0, 261, 999):
        expected = scheduler.add_noise(
            torch.from_numpy(latents),
            torch.from_numpy(np.stack([noise] * 2)),
            torch.tensor([timestep] * 2),
        )
        found = add_noise(jnp.asarray(latents), 11, ours.kept(timestep))
        np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-5)


def test_defaults_are_those_of_diffusers(tmp_path):
    scheduler = diffusers.DDPMScheduler()
    kept = [NoiseSchedule.from_dict({}).kept(step) for step in (0, 500, 999)]
    np.testing.assert_allclose(kept, scheduler.alphas_cumprod[[0, 500, 999]], rtol=1e-4)
    assert NoiseSchedule.from_dict(STABLE) == NoiseSchedule(True, 0.00085, 0.012, 1000)


def test_noise_is_normal_and_depends_on_nothing_but_seed_and_shape():
    noise = np.asarray(noise_of(3, (64, 64, 4)))
    assert noise.dtype == np.float32
    assert abs(noise.mean()) < 0.03
    assert abs(noise.std() - 1) < 0.02
    assert np.abs(noise - np.asarray(noise_of(4, (64, 64, 4)))).max() > 1
    with jax.threefry_partitionable(False), jax.default_prng_impl("rbg"):
        again = jax.jit(lambda: noise_of(3, (64, 64, 4)))()
    np.testing.assert_array_equal(again, noise)
    # Written down, so that another version of JAX does not change results unnoticed.
    known = [-1.4462570, 1.5393810, 0.3825063, 1.9707018]
    np.testing.assert_allclose(noise[0, 0], known, rtol=1e-5)


def test_every_photo_gets_the_same_noise():
    latents = jax.random.normal(jax.random.key(1), (3, 8, 8, 4))
    together = add_noise(latents, 7, 0.25)
    for place in range(3):
        alone = add_noise(latents[place][None], 7, 0.25)
        np.testing.assert_array_equal(together[place], alone[0])
    noise = together - 0.5 * latents
    np.testing.assert_allclose(noise[0], noise[2], atol=1e-6)


def test_the_attention_is_that_of_the_noisy_latents(source):
    options = AffinityOptions(size=16, timestep=300)
    noisy = source.with_options(dataclasses.replace(options, noise_seed=7))
    call = jax.jit(lambda source, x: source.attend(x), compiler_options=QUICK_COMPILE)
    latents = jax.random.normal(jax.random.key(1), (2, 8, 8, 4))
    found = np.asarray(call(noisy, latents))
    kept = NoiseSchedule.from_dict(STABLE).kept(300)
    plain = source.with_options(options)
    by_hand = call(plain, add_noise(latents, 7, kept))
    np.testing.assert_allclose(found, by_hand, rtol=1e-4, atol=1e-7)
    for other in (latents, add_noise(latents, 8, kept)):
        assert np.abs(call(plain, other) - found).max() > 0.1 * found.max()


def test_half_precision_gets_the_same_noise():
    latents = jnp.ones((1, 8, 8, 4), jnp.bfloat16)
    found = add_noise(latents, 5, 0.25)
    assert found.dtype == jnp.float32
    expected = add_noise(latents.astype(jnp.float32), 5, 0.25)
    np.testing.assert_array_equal(found, expected)


def test_the_encoder_does_not_depend_on_the_noise(source):
    noisy = source.with_options(AffinityOptions(size=16, noise_seed=0))
    assert noisy.encoding == source.encoding
    assert noisy.options.noise_seed == 0
    assert source.kept is None, "the first one is unchanged"


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (lambda path: path.unlink(), "W01", "has no scheduler/scheduler_config.json"),
        ({"beta_schedule": "squaredcos_cap_v2"}, "W06", "beta_schedule = 'squaredcos"),
        ({"trained_betas": [0.1, 0.2]}, "W06", "trained_betas"),
        ({"rescale_betas_zero_snr": True}, "W06", "rescale_betas_zero_snr = True"),
        ({"beta_end": 1.5}, "W06", "beta_end = 1.5"),
        ({"num_train_timesteps": 0}, "W06", "num_train_timesteps = 0"),
        (lambda path: path.write_text("{"), "W08", "scheduler_config.json"),
        ({"num_train_timesteps": 100}, "O01", r"timestep = 300.*0 \.\.\. 99"),
    ],
)
def test_a_schedule_that_cannot_be_used_is_told_only_where_noise_is_wanted(
    source, tmp_path, change, code, words
):
    path = tmp_path / FILE_NAME
    path.parent.mkdir()
    path.write_text(json.dumps(STABLE))
    if callable(change):
        change(path)
    else:
        path.write_text(json.dumps({**STABLE, **change}))
    context = jnp.zeros((1, 77, 32))
    quiet = AffinityOptions(size=16, timestep=300)
    moved = DiffusionAffinity(source.vae, source.unet, context, quiet, tmp_path)
    with pytest.raises((CheckpointError, OptionError), match=words) as caught:
        moved.with_options(AffinityOptions(size=16, timestep=300, noise_seed=1))
    assert caught.value.code == code


def test_a_source_without_a_folder_has_no_noise(source):
    context = jnp.zeros((1, 77, 32))
    options = AffinityOptions(size=16, noise_seed=1)
    with pytest.raises(OptionError, match=r"noise_seed = 1.*without a folder"):
        DiffusionAffinity(source.vae, source.unet, context, options)


@pytest.mark.parametrize("seed", [-2, 2**31])
def test_seeds_out_of_range_are_refused(seed):
    with pytest.raises(OptionError, match=f"noise_seed = {seed} is out of range"):
        AffinityOptions(noise_seed=seed)
