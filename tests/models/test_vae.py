"""The encoder against diffusers, and the layouts of its files."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from checkpoints import diffusion
from flax import nnx
from quick import QUICK_COMPILE

from dslo_jax.errors import CheckpointError
from dslo_jax.models.vae import VAE, VAEConfig, load_vae


def _run(module: nnx.Module, given):
    """Call a module, or every named part of it that ``given`` has an input for."""
    graph, state = nnx.split(module)

    def call(state, given):
        module = nnx.merge(graph, state)
        if not isinstance(given, dict):
            return module(given)
        return {name: _part(module, name)(value) for name, value in given.items()}

    with jax.default_matmul_precision("highest"):
        compiled = jax.jit(call, compiler_options=QUICK_COMPILE)
        return jax.tree.map(np.asarray, compiled(state, given))


def _part(module: nnx.Module, name: str) -> nnx.Module:
    for step in name.split("."):
        module = module[int(step)] if step.isdigit() else getattr(module, step)
    return module


def _pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).uniform(-1, 1, (*shape, 3)).astype(np.float32)


def _error(ours: np.ndarray, theirs: np.ndarray) -> float:
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def _leaves(vae: VAE) -> dict[tuple, np.ndarray]:
    return {
        path: np.asarray(variable.get_value())
        for path, variable in nnx.to_flat_state(nnx.state(vae))
    }


@pytest.mark.parametrize(
    ("channels", "layers", "sides"),
    [
        ((8,), 1, (9, 7)),
        ((8, 16), 2, (23, 30)),  # 23 is odd: the last row has no partner
        ((8, 8, 16, 16), 1, (40, 56)),  # factor 8, not a power of two, not square
    ],
)
def test_latents_equal_diffusers(tmp_path, channels, layers, sides):
    theirs = diffusion.save_vae(
        tmp_path, seed=len(channels), channels=channels, layers_per_block=layers
    )
    vae = load_vae(tmp_path)
    pixels = _pixels(2, *sides)
    latents = _run(vae, pixels)
    assert _error(latents, diffusion.latents_of(theirs, pixels)) <= 1e-5
    assert latents.shape[1] == sides[0] // vae.config.downscaling


def test_every_block_equals_diffusers(tmp_path):
    theirs = diffusion.save_vae(tmp_path, seed=3).encoder
    names = [
        "conv_in",
        "down_blocks.0.resnets.0",
        "down_blocks.0.downsamplers.0",
        "down_blocks.1",
        "mid_block.attentions.0",
        "mid_block",
    ]
    pixels = diffusion.to_nchw(_pixels(1, 11, 8))
    calls = diffusion.record(theirs, names, lambda: theirs(pixels))
    given = {name: diffusion.to_nhwc(args[0]) for name, (args, _, _) in calls.items()}
    found = _run(load_vae(tmp_path).encoder, given)
    for name, (_, _, expected) in calls.items():
        assert _error(found[name], diffusion.to_nhwc(expected)) <= 2e-5, name


@pytest.mark.parametrize("convolution", [False, True])
def test_legacy_attention_is_the_same_network(tmp_path, convolution):
    diffusion.save_vae(tmp_path, seed=4)
    modern = _leaves(load_vae(tmp_path))
    diffusion.use_legacy_attention(tmp_path, convolution=convolution)
    legacy = _leaves(load_vae(tmp_path))
    assert legacy.keys() == modern.keys()
    for path, value in modern.items():
        np.testing.assert_array_equal(legacy[path], value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files_keep_their_values(tmp_path, dtype):
    theirs = diffusion.save_vae(tmp_path, seed=5, dtype=dtype, max_shard_size="8KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    leaves = _leaves(load_vae(tmp_path))
    assert all(value.dtype == np.float32 for value in leaves.values())
    expected = theirs.encoder.conv_in.weight.detach().numpy().transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(leaves["encoder", "conv_in", "kernel"], expected)


def test_bfloat16_parameters_compute_in_bfloat16(tmp_path):
    theirs = diffusion.save_vae(tmp_path, seed=6, channels=(8,))
    pixels = _pixels(1, 8, 8)
    latents = _run(load_vae(tmp_path, dtype=jnp.bfloat16), pixels)
    assert latents.dtype == jnp.bfloat16
    # bfloat16 has 8 bits; a dozen layers add up to a few of their roundings.
    error = _error(latents.astype(np.float32), diffusion.latents_of(theirs, pixels))
    assert 0 < error < 0.05


@pytest.mark.parametrize(
    "fields",
    [
        {"_class_name": "AutoencoderTiny"},
        {"latent_channels": 16},
        {"down_block_types": ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"]},
        {"use_quant_conv": False},
        {"mid_block_add_attention": False},
        {"shift_factor": 0.0609},
        {"latents_mean": [0.1, 0, 0, 0]},
        {"latents_std": [2.0] * 4},
        {"scaling_factor": 0},
        {"norm_num_groups": 3},
        {"layers_per_block": [1, 2]},
        {"block_out_channels": 8},
    ],
)
def test_foreign_architecture_is_told_before_weights_are_read(tmp_path, fields):
    diffusion.save_vae(tmp_path, seed=8)
    diffusion.edit_config(tmp_path, **fields)
    (tmp_path / diffusion.WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match=next(iter(fields))) as caught:
        load_vae(tmp_path)
    assert caught.value.code == "W06"
    assert str(tmp_path / "config.json") in str(caught.value)


@pytest.mark.parametrize("field", ["use_quant_conv", "mid_block_add_attention"])
def test_a_part_that_is_null_is_not_there(field):
    with pytest.raises(CheckpointError, match=f"{field} = None, wanted True"):
        VAEConfig.from_dict({field: None})


@pytest.mark.parametrize(
    "fields",
    [
        {"layers_per_block": [1.0], "act_fn": "swish"},
        {"down_block_types": ["UNetResDownEncoderBlock2D"]},
        {"shift_factor": None, "latents_mean": None, "latents_std": None},
        {"shift_factor": 0.0, "latents_mean": [0.0] * 4, "latents_std": [1.0] * 4},
        # Of the decoder, or of how the network is run.
        {"use_post_quant_conv": False, "force_upcast": True, "sample_size": [64, 64]},
        {"out_channels": 4, "up_block_types": ["AttnUpDecoderBlock2D"]},
        {"_class_name": "FlaxAutoencoderKL"},
    ],
)
def test_what_changes_nothing_is_accepted(fields):
    assert VAEConfig.from_dict(fields) == VAEConfig()


def test_absent_fields_have_the_defaults_of_diffusers():
    config = VAEConfig.from_dict({})
    for field in dataclasses.asdict(config):
        default = diffusion.default_of(diffusion.AutoencoderKL, field)
        assert getattr(config, field) == default
