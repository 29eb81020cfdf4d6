"""Public configurations mean what they say, and so do the networks they describe."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from checkpoints import diffusion
from checkpoints.clip import EOS, VOCAB_SIZE, randomise
from checkpoints.public_configs import (
    CLIP,
    CLIP_MEANING,
    L14_TEXT,
    L14_VISION,
    OPEN_CLIP,
    TEXT,
    TEXT_MEANING,
    UNET,
    UNET_MEANING,
    VAE,
    VISION,
    VIT,
    VIT_MEANING,
    sizes,
)
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


@pytest.mark.parametrize(
    ("read", "stated", "meaning"),
    [
        *((ClipConfig, CLIP[name], CLIP_MEANING[name]) for name in CLIP),
        *((ClipTextConfig, TEXT[name], TEXT_MEANING[name]) for name in TEXT),
        *((UNetConfig, UNET[name], UNET_MEANING[name]) for name in UNET),
        *((VitConfig, VIT[name], VIT_MEANING[name]) for name in VIT),
        (VAEConfig, VAE, VAEConfig((128, 256, 512, 512), 2, 32, 0.18215)),
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
    alone = VISION | sizes(1280, 32, 16) | {"hidden_act": "gelu", "patch_size": 14}
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


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name == "openai-b16"))
        for name in CLIP
    ],
)
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
