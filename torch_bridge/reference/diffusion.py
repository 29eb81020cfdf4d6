"""The part of Stable Diffusion: the self-attention of one pass without noise.

It runs on modules of diffusers and transformers, without conversion.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from dslo_jax.attention import AffinityOptions, Layers, find_layers, latent_layers
from dslo_jax.models.unet_config import UNetConfig


UP_LAYERS = (
    ("up_blocks.3.attentions.0", 0.5),
    ("up_blocks.3.attentions.1", 0.5),
)


_SELF_ATTENTION = ".transformer_blocks.0.attn1"


class Diffusion(NamedTuple):
    """The parts of a Stable Diffusion pipeline that the method uses.

    Attributes:
        vae: An ``AutoencoderKL``.
        unet: A ``UNet2DConditionModel``.
        text_encoder: A ``CLIPTextModel``.
        tokenizer: Its ``CLIPTokenizer``.
    """

    vae: Any
    unet: Any
    text_encoder: Any
    tokenizer: Any


def layers_to_read(unet: Any, options: AffinityOptions) -> Layers:
    """The layers of some options by their full names.

    Args:
        unet: A ``UNet2DConditionModel``.
        options: Options of the affinity.

    Raises:
        ValueError: The options want noise, which is not implemented here.
        OptionError: A layer does not exist, or a weight cannot be used (``O01``).
    """
    if options.noise_seed >= 0:
        raise ValueError(
            f"noise_seed = {options.noise_seed}, but the pipeline in PyTorch adds no "
            "noise; leave it at -1"
        )
    if not options.layers:
        return UP_LAYERS
    names = latent_layers(UNetConfig.from_dict(unet.config))
    return find_layers(options.layers, names, "this UNet at full resolution")


@torch.no_grad()
def diffusion_affinity(
    parts: Diffusion,
    pixels: Float[Tensor, "size size 3"],
    *,
    layers: Sequence[tuple[str, float]] = UP_LAYERS,
    timestep: int = 0,
    temperature: float = 1.0,
    prompt: Float[Tensor, "1 tokens channels"] | None = None,
) -> Float[Tensor, "patches patches"]:
    """Weighted self-attention between the patches of a photo; rows sum to 1 (Eq. 5).

    Args:
        parts: The networks.
        pixels: RGB in [0, 1], already resized.
        layers: Transformers of the UNet by their path, and the weights of their
            self-attention.
        timestep: The timestep that the UNet is given; the latent has no noise.
        temperature: Every row becomes softmax(log(row) / temperature).
        prompt: The result of ``empty_prompt``, if it is known already.

    Returns:
        The affinity in float32. Memory: heads x patches^2 floats per captured layer.
    """
    latent = encode(parts.vae, pixels[None])
    maps: dict[str, Tensor] = {}
    handles = [
        parts.unet.get_submodule(name + _SELF_ATTENTION).register_forward_pre_hook(
            _capture(maps, name), with_kwargs=True
        )
        for name, _ in layers
    ]
    try:
        if prompt is None:
            prompt = empty_prompt(parts.text_encoder, parts.tokenizer)
        parts.unet(latent, timestep, encoder_hidden_states=prompt)
    finally:
        for handle in handles:
            handle.remove()
    total = torch.stack([weight * maps[name] for name, weight in layers]).sum(dim=0)
    affinity = total / total.sum(dim=1, keepdim=True)
    if temperature == 1:
        return affinity
    return torch.softmax(affinity.log() / temperature, dim=1)


@torch.no_grad()
def encode(
    vae: Any, pixels: Float[Tensor, "batch height width 3"]
) -> Float[Tensor, "batch latent_channels latent_height latent_width"]:
    """The scaled mean of the latent posterior of photos in [0, 1]."""
    scaled = (2 * pixels - 1).permute(0, 3, 1, 2).to(vae.dtype)
    return vae.config.scaling_factor * vae.encode(scaled).latent_dist.mode()


@torch.no_grad()
def empty_prompt(
    text_encoder: Any, tokenizer: Any
) -> Float[Tensor, "1 tokens channels"]:
    """Encode the empty prompt."""
    tokens = tokenizer(
        [""],
        padding="max_length",
        max_length=text_encoder.config.max_position_embeddings,
        return_tensors="pt",
    )
    ids = tokens.input_ids.to(text_encoder.device)
    return text_encoder(ids).last_hidden_state


def _capture(maps: dict[str, Tensor], name: str) -> Any:
    """A hook that computes the attention of a module from the tokens of its input."""

    def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tokens = args[0] if args else kwargs["hidden_states"]
        query = module.to_q(tokens)[0].unflatten(-1, (module.heads, -1)).transpose(0, 1)
        key = module.to_k(tokens)[0].unflatten(-1, (module.heads, -1)).transpose(0, 1)
        scores = query.float() @ key.float().mT * module.scale
        maps[name] = torch.softmax(scores, dim=-1).mean(dim=0)

    return hook
