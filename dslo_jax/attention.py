"""Where affinities come from: the self-attention of Stable Diffusion."""

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from dslo_jax.empty_prompt import load_empty_prompt
from dslo_jax.errors import CheckpointError, OptionError
from dslo_jax.models.checkpoint import read_config
from dslo_jax.models.diffusion_layers import attention_scores, take_head
from dslo_jax.models.unet import UNet, load_unet
from dslo_jax.models.unet_blocks import QueryKey
from dslo_jax.models.unet_config import UNetConfig
from dslo_jax.models.vae import VAE, VAEConfig, load_vae


_TAP = ".transformer_blocks.0.attn1"


def average_attention(
    queries_keys: Sequence[QueryKey],
    weights: Sequence[float],
    *,
    temperature: float = 1.0,
) -> Float[Array, "batch patches patches"]:
    """Weighted mean of self-attention maps over heads and layers.

    A = sum over layers of weight * mean over heads of softmax(q k^T / sqrt(d)), each
    row divided by its sum. No head or layer is ever stacked upon another.

    Args:
        queries_keys: Queries and keys of each layer, all on the same patches; heads,
            channels and types may differ.
        weights: One weight per layer, not negative, not all zero.
        temperature: t > 0 replaces A by A^(1/t), rows divided by their sum again:
            below 1 sharpens, above 1 softens, 1 leaves A as it is.

    Returns:
        The affinity in float32, rows sum to 1.

    Raises:
        ValueError: The lengths differ, a weight is negative, all are zero, or
            ``temperature`` is not positive.

    Memory:
        The result and one temporary of the same size: 2 x 64 MiB per photo at 4096
        patches, 2 x 1 GiB at 16384.
    """
    if len(queries_keys) != len(weights):
        raise ValueError(
            f"`weights` has {len(weights)} entries, expected one for each of the "
            f"{len(queries_keys)} layers"
        )
    _check_weights(weights)
    if not temperature > 0:
        raise ValueError(f"`temperature` is {temperature}, expected a positive number")
    batch, patches = queries_keys[0].query.shape[:2]
    affinity = jnp.zeros((batch, patches, patches), jnp.float32)
    for (query, key), weight in zip(queries_keys, weights, strict=True):
        affinity = _add_heads(affinity, query, key, weight / query.shape[2])
    if temperature != 1:
        # A row is scaled to maximum 1 first, so that no power underflows as a whole.
        peak = affinity.max(axis=-1, keepdims=True)
        affinity = (affinity / peak) ** (1 / temperature)
    return affinity / affinity.sum(axis=-1, keepdims=True)


def _add_heads(
    affinity: Float[Array, "batch patches patches"],
    query: Float[Array, "batch patches heads head_channels"],
    key: Float[Array, "batch patches heads head_channels"],
    weight: float,
) -> Float[Array, "batch patches patches"]:
    """Add the weighted map of every head, one at a time."""

    def add(affinity: Array, head: Array) -> tuple[Array, None]:
        scores = attention_scores(take_head(query, head), take_head(key, head))
        return affinity + weight * jax.nn.softmax(scores, axis=-1), None

    return jax.lax.scan(add, affinity, jnp.arange(query.shape[2]))[0]


class DiffusionAffinity(nnx.Module):
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
        layers: tuple[tuple[str, float], ...] = (),
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
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches; a patch is a latent."""
        side = self.size // self.vae.config.downscaling
        return side, side

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
        if pixels.shape[1:3] != (self.size, self.size):
            raise ValueError(
                f"`pixels` is {pixels.shape}, expected photos of {self.size} x "
                f"{self.size} pixels; resize them"
            )
        return self.vae(2 * pixels - 1)

    def attend(
        self, latents: Float[Array, "batch rows columns 4"]
    ) -> Float[Array, "batch patches patches"]:
        """The affinity between latents.

        Args:
            latents: What ``encode`` returned.

        Returns:
            Float32 affinity, rows sum to 1.

        Memory:
            See ``average_attention``.
        """
        taps = tuple(path + _TAP for path, _ in self.layers)
        context = self.context.get_value()
        queries_keys = self.unet(
            latents,
            jnp.broadcast_to(context, (len(latents), *context.shape[1:])),
            timestep=self.timestep,
            taps=taps,
        )
        return average_attention(
            tuple(queries_keys[tap] for tap in taps),
            tuple(weight for _, weight in self.layers),
            temperature=self.temperature,
        )

    def __call__(
        self, pixels: Float[Array, "batch size size 3"]
    ) -> Float[Array, "batch patches patches"]:
        """The affinity of photos: ``attend(encode(pixels))``."""
        return self.attend(self.encode(pixels))


def load_diffusion(
    folder: Path,
    *,
    dtype: jax.typing.DTypeLike = jnp.float32,
    size: int = 512,
    timestep: int = 0,
    layers: tuple[tuple[str, float], ...] = (),
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
    unet_config = UNetConfig.from_dict(read_config(folder / "unet"))
    VAEConfig.from_dict(read_config(folder / "vae"))
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


def downscaling_of(name_or_path: str | Path) -> int:
    """Pixels per patch along each side, told without loading or downloading anything.

    Args:
        name_or_path: A folder as for ``load_diffusion``, or any name.

    Returns:
        What the configuration says; 8, as in every Stable Diffusion, where there is no
        such folder.
    """
    vae = Path(name_or_path, "vae")
    return VAEConfig.from_dict(read_config(vae)).downscaling if vae.is_dir() else 8


def _check_weights(weights: Sequence[float]) -> None:
    if not sum(weights) > 0 or min(weights) < 0:
        raise OptionError(
            "O01",
            f"`weights` is {tuple(weights)}, expected numbers that are not negative "
            "and not all zero",
        )


def _check_layers(layers: tuple[tuple[str, float], ...], config: UNetConfig) -> None:
    """Only these layers see the latents at their own resolution."""
    last = len(config.block_out_channels) - 1
    valid = [
        tap.removesuffix(_TAP)
        for tap in config.taps
        if tap.startswith(("down_blocks.0.", f"up_blocks.{last}."))
    ]
    paths = [path for path, _ in layers]
    unknown = sorted(set(paths) - set(valid))
    if unknown or len(set(paths)) != len(paths):
        raise OptionError(
            "O01",
            f"`layers` names {unknown or paths}, expected different ones of "
            f"{', '.join(valid)}",
        )
    _check_weights([weight for _, weight in layers])
