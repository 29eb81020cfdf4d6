"""Tiny DINO folders as transformers writes them, with seeded weights."""

from pathlib import Path

import torch
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    PreTrainedModel,
    ViTConfig,
    ViTModel,
)


NETWORKS = {
    "vit": (ViTConfig, ViTModel, {"intermediate_size": 72}),
    "dinov2": (Dinov2Config, Dinov2Model, {"mlp_ratio": 3}),
    "dinov2_with_registers": (
        Dinov2WithRegistersConfig,
        Dinov2WithRegistersModel,
        {"mlp_ratio": 2, "num_register_tokens": 3},
    ),
}
KINDS = tuple(NETWORKS)
DINOV3 = {
    "dinov3_vit": (
        DINOv3ViTConfig,
        DINOv3ViTModel,
        {"intermediate_size": 72, "num_register_tokens": 4},
    ),
}


def save_vit(
    folder: Path,
    kind: str,
    *,
    seed: int,
    patch_size: int = 8,
    image_size: int = 40,
    shape: tuple[int, int, int] = (3, 24, 3),
    **fields: object,
) -> PreTrainedModel:
    """Write a vision transformer and return it; shape: depth, width, heads."""
    config_type, network_type, usual = (NETWORKS | DINOV3)[kind]
    depth, width, heads = shape
    config = config_type(
        num_hidden_layers=depth,
        hidden_size=width,
        num_attention_heads=heads,
        patch_size=patch_size,
        image_size=image_size,
        attn_implementation="eager",
        **{**usual, **fields},
    )
    network = network_type(config).eval()
    _randomise(network, seed)
    network.save_pretrained(folder)
    return network


@torch.no_grad()
def _randomise(network: torch.nn.Module, seed: int) -> None:
    """Give every parameter a size at which its absence or misuse shows.

    Layer scales differ from one another, and queries and keys are enlarged: initial
    weights leave attention close to uniform.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, value in sorted(network.named_parameters()):
        noise = torch.randn(value.shape, generator=generator)
        if "norm" in name or "lambda" in name:
            value.copy_(0.2 * noise + (0.0 if name.endswith("bias") else 1.0))
        elif "token" in name or "position" in name:
            value.copy_(0.5 * noise)
        elif value.ndim < 2:
            value.copy_(0.3 * noise)
        else:
            gain = 2.0 if "q_proj" in name or "k_proj" in name else 1.0
            value.copy_(gain * noise / value[0].numel() ** 0.5)
