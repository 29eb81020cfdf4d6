"""Configurations of the full-size networks, as their ``config.json`` state them."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any


VOCABULARY = 49408

CLIP: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "b16": {
            "projection_dim": 512,
            "text_config": {
                "hidden_size": 512,
                "num_hidden_layers": 12,
                "num_attention_heads": 8,
                "intermediate_size": 2048,
            },
            "vision_config": {
                "hidden_size": 768,
                "num_hidden_layers": 12,
                "num_attention_heads": 12,
                "intermediate_size": 3072,
                "image_size": 224,
                "patch_size": 16,
            },
        },
        "l14": {
            "projection_dim": 768,
            "text_config": {
                "hidden_size": 768,
                "num_hidden_layers": 12,
                "num_attention_heads": 12,
                "intermediate_size": 3072,
            },
            "vision_config": {
                "hidden_size": 1024,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
                "intermediate_size": 4096,
                "image_size": 224,
                "patch_size": 14,
            },
        },
    }
)
"""CLIP ViT-B/16 and ViT-L/14 of OpenAI."""

UNET: Mapping[str, Any] = MappingProxyType(
    {
        "sample_size": 64,
        "block_out_channels": [320, 640, 1280, 1280],
        "cross_attention_dim": 1024,
        "attention_head_dim": [5, 10, 20, 20],
        "use_linear_projection": True,
    }
)
"""The UNet of Stable Diffusion 2."""

VAE: Mapping[str, Any] = MappingProxyType(
    {
        "block_out_channels": [128, 256, 512, 512],
        "layers_per_block": 2,
        "latent_channels": 4,
        "sample_size": 512,
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
    }
)
"""The autoencoder of Stable Diffusion 2."""

CONTEXT_TOKENS = 77
"""Tokens of the empty prompt of Stable Diffusion."""
