"""The self-attention of Stable Diffusion as affinity."""

from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from dslo_jax.attention.source import AffinitySource, Layers, wrong_layers
from dslo_jax.empty_prompt import load_empty_prompt
from dslo_jax.errors import CheckpointError, OptionError
from dslo_jax.models.unet import UNet, load_unet
from dslo_jax.models.unet_config import UNetConfig
from dslo_jax.models.vae import VAE, VAEConfig, load_vae
from dslo_jax.weights import read_config


_TAP = ".transformer_blocks.0.attn1"


class DiffusionAffinity(AffinitySource):
    """The affinity of a photo in the eyes of Stable Diffusion.

    One pass without noise, without a prompt and without guidance: photo to latents,
    latents to the self-attentions of the UNet, and their mean.

    Args:
        vae: The encoder.
        unet: The network whose attention is read.
        context: ``[1 tokens channels]``, the empty prompt.
        size: Side of the square photo, in pixels; a multiple of ``vae.downscaling``.
        timestep: 0 (no noise) ... 999.
        layers: Paths of attention modules and their weights, at the resolution of the
            latents: those of the first down block and of the last up block. Empty for
            the first two of the last up block, half each.
        temperature: Softens (> 1) or sharpens (< 1) the affinity.

    Raises:
        ValueError: ``size`` or ``timestep`` is out of range.
        OptionError: ``layers`` names others, or a weight is no weight.
    """

    def __init__(
        self,
        vae: VAE,
        unet: UNet,
        context: Float[Array, "1 tokens channels"],
        *,
        size: int = 512,
        timestep: int = 0,
        layers: Layers = (),
        temperature: float = 1.0,
    ):
        if size <= 0 or size % vae.config.downscaling:
            raise ValueError(
                f"`size` is {size}, expected a positive multiple of "
                f"{vae.config.downscaling} pixels"
            )
        if not 0 <= timestep < 1000:
            raise ValueError(f"`timestep` is {timestep}, expected 0 ... 999")
        last = f"up_blocks.{len(unet.config.block_out_channels) - 1}.attentions"
        self.layers = layers or ((f"{last}.0", 0.5), (f"{last}.1", 0.5))
        _check_layers(self.layers, unet.config)
        self.vae = vae
        self.unet = unet
        self.context = nnx.Variable(context)
        self.size = size
        self.timestep = timestep
        self.temperature = temperature

    @property
    def downscaling(self) -> int:
        """Pixels per latent; a patch is a latent."""
        return self.vae.config.downscaling

    @property
    def encoding(self) -> tuple[int]:
        """Size of the photo."""
        return (self.size,)

    def encode(
        self, pixels: Float[Array, "batch size size 3"]
    ) -> Float[Array, "batch rows columns 4"]:
        """Encode photos.

        Args:
            pixels: RGB in [0, 1], ``size`` pixels square.

        Returns:
            The latents: mean of the posterior times the scaling factor.

        Raises:
            ValueError: The photos have another size.
        """
        self.require_size(pixels)
        return self.vae(2 * pixels - 1)

    def attend(
        self, encoded: Float[Array, "batch rows columns 4"]
    ) -> Float[Array, "batch patches patches"]:
        """The affinity between latents.

        Args:
            encoded: What ``encode`` returned.

        Returns:
            Float32 affinity, rows sum to 1.

        Memory:
            See ``average_attention``.
        """
        taps = tuple(path + _TAP for path, _ in self.layers)
        context = self.context.get_value()
        queries_keys = self.unet(
            encoded,
            jnp.broadcast_to(context, (len(encoded), *context.shape[1:])),
            timestep=self.timestep,
            taps=taps,
        )
        return self.averaged([queries_keys[tap] for tap in taps])

    def with_choices(
        self, *, size: int, timestep: int, layers: Layers, temperature: float
    ) -> "DiffusionAffinity":
        """The same networks with other choices; see ``AffinitySource``."""
        return DiffusionAffinity(
            self.vae,
            self.unet,
            self.context.get_value(),
            size=size,
            timestep=timestep,
            layers=layers,
            temperature=temperature,
        )


def load_diffusion(
    folder: Path,
    *,
    dtype: jax.typing.DTypeLike = jnp.float32,
    size: int = 512,
    timestep: int = 0,
    layers: Layers = (),
    temperature: float = 1.0,
) -> DiffusionAffinity:
    """Load a Stable Diffusion 1 or 2 pipeline in the layout of diffusers.

    Args:
        folder: Holds ``unet/``, ``vae/``, and ``text_encoder/`` with ``tokenizer/`` or
            ``empty_prompt.safetensors``.
        dtype: Type of the parameters and of the computation of both networks.
        size: Side of the square photo, in pixels.
        timestep: 0 (no noise) ... 999.
        layers: Paths of attention modules and their weights; see
            ``DiffusionAffinity``.
        temperature: Softens (> 1) or sharpens (< 1) the affinity.

    Returns:
        The affinity source. True float32 needs the caller to trace it under
        ``jax.default_matmul_precision("highest")``.

    Raises:
        CheckpointError: A part is missing, foreign or damaged.
        ValueError: ``size`` or ``timestep`` is out of range.
        OptionError: ``layers`` names others, or a weight is no weight.
    """
    # Foreign architectures are told from their configurations, before gigabytes move.
    unet_config = UNetConfig.from_dict(
        read_config(folder / "unet"), source=folder / "unet" / "config.json"
    )
    VAEConfig.from_dict(
        read_config(folder / "vae"), source=folder / "vae" / "config.json"
    )
    context = load_empty_prompt(folder)
    if context.shape[-1] != unet_config.cross_attention_dim:
        raise CheckpointError(
            "W06",
            f"the empty prompt of {folder} has {context.shape[-1]} channels, "
            f"wanted cross_attention_dim {unet_config.cross_attention_dim}",
        )
    return DiffusionAffinity(
        load_vae(folder / "vae", dtype=dtype),
        load_unet(folder / "unet", dtype=dtype),
        jnp.asarray(context, dtype),
        size=size,
        timestep=timestep,
        layers=layers,
        temperature=temperature,
    )


def _check_layers(layers: Layers, config: UNetConfig) -> None:
    """Only these layers see the latents at their own resolution."""
    last = len(config.block_out_channels) - 1
    valid = [
        tap.removesuffix(_TAP)
        for tap in config.taps
        if tap.startswith(("down_blocks.0.", f"up_blocks.{last}."))
    ]
    if wrong := wrong_layers(layers, valid):
        raise OptionError(
            "O01",
            f"`layers` names {wrong}, expected different ones of {', '.join(valid)}",
        )
