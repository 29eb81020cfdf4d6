"""Reading config.json: files of the Hub, defaults, and other architectures."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from transformers import CLIPConfig
from transformers.activations import ACT2FN

from dslo_jax.errors import CheckpointError
from dslo_jax.models.clip import load_clip
from dslo_jax.models.clip_config import ClipConfig
from dslo_jax.models.clip_layers import Mlp
from dslo_jax.models.clip_text import load_text_encoder


# As openai/clip-vit-base-patch16 states it; more are in test_public_configs.py.
BASE = {
    "model_type": "clip",
    "projection_dim": 512,
    "text_config": {"model_type": "clip_text_model", "eos_token_id": 2},
    "text_config_dict": None,
    "vision_config": {"model_type": "clip_vision_model", "patch_size": 16},
    "vision_config_dict": {"patch_size": 16},
}
# Halves in two spellings; what the second leaves out is the default.
TWICE = BASE | {
    "text_config_dict": {"hidden_size": 768, "num_attention_heads": 12},
    "vision_config": {"patch_size": 16, "hidden_act": "gelu"},
    "vision_config_dict": {"hidden_size": 1024, "num_attention_heads": 16},
}


@pytest.mark.parametrize("values", [BASE, TWICE, {"model_type": "clip"}])
def test_agrees_with_transformers(values):
    """Field by field, defaults included."""
    theirs = CLIPConfig(**json.loads(json.dumps(values)))
    ours = ClipConfig.from_dict(values)
    assert ours.projection_dim == theirs.projection_dim
    for mine, part in (
        (ours.text, theirs.text_config),
        (ours.vision, theirs.vision_config),
    ):
        for field, value in vars(mine).items():
            if not field.startswith("pixel_"):
                assert getattr(part, field) == value, field


def changed(**fields):
    return {**BASE, **fields}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (changed(model_type="siglip"), r"model_type = 'siglip', .* wants 'clip'"),
        ({}, "model_type = None"),
        (changed(projection_dim="512"), "projection_dim = '512', .* positive integer"),
        (changed(text_config=[1]), r"text_config = \[1\], .* an object"),
        (
            changed(text_config={"model_type": "t5"}),
            "text_config.model_type = 't5', .* 'clip_text_model'",
        ),
        (
            changed(vision_config_dict={"hidden_act": "relu"}),
            "vision_config_dict.hidden_act = 'relu', .* quick_gelu, gelu, ",
        ),
        (
            changed(vision_config_dict={"patch_size": [16, 14]}),
            r"vision_config_dict.patch_size = \[16, 14\], .* positive integer",
        ),
        (
            changed(vision_config={"num_channels": 4}, vision_config_dict=None),
            "vision_config.num_channels = 4, .* wants 3",
        ),
        (
            changed(text_config={"num_attention_heads": 7}),
            "text_config.num_attention_heads = 7, .* divisor of hidden_size 512",
        ),
        (
            changed(text_config={"layer_norm_eps": 0}),
            "text_config.layer_norm_eps = 0, .* positive number",
        ),
    ],
)
def test_foreign_configs(values, message):
    with pytest.raises(CheckpointError, match=message) as error:
        ClipConfig.from_dict(values)
    assert error.value.code == "W06"


def test_refused_before_weights_are_looked_for(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "clip_vision_model"}')
    for load in (load_clip, load_text_encoder):
        with pytest.raises(CheckpointError, match="W06"):
            load(tmp_path)


@pytest.mark.parametrize(
    ("half", "fields"),
    [
        ("vision", {"patch_size": [16, 16], "image_size": [224, 224]}),
        ("vision", {"patch_size": {"height": 16, "width": 16}}),
        ("vision", {"patch_size": 16.0, "hidden_size": 768.0, "image_size": None}),
        ("vision", {"patch_size": 16, "attention_dropout": 0.1, "dtype": "bfloat16"}),
        ("text", {"eos_token_id": [2], "layer_norm_eps": None, "hidden_size": 512.0}),
        ("text", {"eos_token_id": 2, "projection_dim": 77, "torch_dtype": "float16"}),
    ],
)
def test_other_spellings_of_the_same(half, fields):
    values = changed(**{f"{half}_config": fields, f"{half}_config_dict": None})
    assert ClipConfig.from_dict(values) == ClipConfig.from_dict(BASE)


def test_only_the_outer_projection_counts():
    inner = {"text_config": {"projection_dim": 64}, "projection_dim": None}
    assert ClipConfig.from_dict({**BASE, **inner}).projection_dim == 512
    assert ClipConfig.from_dict({**BASE, "projection_dim": 640}).projection_dim == 640


@pytest.mark.parametrize("name", [name for name in ACT2FN if "gelu" in name])
def test_activations_are_those_of_transformers(name):
    values = {"model_type": "clip", "vision_config": {"hidden_act": name}}
    if name == "gelu_10":  # clipped
        with pytest.raises(CheckpointError, match="gelu_10"):
            ClipConfig.from_dict(values)
        return
    config = ClipConfig.from_dict(values).vision
    config = dataclasses.replace(config, hidden_size=1, intermediate_size=1)
    mlp = Mlp(config, rngs=nnx.Rngs(0))
    for linear in (mlp.fc1, mlp.fc2):
        linear.kernel[...] = jnp.ones((1, 1))
    points = np.linspace(-6, 6, 241, dtype=np.float32)[:, None]
    expected = ACT2FN[name](torch.from_numpy(points)).numpy()
    np.testing.assert_allclose(mlp(jnp.asarray(points)), expected, rtol=0, atol=1e-6)
