"""Tiny Stable Diffusion folders, as diffusers writes them, with random weights."""

import inspect
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

from checkpoints.clip import (
    save_text_encoder,
    save_tokenizer as save_tokenizer,
)


WEIGHTS = "diffusion_pytorch_model.safetensors"

_LEGACY = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def save_unet(
    folder: Path,
    *,
    seed: int,
    channels: tuple[int, ...] = (16, 32),
    attention: tuple[bool, ...] = (True, False),
    layers_per_block: int = 1,
    heads: int | list[int] = 2,
    context_channels: int = 24,
    groups: int = 4,
    linear: bool = True,
    flip_sin_to_cos: bool = True,
    freq_shift: int = 0,
    dtype: torch.dtype = torch.float32,
    max_shard_size: str = "1GB",
) -> UNet2DConditionModel:
    """Write a UNet and return it; ``attention`` says which levels have some."""
    down = ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attention]
    up = ["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)]
    network = UNet2DConditionModel(
        block_out_channels=channels,
        down_block_types=tuple(down),
        up_block_types=tuple(up),
        layers_per_block=layers_per_block,
        attention_head_dim=heads,
        cross_attention_dim=context_channels,
        norm_num_groups=groups,
        use_linear_projection=linear,
        flip_sin_to_cos=flip_sin_to_cos,
        freq_shift=freq_shift,
    )
    return _save(network, folder, seed, dtype, max_shard_size)


def save_vae(
    folder: Path,
    *,
    seed: int,
    channels: tuple[int, ...] = (8, 16),
    layers_per_block: int = 1,
    groups: int = 4,
    dtype: torch.dtype = torch.float32,
    max_shard_size: str = "1GB",
) -> AutoencoderKL:
    """Write an autoencoder and return it."""
    network = AutoencoderKL(
        block_out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        layers_per_block=layers_per_block,
        norm_num_groups=groups,
    )
    return _save(network, folder, seed, dtype, max_shard_size)


def save_pipeline(
    folder: Path, *, seed: int, version: int = 2
) -> tuple[AutoencoderKL, UNet2DConditionModel, CLIPTextModel]:
    """Write the parts of a pipeline like those of Stable Diffusion 1 or 2.

    As in Stable Diffusion 2, two files of the tokenizer disagree on the pad token: it
    is "!", as ``special_tokens_map.json`` says. Stable Diffusion 1 pads with the end of
    the text, has 8 heads on every level (``attention_head_dim`` is their number),
    convolutions around its transformers, and the text encoder of OpenAI's CLIP.
    """
    pad = "!" if version == 2 else "<|endoftext|>"
    save_tokenizer(folder / "tokenizer", pad_token=pad)
    settings = folder / "tokenizer" / "tokenizer_config.json"
    values = json.loads(settings.read_text()) | {"pad_token": "<|endoftext|>"}
    settings.write_text(json.dumps(values))
    text_encoder = save_text_encoder(
        folder / "text_encoder",
        seed=seed,
        activation="gelu" if version == 2 else "quick_gelu",
    )
    unet = save_unet(
        folder / "unet",
        seed=seed + 1,
        context_channels=text_encoder.config.hidden_size,
        **({} if version == 2 else {"heads": 8, "linear": False}),
    )
    return save_vae(folder / "vae", seed=seed + 2), unet, text_encoder


def use_legacy_attention(folder: Path, *, convolution: bool) -> None:
    """Respell the attention of an autoencoder as files from before 2023 do."""
    tensors = {}
    for key, value in load_file(folder / WEIGHTS).items():
        for modern, legacy in _LEGACY.items():
            if f".attentions.0.{modern}." in key:
                key = key.replace(modern, legacy)
                if convolution and value.ndim == 2:
                    value = value[:, :, None, None].contiguous()
        tensors[key] = value
    save_file(tensors, folder / WEIGHTS)


def default_of(network: type, field: str) -> object:
    """Defaults of diffusers for fields that a configuration omits."""
    return inspect.signature(network).parameters[field].default


def edit_config(folder: Path, **fields: object) -> None:
    """Overwrite fields of a ``config.json``; ``None`` removes one."""
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **fields}
    config = {key: value for key, value in config.items() if value is not None}
    path.write_text(json.dumps(config))


def record(network: torch.nn.Module, names: list[str], run: Callable[[], object]):
    """Arguments, keyword arguments and output of named submodules during ``run()``."""
    calls: dict[str, tuple] = {}

    def keep(name: str):
        return lambda _, args, kwargs, output: calls.update(
            {name: (args, kwargs, output)}
        )

    hooks = [
        network.get_submodule(name).register_forward_hook(keep(name), with_kwargs=True)
        for name in names
    ]
    with torch.inference_mode():
        run()
    for hook in hooks:
        hook.remove()
    return calls


def latents_of(vae: AutoencoderKL, pixels: np.ndarray) -> np.ndarray:
    """Scaled posterior mean of NHWC pixels in [-1, 1], NHWC."""
    with torch.inference_mode():
        posterior = vae.encode(to_nchw(pixels)).latent_dist
    return to_nhwc(posterior.mode() * vae.config.scaling_factor)


def attention_maps(
    unet: UNet2DConditionModel, latents: np.ndarray, timestep: int, context: np.ndarray
) -> dict[str, np.ndarray]:
    """The probabilities of every self-attention, ``[batch heads tokens tokens]``."""
    maps: dict[str, np.ndarray] = {}

    def processor(path: str):
        def attend(
            attention: Attention,
            hidden: torch.Tensor,
            encoder_hidden_states: torch.Tensor | None = None,
            attention_mask: torch.Tensor | None = None,
        ) -> torch.Tensor:
            inner = hidden if encoder_hidden_states is None else encoder_hidden_states
            query, key, value = (
                attention.head_to_batch_dim(tokens)
                for tokens in (
                    attention.to_q(hidden),
                    attention.to_k(inner),
                    attention.to_v(inner),
                )
            )
            scores = attention.get_attention_scores(query, key, attention_mask)
            if path.endswith("attn1"):
                maps[path] = scores.numpy().reshape(len(hidden), -1, *scores.shape[1:])
            return attention.to_out[0](attention.batch_to_head_dim(scores @ value))

        return attend

    unet.set_attn_processor(
        {
            name: processor(name.removesuffix(".processor"))
            for name in unet.attn_processors
        }
    )
    with torch.inference_mode():
        unet(to_nchw(latents), timestep, torch.from_numpy(context))
    unet.set_attn_processor(AttnProcessor())
    return maps


def _save(network, folder: Path, seed: int, dtype: torch.dtype, max_shard_size: str):
    """Randomise, round to ``dtype``, write, and return in float32."""
    _randomise(network, seed)
    for parameter in network.parameters():
        parameter.data = parameter.data.to(dtype)
    network.eval().save_pretrained(folder, max_shard_size=max_shard_size)
    for parameter in network.parameters():
        parameter.data = parameter.data.float()
    return network


@torch.no_grad()
def _randomise(network: torch.nn.Module, seed: int) -> None:
    """Give every parameter a size at which its absence or misuse shows.

    Queries and keys are enlarged, because initial weights leave attention close to
    uniform, where no error of theirs would be seen.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, value in sorted(network.named_parameters()):
        noise = torch.randn(value.shape, generator=generator)
        if "norm" in name:
            value.copy_(0.2 * noise + (1.0 if name.endswith("weight") else 0.0))
        elif value.ndim < 2:
            value.copy_(0.2 * noise)
        else:
            gain = 2.0 if "to_q" in name or "to_k" in name else 1.0
            value.copy_(gain * noise / value[0].numel() ** 0.5)


def to_nchw(values: np.ndarray) -> torch.Tensor:
    """From channels last to torch."""
    return torch.from_numpy(np.ascontiguousarray(values.transpose(0, 3, 1, 2)))


def to_nhwc(values: torch.Tensor) -> np.ndarray:
    """From torch to channels last."""
    return values.numpy().transpose(0, 2, 3, 1)
