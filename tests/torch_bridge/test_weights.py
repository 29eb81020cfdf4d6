"""Torch modules in memory as checkpoints that ``dslo_jax`` reads."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from dslo_jax.weights import load_module, open_weights, read_config
from torch_bridge import BridgeError, save_checkpoint, weights_of


class Block(nnx.Module):
    def __init__(self, *, rngs):
        self.conv = nnx.Conv(3, 4, (2, 2), rngs=rngs)
        self.norm = nnx.LayerNorm(4, rngs=rngs)
        self.proj = nnx.Linear(4, 5, rngs=rngs)

    def __call__(self, x):
        return self.proj(self.norm(self.conv(x)))


def torch_block(dtype=torch.float32):
    torch.manual_seed(0)
    return torch.nn.ModuleDict(
        {
            "conv": torch.nn.Conv2d(3, 4, 2),
            "norm": torch.nn.LayerNorm(4, eps=1e-6),
            "proj": torch.nn.Linear(4, 5),
        }
    ).to(dtype)


def test_a_module_fills_a_network_without_files():
    torch_module = torch_block()
    module = load_module(Block, weights_of(torch_module))
    pixels = np.random.default_rng(0).random((1, 6, 7, 3), np.float32)
    with torch.no_grad():
        hidden = torch_module["conv"](torch.as_tensor(pixels).permute(0, 3, 1, 2))
        hidden = torch_module["norm"](hidden.permute(0, 2, 3, 1))
        wanted = torch_module["proj"](hidden).numpy()
    actual = jax.lax.slice_in_dim(module(jnp.asarray(pixels)), 0, 5, axis=1)
    np.testing.assert_allclose(actual[:, :, :6], wanted, rtol=0, atol=2e-6)


@torch.no_grad()
def test_the_network_keeps_its_weights_when_training_goes_on():
    torch_module = torch_block()
    module = load_module(Block, weights_of(torch_module))
    before = np.array(module.norm.scale.get_value())
    for parameter in torch_module.parameters():
        parameter.zero_()
    np.testing.assert_array_equal(module.norm.scale.get_value(), before)
    assert before.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_weights_arrive_exactly(dtype):
    tensor = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    array = weights_of({"weight": tensor})["weight"]
    assert array.dtype == jnp.dtype(str(dtype).removeprefix("torch."))
    np.testing.assert_array_equal(array.astype(np.float32), tensor.float().numpy())


def test_what_is_no_tensor_is_named():
    with pytest.raises(BridgeError, match=r"B01.*steps is int"):
        weights_of({"steps": 3})["steps"]
    with pytest.raises(BridgeError, match=r"B01.*proj.*meta"):
        weights_of({"proj": torch.ones(2, device="meta")})["proj"]


def test_modules_of_transformers_and_diffusers_write_themselves(
    tmp_path, clip, diffusion
):
    for name, module in {
        "clip": clip,
        "vae": diffusion.vae,
        "unet": diffusion.unet,
    }.items():
        folder = save_checkpoint(module, tmp_path / name)
        written = open_weights(folder)
        live = weights_of(module)
        assert set(written) == set(live)
        assert all(np.array_equal(written[key], live[key]) for key in live)
        assert read_config(folder)


@pytest.mark.parametrize(
    ("config", "stem"),
    [
        ({"model_type": "clip"}, "model"),
        ({"_class_name": "UNet2DConditionModel"}, "diffusion_pytorch_model"),
    ],
)
def test_state_dicts_become_folders(tmp_path, config, stem):
    shared = torch.randn(4, 3)
    tensors = {"a.weight": shared, "tied": shared, "b": torch.ones(4, 4).mT[::2]}
    folder = save_checkpoint(tensors, tmp_path / "new" / "folder", config)
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        f"{stem}.safetensors",
    ]
    assert json.loads((folder / "config.json").read_text()) == config
    written = open_weights(folder)
    assert set(written) == set(tensors)
    assert all(np.array_equal(written[key], tensors[key].numpy()) for key in tensors)


def test_the_configuration_comes_from_one_place(tmp_path, clip):
    with pytest.raises(BridgeError, match=r"B06.*CLIPModel has a configuration"):
        save_checkpoint(clip, tmp_path, {"model_type": "clip"})
    with pytest.raises(BridgeError, match=r"B06.*pass config="):
        save_checkpoint(torch.nn.Linear(2, 2), tmp_path)
