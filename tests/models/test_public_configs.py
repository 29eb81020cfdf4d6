"""Configurations of public repositories, and the networks that they describe.

They are shortened to the fields that matter or that could be misread. The files of
LAION and of DINO could not be downloaded here; their contents are assumptions.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from checkpoints import diffusion
from checkpoints.clip import EOS, VOCAB_SIZE, randomise
from flax import nnx
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel

from dslo_jax.models.clip import load_clip
from dslo_jax.models.clip_config import ClipConfig, ClipTextConfig, ClipVisionConfig
from dslo_jax.models.clip_text import load_text_encoder
from dslo_jax.models.unet import UNet
from dslo_jax.models.unet_config import UNetConfig
from dslo_jax.models.vae import VAEConfig
from dslo_jax.models.vit_config import VitConfig
from dslo_jax.weights import OneKey
from dslo_jax.weights.open_clip_config import translate_config


_TEXT = {"model_type": "clip_text_model", "bos_token_id": 0, "pad_token_id": 1}
_TEXT |= {"dropout": 0.0, "attention_dropout": 0.0, "hidden_act": "quick_gelu"}
_TEXT |= {"layer_norm_eps": 1e-05, "max_position_embeddings": 77, "vocab_size": 49408}
_TEXT |= {"torch_dtype": None, "prefix": None, "pruned_heads": {}, "top_p": 1.0}
_VISION = {"model_type": "clip_vision_model", "bos_token_id": None}
_VISION |= {"eos_token_id": None, "hidden_act": "quick_gelu", "image_size": 224}
_VISION |= {"dropout": 0.0, "attention_dropout": 0.0, "layer_norm_eps": 1e-05}


def sizes(width, depth, heads):
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
    }


CLIP = {
    # openai/clip-vit-base-patch16
    "openai-b16": {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "logit_scale_init_value": 2.6592,
        "projection_dim": 512,
        "torch_dtype": "float32",
        "text_config": _TEXT
        | sizes(512, 12, 8)
        | {"eos_token_id": 2, "projection_dim": 512},
        "text_config_dict": None,
        "vision_config": _VISION
        | sizes(768, 12, 12)
        | {"patch_size": 16, "projection_dim": 512},
        "vision_config_dict": {"patch_size": 16},
    },
    # openai/clip-vit-large-patch14: sizes in both spellings, the token in one.
    "openai-l14": {
        "model_type": "clip",
        "projection_dim": 768,
        "text_config": _TEXT | sizes(768, 12, 12) | {"eos_token_id": 2},
        "text_config_dict": sizes(768, 12, 12) | {"projection_dim": 768},
        "vision_config": _VISION | sizes(1024, 24, 16) | {"patch_size": 14},
        "vision_config_dict": sizes(1024, 24, 16)
        | {"patch_size": 14, "projection_dim": 768},
    },
    # The same, saved again by transformers 5.
    "openai-l14-new": {
        "architectures": ["CLIPModel"],
        "dtype": "float32",
        "model_type": "clip",
        "projection_dim": 768,
        "text_config": _TEXT
        | sizes(768, 12, 12)
        | {"bos_token_id": 49406, "eos_token_id": 49407, "projection_dim": 768},
        "vision_config": _VISION
        | sizes(1024, 24, 16)
        | {"patch_size": 14, "num_channels": 3, "projection_dim": 768},
    },
    # laion/CLIP-ViT-B-16-laion2B-s34B-b88K
    "laion-b16": {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": 512,
        "text_config": _TEXT
        | sizes(512, 12, 8)
        | {"hidden_act": "gelu", "eos_token_id": 2, "projection_dim": 512},
        "vision_config": _VISION
        | sizes(768, 12, 12)
        | {"hidden_act": "gelu", "patch_size": 16, "projection_dim": 512},
    },
}
L14_TEXT = ClipTextConfig(49408, 768, 3072, 12, 12, 77, "quick_gelu", 1e-5, 49407)
L14_VISION = ClipVisionConfig(1024, 4096, 24, 16, 3, 224, 14, "quick_gelu", 1e-5)
CLIP_MEANING = {
    "openai-b16": ClipConfig(
        ClipTextConfig(49408, 512, 2048, 12, 8, 77, "quick_gelu", 1e-5, 2),
        ClipVisionConfig(768, 3072, 12, 12, 3, 224, 16, "quick_gelu", 1e-5),
        512,
    ),
    "openai-l14": ClipConfig(L14_TEXT, L14_VISION, 768),
    "openai-l14-new": ClipConfig(L14_TEXT, L14_VISION, 768),
    "laion-b16": ClipConfig(
        ClipTextConfig(49408, 512, 2048, 12, 8, 77, "gelu", 1e-5, 2),
        ClipVisionConfig(768, 3072, 12, 12, 3, 224, 16, "gelu", 1e-5),
        512,
    ),
}
TEXT = {
    # text_encoder of runwayml/stable-diffusion-v1-5
    "sd1": {"architectures": ["CLIPTextModel"], "torch_dtype": "float32"}
    | _TEXT
    | sizes(768, 12, 12)
    | {"eos_token_id": 2, "projection_dim": 768},
    # text_encoder of stabilityai/stable-diffusion-2-1: a layer less than its CLIP has
    "sd2": {"architectures": ["CLIPTextModel"], "projection_dim": 512}
    | _TEXT
    | sizes(1024, 23, 16)
    | {"hidden_act": "gelu", "eos_token_id": 2},
}
TEXT_MEANING = {
    "sd1": ClipTextConfig(49408, 768, 3072, 12, 12, 77, "quick_gelu", 1e-5, 2),
    "sd2": ClipTextConfig(49408, 1024, 4096, 23, 16, 77, "gelu", 1e-5, 2),
}
_SD = {
    "act_fn": "silu",
    "block_out_channels": [320, 640, 1280, 1280],
    "center_input_sample": False,
    "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "out_channels": 4,
    "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
    "_class_name": "UNet2DConditionModel",
}
# What a newer diffusers adds when it saves any UNet again.
_NEWER = dict.fromkeys(
    (
        *("addition_embed_type", "addition_time_embed_dim", "class_embed_type"),
        *("cross_attention_norm", "encoder_hid_dim", "encoder_hid_dim_type"),
        *("mid_block_only_cross_attention", "num_attention_heads", "num_class_embeds"),
        *("projection_class_embeddings_input_dim", "time_cond_proj_dim"),
        *("reverse_transformer_layers_per_block", "time_embedding_act_fn"),
        *("time_embedding_dim", "timestep_post_act", "upcast_attention"),
    )
)
_NEWER |= {
    "addition_embed_type_num_heads": 64,
    "attention_type": "default",
    "class_embeddings_concat": False,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "dropout": 0.0,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False,
    "resnet_time_scale_shift": "default",
    "time_embedding_type": "positional",
    "transformer_layers_per_block": 1,
}
UNET = {
    # runwayml/stable-diffusion-v1-5
    "sd1": _SD | {"attention_head_dim": 8, "cross_attention_dim": 768},
    "sd1-new": _SD
    | _NEWER
    | {"attention_head_dim": 8, "cross_attention_dim": 768, "sample_size": 64},
    # stabilityai/stable-diffusion-2-1
    "sd2": _SD
    | {
        "attention_head_dim": [5, 10, 20, 20],
        "cross_attention_dim": 1024,
        "dual_cross_attention": False,
        "num_class_embeds": None,
        "only_cross_attention": False,
        "sample_size": 96,
        "upcast_attention": True,
        "use_linear_projection": True,
    },
}
SD1_UNET = UNetConfig(cross_attention_dim=768)
UNET_MEANING = {
    "sd1": SD1_UNET,
    "sd1-new": SD1_UNET,
    "sd2": UNetConfig(heads=(5, 10, 20, 20), cross_attention_dim=1024),
}
_VAE = {
    "_class_name": "AutoencoderKL",
    "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 512,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
_DINOV2 = {
    "hidden_act": "gelu",
    "hidden_size": 768,
    "image_size": 518,
    "layer_norm_eps": 1e-06,
    "layerscale_value": 1.0,
    "mlp_ratio": 4,
    "num_attention_heads": 12,
    "num_channels": 3,
    "num_hidden_layers": 12,
    "patch_size": 14,
    "qkv_bias": True,
    "use_swiglu_ffn": False,
}
VIT = {
    # facebook/dino-vitb8
    "dino": sizes(768, 12, 12)
    | {
        "architectures": ["ViTModel"],
        "hidden_act": "gelu",
        "image_size": 224,
        "layer_norm_eps": 1e-12,
        "model_type": "vit",
        "num_channels": 3,
        "patch_size": 8,
        "qkv_bias": True,
    },
    # facebook/dinov2-base
    "dinov2": _DINOV2 | {"model_type": "dinov2", "architectures": ["Dinov2Model"]},
    # facebook/dinov2-with-registers-base
    "registers": _DINOV2
    | {
        "interpolate_antialias": True,
        "interpolate_offset": 0.0,
        "model_type": "dinov2_with_registers",
        "num_register_tokens": 4,
        "out_indices": [12],
    },
    # facebook/dinov2-giant
    "giant": _DINOV2
    | {
        "architectures": ["Dinov2Model"],
        "hidden_size": 1536,
        "model_type": "dinov2",
        "num_attention_heads": 24,
        "num_hidden_layers": 40,
        "use_swiglu_ffn": True,
    },
}
_V2 = (768, 3072, 12, 12, 3, 518, 14, "gelu", 1e-6)
VIT_MEANING = {
    "dino": VitConfig(768, 3072, 12, 12, 3, 224, 8, "gelu", 1e-12),
    "dinov2": VitConfig(*_V2, layer_scale=True),
    "registers": VitConfig(
        *_V2, layer_scale=True, num_register_tokens=4, antialias=True
    ),
    "giant": VitConfig(*(1536, 4096, 40, 24, *_V2[4:]), layer_scale=True, swiglu=True),
}


@pytest.mark.parametrize(
    ("read", "stated", "meaning"),
    [
        *((ClipConfig, CLIP[name], CLIP_MEANING[name]) for name in CLIP),
        *((ClipTextConfig, TEXT[name], TEXT_MEANING[name]) for name in TEXT),
        *((UNetConfig, UNET[name], UNET_MEANING[name]) for name in UNET),
        *((VitConfig, VIT[name], VIT_MEANING[name]) for name in VIT),
        (VAEConfig, _VAE, VAEConfig((128, 256, 512, 512), 2, 32, 0.18215)),
        # The halves are read out of a whole one too.
        (ClipTextConfig, CLIP["openai-l14"], L14_TEXT),
        (ClipVisionConfig, CLIP["openai-l14"], L14_VISION),
    ],
)
def test_what_a_public_config_means(read, stated, meaning):
    assert read.from_dict(json.loads(json.dumps(stated))) == meaning
    # Without a type, the class tells it.
    if stated.get("architectures"):
        untyped = {**stated, "model_type": None}
        assert read.from_dict(untyped) == meaning


def _open_clip(embed, vision, text, **more):
    """A configuration of open_clip: layers, width, patch and more; layers to heads."""
    layers, width, patch, others = vision
    both = {"image_size": 224, "layers": layers, "width": width, "patch_size": patch}
    own = {"width": text[1], "heads": text[2], "layers": text[0]}
    own |= {"context_length": 77, "vocab_size": 49408}
    return {"embed_dim": embed, "vision_cfg": both | others, "text_cfg": own, **more}


H14 = {"head_width": 80}
BIG_G = {"head_width": 104, "mlp_ratio": 4.9231}
OPEN_CLIP = {
    # ViT-B-32, of LAION and DataComp
    "b32": (
        _open_clip(512, (12, 768, 32, {}), (12, 512, 8)),
        ClipVisionConfig(768, 3072, 12, 12, 3, 224, 32, "gelu"),
    ),
    # ViT-B-16-quickgelu, of MetaCLIP and DFN
    "b16-quick": (
        _open_clip(512, (12, 768, 16, {}), (12, 512, 8), quick_gelu=True),
        ClipVisionConfig(768, 3072, 12, 12, 3, 224, 16, "quick_gelu"),
    ),
    # ViT-H-14, of LAION
    "h14": (
        _open_clip(1024, (32, 1280, 14, H14), (24, 1024, 16)),
        ClipVisionConfig(1280, 5120, 32, 16, 3, 224, 14, "gelu"),
    ),
    # ViT-H-14-378-quickgelu, of DFN
    "h14-378": (
        _open_clip(
            1024,
            (32, 1280, 14, H14 | {"image_size": 378}),
            (24, 1024, 16),
            quick_gelu=True,
        ),
        ClipVisionConfig(1280, 5120, 32, 16, 3, 378, 14, "quick_gelu"),
    ),
    # ViT-bigG-14, of LAION
    "big-g": (
        _open_clip(1280, (48, 1664, 14, BIG_G), (32, 1280, 20)),
        ClipVisionConfig(1664, 8192, 48, 16, 3, 224, 14, "gelu"),
    ),
}


@pytest.mark.parametrize("name", OPEN_CLIP)
def test_what_a_configuration_of_open_clip_means(name):
    stated, vision = OPEN_CLIP[name]
    found = ClipConfig.from_dict(translate_config(json.loads(json.dumps(stated))))
    assert found.vision == vision
    assert found.projection_dim == stated["embed_dim"]
    assert found.text.num_attention_heads == stated["text_cfg"]["heads"]
    assert found.text.hidden_act == vision.hidden_act


def test_half_of_a_clip_on_its_own():
    """The image encoder of IP-Adapter."""
    alone = _VISION | sizes(1280, 32, 16) | {"hidden_act": "gelu", "patch_size": 14}
    alone |= {
        "architectures": ["CLIPVisionModelWithProjection"],
        "projection_dim": 1024,
    }
    found = ClipVisionConfig.from_dict(alone)
    assert found == ClipVisionConfig(1280, 5120, 32, 16, 3, 224, 14, "gelu", 1e-5)


# ---------------------------------------------------------------- the same, small


def tiny(stated):
    """A public config with the same spellings and small sizes."""
    small = {**sizes(24, 2, 3), "vocab_size": VOCAB_SIZE, "image_size": 32}
    small |= {"patch_size": 8, "projection_dim": 16}

    def shrink(values):
        return {
            key: shrink(value) if isinstance(value, dict) else small.get(key, value)
            for key, value in values.items()
        }

    shrunk = shrink(stated)
    for half in ("text_config", "text_config_dict"):
        if text := shrunk.get(half):
            text["vocab_size"] = VOCAB_SIZE
            text["eos_token_id"] = 2 if text.get("eos_token_id") == 2 else EOS
    return shrunk


def prompts():
    ids = np.random.default_rng(0).integers(3, EOS - 1, (2, 9), np.int32)
    ids[0, 5:], ids[1, 8:] = EOS, EOS
    return ids


def save(network, folder, stated):
    """Weights as transformers writes them, beside the config as it is published."""
    randomise(network.eval(), 0)
    network.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(stated))


@pytest.mark.parametrize("name", CLIP)
def test_clip_computes_what_transformers_computes(tmp_path, name):
    stated = tiny(CLIP[name])
    network = CLIPModel(CLIPConfig(**json.loads(json.dumps(stated))))
    save(network, tmp_path, stated)
    clip = load_clip(tmp_path)
    side = clip.config.vision.image_size
    pixels = np.random.default_rng(1).random((1, side, side, 3), np.float32)
    mean, std = map(
        np.float32, (clip.config.vision.pixel_mean, clip.config.vision.pixel_std)
    )
    normalised = torch.from_numpy((pixels - mean) / std).permute(0, 3, 1, 2)
    with torch.inference_mode():
        text = network.text_model(torch.tensor(prompts())).pooler_output
        text = network.text_projection(text)
        patches = network.vision_model(normalised).last_hidden_state[:, 1:]
        patches = network.vision_model.post_layernorm(patches)
        patches = network.visual_projection(patches)
    expected = torch.nn.functional.normalize(patches, dim=-1).flatten(0, 1)
    expected = expected @ torch.nn.functional.normalize(text, dim=-1).T

    @jax.jit
    def logits(clip, pixels, ids):
        dense = clip.dense_features(pixels, attention="vanilla")
        return dense.reshape(-1, dense.shape[-1]) @ clip.encode_text(ids).T

    with jax.default_matmul_precision("highest"):
        found = logits(clip, pixels, prompts())
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", TEXT)
def test_a_text_encoder_computes_what_transformers_computes(tmp_path, name):
    stated = tiny(TEXT[name])
    network = CLIPTextModel(CLIPTextConfig(**stated))
    save(network, tmp_path, stated)
    with torch.inference_mode():
        expected = network(torch.tensor(prompts())).last_hidden_state.numpy()
    with jax.default_matmul_precision("highest"):
        found = jax.jit(lambda encoder, ids: encoder(ids))(
            load_text_encoder(tmp_path), jnp.asarray(prompts())
        )
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * abs(expected).max())


@pytest.mark.parametrize("name", UNET)
def test_diffusers_builds_the_same_unet(name):
    """By the number of parameters that we need, and the heads of every attention."""
    with torch.device("meta"):
        theirs = diffusion.UNet2DConditionModel.from_config(UNET[name])
    config = UNetConfig.from_dict(UNET[name])
    ours = nnx.state(nnx.eval_shape(lambda: UNet(config, rngs=OneKey())))
    assert sum(leaf.size for leaf in jax.tree.leaves(ours)) == sum(
        value.numel()
        for key, value in theirs.named_parameters()
        if not key.startswith(("conv_norm_out.", "conv_out."))
    )
    by_block = dict(zip(("down_blocks", "up_blocks"), (1, -1), strict=True))
    for processor in theirs.attn_processors:
        path = processor.removesuffix(".processor")
        block, index, *_ = path.split(".")
        levels = config.heads[:: by_block.get(block, 1)]
        level = int(index) if block in by_block else -1
        assert theirs.get_submodule(path).heads == levels[level], path
