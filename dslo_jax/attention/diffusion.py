"""Affinities from the self-attention of Stable Diffusion."""

import copy
import dataclasses
import math
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from dslo_jax.attention.layers import find_layers
from dslo_jax.attention.options import AffinityOptions
from dslo_jax.attention.source import AffinitySource
from dslo_jax.cost import Work, networks as costs
from dslo_jax.empty_prompt import load_empty_prompt
from dslo_jax.errors import CheckpointError, OptionError
from dslo_jax.models.noise_schedule import add_noise, read_schedule
from dslo_jax.models.unet import UNet, load_unet
from dslo_jax.models.unet_config import UNetConfig
from dslo_jax.models.vae import VAE, VAEConfig, load_vae
from dslo_jax.weights import read_config


_TAP = ".transformer_blocks.0.attn1"


class DiffusionAffinity(AffinitySource):
    """Source of affinities: the self-attention of Stable Diffusion.

    A single pass without a prompt and without guidance encodes the photo to latents,
    computes the self-attentions of the UNet on them, and averages these. Noise is added
    to the latents only if ``noise_seed`` is 0 or more.

    Args:
        vae: The encoder.
        unet: The network whose attention is read.
        context: ``[1 tokens channels]``, the context of the empty prompt. Its keys and
            values in the UNet are computed here, once for all photos.
        options: The size must be a multiple of ``vae.downscaling``. The layers are
            attention modules at the resolution of the latents, which are those of the
            first down block and of the last up block: their paths, their names in the
            paper, or their indices among them. An empty list stands for the first two
            of the last up block, half each.
        place: The pipeline folder with the noise schedule; ``None`` if there is none.

    Raises:
        OptionError: The size is not such a multiple, a layer is not one of these, the
            weights are negative or all zero, or the timestep has no noise (``O01``).
        CheckpointError: Noise is wanted, and there is no schedule (``W01``), or it is
            of another kind (``W06``).
    """

    stages: ClassVar[tuple[str, str]] = ("vae", "unet")

    def __init__(
        self,
        vae: VAE,
        unet: UNet,
        context: Float[Array, "1 tokens channels"],
        options: AffinityOptions = AffinityOptions(),
        place: Path | None = None,
    ):
        self.vae = vae
        self.unet = unet
        self.place = place
        self.options = self._complete(options)
        self.kept = self._kept(options)
        self.context_tokens = context.shape[1]
        with jax.default_matmul_precision("highest"):
            self.context = nnx.Variable(unet.keys_values(context))

    @classmethod
    def load(
        cls,
        place: Path,
        *,
        dtype: jax.typing.DTypeLike = jnp.float32,
        options: AffinityOptions = AffinityOptions(),
    ) -> "DiffusionAffinity":
        """Load a Stable Diffusion 1 or 2 pipeline in the layout of diffusers.

        Args:
            place: A folder with ``unet/``, ``vae/``, and ``text_encoder/`` with
                ``tokenizer/`` or ``empty_prompt.safetensors``. The noise also needs
                ``scheduler/scheduler_config.json``.
            dtype: As for ``AffinitySource``.
            options: As for the class.
        """
        # The configurations are checked before gigabytes of weights are read.
        unet, vae = place / "unet", place / "vae"
        unet_config = UNetConfig.from_dict(
            read_config(unet), source=unet / "config.json"
        )
        VAEConfig.from_dict(read_config(vae), source=vae / "config.json")
        context = load_empty_prompt(place)
        if context.shape[-1] != unet_config.cross_attention_dim:
            raise CheckpointError(
                "W06",
                f"the empty prompt of {place} has {context.shape[-1]} channels, "
                f"wanted cross_attention_dim {unet_config.cross_attention_dim}",
            )
        return cls(
            load_vae(vae, dtype=dtype),
            load_unet(unet, dtype=dtype),
            jnp.asarray(context, dtype),
            options,
            place,
        )

    @property
    def downscaling(self) -> int:
        """Pixels per patch along each side; a patch is a latent."""
        return self.vae.config.downscaling

    @property
    def comparable_layers(self) -> tuple[str, ...]:
        """The five self-attentions of Table 3, at the resolution of the latents."""
        return latent_layers(self.unet.config)

    @property
    def encoding(self) -> tuple[int]:
        """Option that ``encode`` depends on: the size of the photo."""
        return (self.options.size,)

    def encode(
        self, pixels: Float[Array, "batch size size 3"]
    ) -> Float[Array, "batch rows columns 4"]:
        """Encode photos to latents: mean of the posterior, times the scaling factor.

        See ``AffinitySource`` for the photos.
        """
        self.require_size(pixels)
        return self.vae(2 * pixels - 1)

    def attend(
        self, encoded: Float[Array, "batch rows columns 4"]
    ) -> Float[Array, "batch patches patches"]:
        """The affinity between latents; see ``AffinitySource``."""
        taps = tuple(path + _TAP for path, _ in self.options.layers)
        if self.kept is not None:
            encoded = add_noise(encoded, self.options.noise_seed, self.kept)
        queries_keys = self.unet(
            encoded,
            self.context.get_value(),
            timestep=self.options.timestep,
            taps=taps,
        )
        return self.averaged([queries_keys[tap] for tap in taps])

    def with_options(self, options: AffinityOptions) -> "DiffusionAffinity":
        """The same networks with other options; see ``AffinitySource``."""
        other = copy.copy(self)  # shares the networks and the context
        other.options = self._complete(options)
        other.kept = self._kept(options)
        return other

    def networks(self) -> dict[str, list[Any]]:
        """The autoencoder and the UNet."""
        return {"vae": [self.vae], "unet": [self.unet]}

    def work(self) -> dict[str, Work]:
        """Computation of the autoencoder, the UNet and the averaging."""
        config, size = self.unet.config, self.options.size
        taps = [path + _TAP for path, _ in self.options.layers]
        layers = [(config.heads[0], config.block_out_channels[0])] * len(taps)
        return {
            "vae": costs.vae(self.vae.config, size, size),
            "unet": costs.unet(config, self.grid, self.context_tokens, taps),
            "aggregation": costs.aggregation(layers, math.prod(self.grid)),
        }

    def _complete(self, options: AffinityOptions) -> AffinityOptions:
        """The options with the names of the layers, checked."""
        if options.size % self.vae.config.downscaling:
            raise OptionError(
                "O01",
                f"affinity_size = {options.size} is not a multiple of "
                f"{self.vae.config.downscaling}, the pixels of a latent of this VAE",
            )
        config = self.unet.config
        last = f"up_blocks.{len(config.block_out_channels) - 1}.attentions"
        usual = ((f"{last}.0", 0.5), (f"{last}.1", 0.5))
        layers = find_layers(
            options.layers or usual,
            latent_layers(config),
            "this UNet at full resolution",
        )
        return dataclasses.replace(options, layers=layers)

    def _kept(self, options: AffinityOptions) -> float | None:
        """The share of the variance that is not noise; ``None`` without noise."""
        if options.noise_seed < 0:
            return None
        if self.place is None:
            raise OptionError(
                "O01",
                f"noise_seed = {options.noise_seed}, but this source was made without "
                "a folder, which states the noise of a timestep; pass `place`, or "
                "leave noise_seed at -1",
            )
        schedule = read_schedule(self.place)
        if options.timestep >= schedule.timesteps:
            raise OptionError(
                "O01",
                f"timestep = {options.timestep}, but the noise schedule of "
                f"{self.place} has the timesteps 0 ... {schedule.timesteps - 1}",
            )
        return schedule.kept(options.timestep)


def latent_layers(config: UNetConfig) -> tuple[str, ...]:
    """Paths of the attentions at the resolution of the latents, in order."""
    last = len(config.block_out_channels) - 1
    ends = ("down_blocks.0.", f"up_blocks.{last}.")
    return tuple(tap.removesuffix(_TAP) for tap in config.taps if tap.startswith(ends))
