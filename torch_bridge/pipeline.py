"""The whole method in PyTorch with the settings that its libraries recommend for speed.

It is what ``dslo bench pipeline --against torch`` measures beside this project. The
networks are those of diffusers and transformers. What they recommend is switched on:
``torch.inference_mode``, ``channels_last`` for convolutions, scaled dot-product
attention wherever no map is read, ``torch.compile``, and bfloat16 on a GPU. Photos of
one size share a pass of CLIP, and all photos of a batch share one of the VAE and the
UNet. The path is solved for all classes at once. The steps after the networks are those
of ``torch_bridge.reference``, photo by photo.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from jaxtyping import Float, UInt8
from torch import Tensor
from transformers import CLIPModel, CLIPTextModel

from dslo_jax import hub, images, prompts
from dslo_jax.config import SegmenterConfig
from dslo_jax.empty_prompt import load_empty_prompt
from dslo_jax.hub.folders import is_pipeline
from dslo_jax.pairs import find_pair
from dslo_jax.pipeline.sequences import photo_size
from dslo_jax.templates import find_templates
from torch_bridge import reference
from torch_bridge.reference.diffusion import layers_to_read
from torch_bridge.reference.sinkhorn import optimal_path_batched


class Networks(NamedTuple):
    """The networks in PyTorch, on their device.

    Attributes:
        clip: A ``CLIPModel``.
        tokenizer: Its tokenizer.
        vae: An ``AutoencoderKL``.
        unet: A ``UNet2DConditionModel``.
        prompt: The context of the empty prompt.
    """

    clip: Any
    tokenizer: Any
    vae: Any
    unet: Any
    prompt: Float[Tensor, "1 tokens channels"]


def load_networks(
    model: str, *, dtype: str = "auto", device: str = "auto", offline: bool = False
) -> Networks:
    """Load the networks of a pair, in the memory format for convolutions.

    Args:
        model: Name or folder of a pair with Stable Diffusion, as for ``dslo segment``.
        dtype: ``"float32"``, ``"bfloat16"``, ``"float16"``, or ``"auto"`` for float32
            on a CPU and bfloat16 elsewhere.
        device: A device of PyTorch, or ``"auto"`` for the GPU if there is one.
        offline: Whether to open no network connection.

    Raises:
        ValueError: The source of affinities of the pair is no Stable Diffusion.
    """
    pair = find_pair(model)
    clip_place = hub.resolve(pair.clip, "clip", offline=offline)
    place = hub.resolve(pair.attention, "attention", offline=offline)
    if not is_pipeline(place):
        raise ValueError(
            f"the attention of {model!r} is no Stable Diffusion; there is a PyTorch "
            "pipeline only for pairs with Stable Diffusion"
        )
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if dtype == "auto":
        dtype = "float32" if device == "cpu" else "bfloat16"
    kind = getattr(torch, dtype)
    clip: Any = CLIPModel.from_pretrained(clip_place, dtype=kind)
    # Otherwise diffusers warns that accelerate is missing, and does the same.
    usual: dict[str, Any] = {"torch_dtype": kind, "low_cpu_mem_usage": False}
    vae: Any = AutoencoderKL.from_pretrained(place / "vae", **usual)
    unet: Any = UNet2DConditionModel.from_pretrained(place / "unet", **usual)
    vae.decoder = vae.post_quant_conv = None  # only the encoder is used
    for network in (vae, unet):
        network.to(memory_format=torch.channels_last)
    for network in (clip, vae, unet):
        network.to(device).eval().requires_grad_(False)
    tokenizer = hub.find_tokenizer(
        clip_place, clip.config.text_config.vocab_size, offline=offline
    )
    prompt = _empty_prompt(place).to(device, unet.dtype)
    return Networks(clip, prompts.load_tokenizer(tokenizer), vae, unet, prompt)


class TorchPipeline:
    """Photos to labels in PyTorch.

    Args:
        networks: The networks.
        classes: The classes; their text features are computed once, here.
        config: The options of the method; those of the background are not used.
        compiled: Whether to compile the networks with ``torch.compile``.
    """

    def __init__(
        self,
        networks: Networks,
        classes: prompts.ClassList,
        config: SegmenterConfig,
        *,
        compiled: bool = True,
    ):
        self._config, self._classes = config, classes
        self._networks = networks
        self._device = networks.prompt.device
        self._patch = networks.clip.config.vision_config.patch_size
        with torch.inference_mode():
            self._text = reference.text_features(
                networks.clip,
                networks.tokenizer,
                classes.names,
                find_templates(config.clip.templates),
            ).float()
        layers = layers_to_read(networks.unet, config.affinity)
        self._taps = {name: _MeanAttention() for name, _ in layers}
        self._layers = layers
        for name, tap in self._taps.items():
            path = f"{name}.transformer_blocks.0.attn1"
            networks.unet.get_submodule(path).processor = tap
        # One program for each size of a batch, as this project compiles.
        prepare: Callable[[Any], Any] = (
            partial(torch.compile, dynamic=False) if compiled else lambda each: each
        )
        self._features = prepare(self._clip_features)
        self._encode = prepare(self._latents)
        self._attend = prepare(self._affinities)
        self._wait = True
        self.seconds: dict[str, float] = {}

    @torch.inference_mode()
    def __call__(
        self,
        photos: Sequence[UInt8[np.ndarray, "height width 3"]],
        *,
        wait: bool = True,
    ) -> list[np.ndarray]:
        """Segment a batch.

        Args:
            photos: RGB, on the host.
            wait: Whether each stage waits until the device has finished; then
                ``seconds`` is the time of each stage.

        Returns:
            The class of every pixel of each photo, on the host.
        """
        self._wait, self.seconds = wait, {}
        with self._stage("resize"):
            small, squares = self._resized(photos)
        with self._stage("clip"):
            features = self._all_features(small)
        affinities = None
        if self._config.discrepancy.needs_affinity:
            with self._stage("vae"):
                latents = self._encode(self._put(squares))
            with self._stage("unet"):
                affinities = self._attend(latents)
        return [
            self._label(photo, features[index], affinities, index)
            for index, photo in enumerate(photos)
        ]

    def _resized(
        self, photos: Sequence[np.ndarray]
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """The photos at their sizes for CLIP, and as squares."""
        options, side = self._config.clip, self._config.affinity.size
        small = []
        for photo in photos:
            size = photo_size(photo.shape[:2], options, self._patch)
            small.append(images.resize_photo(photo, size, method=options.resample))
        squares = [images.resize_photo(p, (side, side), method="area") for p in photos]
        return small, np.stack(squares)

    def _all_features(self, photos: Sequence[np.ndarray]) -> dict[int, Tensor]:
        """Features of all photos; those of one size in one pass."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, photo in enumerate(photos):
            groups.setdefault(photo.shape, []).append(index)
        found = {}
        for members in groups.values():
            pixels = self._put(np.stack([photos[index] for index in members]))
            found |= zip(members, self._features(pixels), strict=True)
        return found

    def _label(
        self,
        photo: np.ndarray,
        features: Tensor,
        affinities: Tensor | None,
        index: int,
    ) -> np.ndarray:
        with self._stage("logits"):
            logits = reference.class_logits(
                features, self._text, self._classes.class_of_name
            )
        side = self._config.affinity.size // self._downscaling
        found = reference.segment_logits(
            logits,
            logits.new_zeros(0, 0) if affinities is None else affinities[index],
            (side, side),
            torch.from_numpy(photo).to(self._device),
            config=self._config,
            find_path=optimal_path_batched,
        )
        for stage, seconds in found.seconds.items():
            self._add("labels" if stage == "upsample" else stage, seconds)
        with self._stage("labels"):
            return found.labels.cpu().numpy()

    def _clip_features(self, pixels: Tensor) -> Tensor:
        options = self._config.clip
        return reference.window_features(
            self._networks.clip,
            pixels / 255,
            attention=options.attention,
            window=options.window,
            stride=options.window_stride,
        ).float()

    def _latents(self, pixels: Tensor) -> Tensor:
        return reference.encode(self._networks.vae, pixels / 255)

    def _affinities(self, latents: Tensor) -> Tensor:
        """Weighted self-attention, one for each photo; rows sum to 1."""
        unet, prompt = self._networks.unet, self._networks.prompt
        unet(
            latents,
            self._config.affinity.timestep,
            encoder_hidden_states=prompt.expand(len(latents), -1, -1),
            return_dict=False,
        )
        maps = [weight * self._taps[name].mean for name, weight in self._layers]
        total = torch.stack(maps).sum(dim=0)
        affinity = total / total.sum(dim=2, keepdim=True)
        temperature = self._config.affinity.temperature
        if temperature == 1:
            return affinity
        return torch.softmax(affinity.log() / temperature, dim=2)

    @property
    def _downscaling(self) -> int:
        return 2 ** (len(self._networks.vae.config.block_out_channels) - 1)

    def _put(self, pixels: np.ndarray) -> Tensor:
        return torch.from_numpy(pixels).to(self._device).float()

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        if self._wait and self._device.type == "cuda":
            torch.cuda.synchronize()
        self._add(name, time.perf_counter() - start)

    def _add(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds


class _MeanAttention:
    """An attention processor of diffusers that also keeps the mean map of the heads.

    The map is computed in float32, one head after another: a stack of the maps of all
    heads would take 320 MiB for each photo. The tokens are mixed by the fused
    attention, which computes no map.
    """

    def __init__(self):
        self.mean: Any = None

    def __call__(
        self, attn: Any, hidden_states: Tensor, *_: Any, **__: Any
    ) -> Float[Tensor, "batch tokens channels"]:
        parts = (attn.to_q, attn.to_k, attn.to_v)
        query, key, value = (
            part(hidden_states).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for part in parts
        )
        total: Any = 0
        for head in range(attn.heads):
            scores = query[:, head].float() @ key[:, head].float().mT
            total = total + torch.softmax(scores * attn.scale, dim=-1)
        self.mean = total / attn.heads
        mixed = F.scaled_dot_product_attention(query, key, value)
        return attn.to_out[0](mixed.transpose(1, 2).flatten(2))


def _empty_prompt(place: Path) -> Float[Tensor, "1 tokens channels"]:
    """The context of the empty prompt, stored or computed; the encoder is dropped."""
    if not (place / "text_encoder").exists():
        return torch.from_numpy(load_empty_prompt(place))
    encoder = CLIPTextModel.from_pretrained(place / "text_encoder").eval()
    return reference.empty_prompt(encoder, prompts.load_tokenizer(place / "tokenizer"))
