"""A small checkpoint with random weights for every part of the pipeline.

It is written without torch, in the layout of Hugging Face, within a second. It shows
that a machine can run the main job from the first file to the last; its labels have no
meaning.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from flax import nnx

from dslo_jax.demo.tokenizer import write_tokenizer
from dslo_jax.demo.train.descent import module_of, random_parameters
from dslo_jax.empty_prompt import FILE_NAME, save_empty_prompt
from dslo_jax.models.clip import Clip
from dslo_jax.models.clip_config import ClipConfig
from dslo_jax.models.unet import UNet
from dslo_jax.models.unet_config import UNetConfig
from dslo_jax.models.vae import VAE, VAEConfig
from dslo_jax.weights import OneKey, save_module


_CONTEXT_CHANNELS = 32
_DIFFUSERS = "diffusion_pytorch_model"

_UNET = {
    "_class_name": "UNet2DConditionModel",
    "block_out_channels": [32, 64],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "cross_attention_dim": _CONTEXT_CHANNELS,
    "attention_head_dim": 2,
    "use_linear_projection": True,
}
_VAE = {
    "_class_name": "AutoencoderKL",
    "block_out_channels": [32, 32, 32, 32],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 1,
    "latent_channels": 4,
}


def write_random_checkpoint(folder: Path, *, seed: int = 0) -> Path:
    """Write a CLIP and a diffusion checkpoint with seeded random weights.

    Args:
        folder: Gets the sub-folders ``clip`` and ``diffusion``.
        seed: Of the weights.

    Returns:
        The folder, for ``Segmenter.from_pretrained``.
    """
    rng = np.random.default_rng(seed)
    clip = _clip_config(write_tokenizer(folder / "clip"))
    networks = (
        ("clip", "model", clip, partial(_build_clip, clip)),
        ("diffusion/unet", _DIFFUSERS, _UNET, _build_unet),
        ("diffusion/vae", _DIFFUSERS, _VAE, _build_vae),
    )
    for name, stem, config, build in networks:
        save_module(_random_module(build, rng), folder / name, config, stem=stem)
    context = rng.standard_normal((1, 77, _CONTEXT_CHANNELS), np.float32)
    save_empty_prompt(context, folder / "diffusion" / FILE_NAME)
    return folder


def _build_clip(config: dict, rngs: nnx.Rngs) -> Clip:
    return Clip(ClipConfig.from_dict(config), rngs=rngs)


def _build_unet(rngs: nnx.Rngs) -> UNet:
    return UNet(UNetConfig.from_dict(_UNET), rngs=rngs)


def _build_vae(rngs: nnx.Rngs) -> VAE:
    return VAE(VAEConfig.from_dict(_VAE), rngs=rngs)


def _random_module(
    build: Callable[[nnx.Rngs], nnx.Module], rng: np.random.Generator
) -> nnx.Module:
    def network() -> nnx.Module:
        return build(OneKey())

    return module_of(network, random_parameters(network, rng))


def _clip_config(vocabulary: int) -> dict:
    return {
        "model_type": "clip",
        "projection_dim": 64,
        "text_config": {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "vocab_size": vocabulary,
            "bos_token_id": vocabulary - 2,
            "eos_token_id": vocabulary - 1,
        },
        "vision_config": {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": 224,
            "patch_size": 16,
        },
    }
