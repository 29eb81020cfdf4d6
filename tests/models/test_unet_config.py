"""What the configuration of a UNet may leave out, and how it may be spelled."""

import pytest
from checkpoints import diffusion

from dslo_jax.errors import CheckpointError
from dslo_jax.models.unet_config import UNetConfig


def test_no_middle_block_is_not_the_usual_one():
    """In diffusers, null is a UNet without it."""
    with pytest.raises(CheckpointError, match="mid_block_type = None"):
        UNetConfig.from_dict({"mid_block_type": None})


@pytest.mark.parametrize(
    "fields",
    [
        {"only_cross_attention": [False] * 4, "layers_per_block": [2.0] * 4},
        {
            "transformer_layers_per_block": [[1, 1]] * 4,
            "cross_attention_dim": [1280] * 4,
        },
        {"reverse_transformer_layers_per_block": [[1, 1, 1]] * 4},
        {"attention_head_dim": [8] * 4, "num_attention_heads": [8] * 4},
        {"attention_head_dim": None, "num_attention_heads": 8},
        {"time_embedding_dim": 1280, "class_embeddings_concat": None},
        {
            "down_block_types": ["UNetResCrossAttnDownBlock2D"] * 3
            + ["UNetResDownBlock2D"]
        },
        {"_class_name": "FlaxUNet2DConditionModel", "act_fn": "swish"},
        # Nothing that we compute depends on these.
        {"dropout": 0.1, "sample_size": [64, 64], "upcast_attention": True},
        {"use_linear_projection": True, "conv_out_kernel": 1, "out_channels": 8},
        {"resnet_skip_time_act": True, "cross_attention_norm": "layer_norm"},
    ],
)
def test_what_changes_nothing_is_accepted(fields):
    assert UNetConfig.from_dict(fields) == UNetConfig()


def test_absent_fields_have_the_defaults_of_diffusers():
    config = UNetConfig.from_dict({})

    def default(field: str):
        return diffusion.default_of(diffusion.UNet2DConditionModel, field)

    assert config.heads == (default("attention_head_dim"),) * 4
    assert config.block_out_channels == default("block_out_channels")
    for field, attention in (
        ("down_block_types", config.down_attention),
        ("up_block_types", config.up_attention),
    ):
        assert attention == tuple("CrossAttn" in name for name in default(field))
    for field in (
        "layers_per_block",
        "cross_attention_dim",
        "norm_num_groups",
        "norm_eps",
        "flip_sin_to_cos",
        "freq_shift",
    ):
        assert getattr(config, field) == default(field)


def test_config_of_stable_diffusion_2():
    config = UNetConfig.from_dict(
        {"attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 1024}
    )
    assert len(config.taps) == 16
    assert config.taps[0] == "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
    assert config.taps[-2] == "up_blocks.3.attentions.1.transformer_blocks.0.attn1"
    assert config == UNetConfig.from_dict(
        {"attention_head_dim": (5, 10, 20, 20), "cross_attention_dim": 1024}
    )
    assert hash(config)
