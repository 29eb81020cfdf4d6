"""Reading config.json: the files on the hub, the defaults, and foreign ones."""

import json

import pytest
from transformers import CLIPConfig

from dslo_jax.errors import CheckpointError
from dslo_jax.models.clip import load_clip
from dslo_jax.models.clip_config import (
    ClipConfig,
    ClipTextConfig,
    ClipVisionConfig,
    with_pixel_statistics,
)
from dslo_jax.models.clip_text import load_text_encoder


# What the files of openai/clip-vit-base-patch16 and -large-patch14 state, shortened to
# fields that matter here. The second one holds each half twice, in two spellings.
BASE = {
    "model_type": "clip",
    "projection_dim": 512,
    "text_config": {"model_type": "clip_text_model", "bos_token_id": 0}
    | {"eos_token_id": 2, "hidden_act": "quick_gelu", "projection_dim": 512},
    "text_config_dict": None,
    "vision_config": {"model_type": "clip_vision_model", "patch_size": 16},
    "vision_config_dict": None,
}
_LARGE_TEXT = {"hidden_size": 768, "intermediate_size": 3072, "projection_dim": 768}
_LARGE_TEXT |= {"num_attention_heads": 12, "num_hidden_layers": 12}
_LARGE_VISION = {"hidden_size": 1024, "intermediate_size": 4096, "patch_size": 14}
_LARGE_VISION |= {"num_attention_heads": 16, "num_hidden_layers": 24}
LARGE = {
    "model_type": "clip",
    "projection_dim": 768,
    "text_config": {**_LARGE_TEXT, "eos_token_id": 2},
    "text_config_dict": _LARGE_TEXT,
    "vision_config": _LARGE_VISION,
    "vision_config_dict": _LARGE_VISION,
}


def test_base_patch16():
    config = ClipConfig.from_dict(BASE)
    assert config == ClipConfig(
        text=ClipTextConfig(49408, 512, 2048, 12, 8, 77, "quick_gelu", 1e-5, 2),
        vision=ClipVisionConfig(768, 3072, 12, 12, 3, 224, 16, "quick_gelu", 1e-5),
        projection_dim=512,
    )
    assert config.vision.grid_size == 14


def test_large_patch14():
    config = ClipConfig.from_dict(LARGE)
    assert config == ClipConfig(
        text=ClipTextConfig(49408, 768, 3072, 12, 12, 77, "quick_gelu", 1e-5, 49407),
        vision=ClipVisionConfig(1024, 4096, 24, 16, 3, 224, 14, "quick_gelu", 1e-5),
        projection_dim=768,
    )
    assert config.vision.grid_size == 16


@pytest.mark.parametrize("values", [BASE, LARGE, {"model_type": "clip"}])
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
            "model_type = 't5', .* 'clip_text_model'",
        ),
        (
            changed(vision_config={"hidden_act": "relu"}),
            "vision_config.hidden_act = 'relu', .* 'quick_gelu' or 'gelu'",
        ),
        (
            changed(vision_config={"patch_size": [16, 16]}),
            r"vision_config.patch_size = \[16, 16\], .* positive integer",
        ),
        (
            changed(vision_config={"num_channels": 4}),
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


def test_pixel_statistics(tmp_path):
    config = ClipConfig()
    assert with_pixel_statistics(config, tmp_path) == config
    file = tmp_path / "preprocessor_config.json"
    file.write_text('{"image_mean": [0, 0.5, 1], "size": 224}')
    read = with_pixel_statistics(config, tmp_path).vision
    assert read.pixel_mean == (0.0, 0.5, 1.0)
    assert read.pixel_std == config.vision.pixel_std


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", "W08"),
        ("3", "W08"),
        ('{"image_mean": [0, 1]}', "W06"),
        ('{"image_mean": [0, 1, NaN]}', "W06"),
        ('{"image_mean": 0.5}', "W06"),
        ('{"image_std": [1, 1, 0]}', "W06"),
    ],
)
def test_bad_pixel_statistics(tmp_path, text, code):
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(CheckpointError) as error:
        with_pixel_statistics(ClipConfig(), tmp_path)
    assert error.value.code == code
