"""The encoder of Stable Diffusion's autoencoder: from a photo to latents.

The decoder is not needed and never read. The encoder computes in the type of its
parameters, except that scores, softmax and the statistics of the normalisations are
float32.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from dslo_jax import tuning
from dslo_jax.models.config_fields import Fields
from dslo_jax.models.diffusion_layers import (
    Attention,
    Downsample,
    GroupNorm,
    ResnetBlock,
    convolution,
)
from dslo_jax.models.unet_config import NETWORK, OLD_PREFIX
from dslo_jax.weights import (
    config_source,
    load_module,
    open_weights,
    read_config,
)


_EPSILON = 1e-6
_BLOCK = "DownEncoderBlock2D"

# The values that our encoder has; the first is the default of diffusers for a field
# that is left out. Fields that are not named here concern only the decoder, or nothing.
_ALLOWED: Mapping[str, tuple[Any, ...]] = MappingProxyType(
    {
        "_class_name": ("AutoencoderKL", "FlaxAutoencoderKL"),
        "in_channels": (3,),
        "latent_channels": (4,),
        "act_fn": ("silu", "swish"),
        "shift_factor": (None, 0),
        "latents_mean": (None, 0),
        "latents_std": (None, 1),
        "use_quant_conv": (True,),
        "mid_block_add_attention": (True,),
    }
)

_IGNORED = (r"decoder\..*", r"post_quant_conv\..*")

# Checkpoints from before 2023 name the attention of the middle block differently.
_LEGACY = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


@dataclass(frozen=True)
class VAEConfig:
    """The shape of an autoencoder.

    Args:
        block_out_channels: Channels of each block; all but the last halve the sides.
        layers_per_block: Residual blocks in each block.
        norm_num_groups: Groups of every normalisation.
        scaling_factor: Factor between the posterior and the UNet's latents.
    """

    block_out_channels: tuple[int, ...] = (64,)
    layers_per_block: int = 1
    norm_num_groups: int = 32
    scaling_factor: float = 0.18215

    @classmethod
    def from_dict(
        cls, values: Mapping[str, Any], *, source: str | Path = "config.json"
    ) -> "VAEConfig":
        """Read a diffusers configuration, with its defaults for absent fields.

        Args:
            values: The parsed file.
            source: The file, to be named in errors.

        Raises:
            CheckpointError: ``W06`` for another architecture.
        """
        fields = Fields(values, source)
        fields.require(_ALLOWED, NETWORK)
        channels = fields.integers("block_out_channels", cls.block_out_channels)
        types = values.get("down_block_types") or (_BLOCK,)
        plain = [str(each).removeprefix(OLD_PREFIX) for each in types]
        if plain != [_BLOCK] * len(channels):
            raise fields.wrong(
                "down_block_types",
                f"{_BLOCK} for each of block_out_channels {list(channels)}",
            )
        groups = fields.integer("norm_num_groups", cls.norm_num_groups)
        if any(count % groups for count in channels):
            raise fields.wrong(
                "norm_num_groups", f"a divisor of block_out_channels {list(channels)}"
            )
        return cls(
            block_out_channels=channels,
            layers_per_block=fields.integer("layers_per_block", cls.layers_per_block),
            norm_num_groups=groups,
            scaling_factor=fields.number("scaling_factor", cls.scaling_factor),
        )

    @property
    def downscaling(self) -> int:
        """Pixels per latent along each side."""
        return 2 ** (len(self.block_out_channels) - 1)


def residual(
    in_channels: int, out_channels: int, config: VAEConfig, *, rngs: nnx.Rngs
) -> ResnetBlock:
    """A residual block of an autoencoder."""
    return ResnetBlock(
        in_channels,
        out_channels,
        groups=config.norm_num_groups,
        epsilon=_EPSILON,
        time_channels=None,
        rngs=rngs,
    )


class EncoderBlock(nnx.Module):
    """Residual blocks at one resolution, then half of it."""

    def __init__(self, config: VAEConfig, index: int, *, rngs: nnx.Rngs):
        out_channels = config.block_out_channels[index]
        in_channels = config.block_out_channels[max(index - 1, 0)]
        self.resnets = nnx.List(
            [
                residual(
                    in_channels if layer == 0 else out_channels,
                    out_channels,
                    config,
                    rngs=rngs,
                )
                for layer in range(config.layers_per_block)
            ]
        )
        last = index == len(config.block_out_channels) - 1
        self.downsamplers = nnx.List(
            [
                Downsample(out_channels, padding=((0, 1), (0, 1)), rngs=rngs)
                for _ in range(0 if last else 1)
            ]
        )

    def __call__(
        self, sample: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch out_height out_width out_channels"]:
        """Apply the block."""
        for resnet in self.resnets:
            sample = resnet(sample)
        for downsample in self.downsamplers:
            sample = downsample(sample)
        return sample


class SpatialAttention(Attention):
    """Single-head attention between all positions of a feature map."""

    def __init__(self, channels: int, *, groups: int, rngs: nnx.Rngs):
        super().__init__(channels, channels, heads=1, use_bias=True, rngs=rngs)
        self.group_norm = GroupNorm(channels, groups=groups, epsilon=_EPSILON)

    def __call__(
        self, sample: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch height width channels"]:
        """Apply the attention and add its input."""
        batch, height, width, channels = sample.shape
        tokens = self.group_norm(sample).reshape(batch, height * width, channels)
        mixed = self.attend(self.queries(tokens), self.keys_values(tokens))
        return sample + mixed.reshape(sample.shape)


class EncoderMidBlock(nnx.Module):
    """Two residual blocks around one attention."""

    def __init__(self, config: VAEConfig, *, rngs: nnx.Rngs):
        channels, groups = config.block_out_channels[-1], config.norm_num_groups
        self.resnets = nnx.List(
            [residual(channels, channels, config, rngs=rngs) for _ in range(2)]
        )
        self.attentions = nnx.List(
            [SpatialAttention(channels, groups=groups, rngs=rngs)]
        )

    def __call__(
        self, sample: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch height width channels"]:
        """Apply the block."""
        sample = self.resnets[0](sample)
        return self.resnets[1](self.attentions[0](sample))


class Encoder(nnx.Module):
    """From pixels to the moments of the posterior, before ``quant_conv``."""

    def __init__(self, config: VAEConfig, *, rngs: nnx.Rngs):
        channels = config.block_out_channels
        self.conv_in = convolution(3, channels[0], rngs=rngs)
        self.down_blocks = nnx.List(
            [EncoderBlock(config, index, rngs=rngs) for index in range(len(channels))]
        )
        self.mid_block = EncoderMidBlock(config, rngs=rngs)
        self.conv_norm_out = GroupNorm(
            channels[-1], groups=config.norm_num_groups, epsilon=_EPSILON
        )
        self.conv_out = convolution(channels[-1], 8, rngs=rngs)

    def __call__(
        self, pixels: Float[Array, "batch height width 3"]
    ) -> Float[Array, "batch latent_height latent_width 8"]:
        """Apply the encoder to pixels in [-1, 1]."""
        pixels = pixels.astype(self.conv_in.kernel.dtype)
        sample = tuning.by_platform(
            pixels,
            cpu=self.conv_in,
            gpu=self.conv_in,
            other=partial(by_patch, self.conv_in),
        )
        for block in self.down_blocks:
            sample = block(sample)
        sample = self.mid_block(sample)
        return self.conv_out(jax.nn.silu(self.conv_norm_out(sample)))


def by_patch(
    conv: nnx.Conv, pixels: Float[Array, "batch height width channels"]
) -> Float[Array, "batch height width out_channels"]:
    """A 3 x 3 convolution, as a product with the 9 pixels around each pixel, for TPUs.

    Their compiler divides the columns of few photos into eight strips. A convolution
    with a margin would begin with strips of an odd width, 65 of 512 columns. Those are
    joined and divided anew before the first convolution with a stride of two.
    """
    _, height, width, _ = pixels.shape
    padded = jnp.pad(pixels, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows = jnp.concatenate([padded[:, :, i : i + width] for i in range(3)], axis=-1)
    patches = jnp.concatenate([rows[:, i : i + height] for i in range(3)], axis=-1)
    kernel = conv.kernel.get_value()
    products = jax.lax.conv_general_dilated(
        patches,
        kernel.reshape(1, 1, -1, kernel.shape[-1]),
        window_strides=(1, 1),
        padding="VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    assert conv.bias is not None
    return products + conv.bias.get_value()[None, None, None]


class VAE(nnx.Module):
    """The encoding half of an autoencoder.

    Args:
        config: The shape of the network.
        rngs: Keys for the initial parameters.
    """

    def __init__(self, config: VAEConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.encoder = Encoder(config, rngs=rngs)
        self.quant_conv = convolution(8, 8, size=1, padding=((0, 0), (0, 0)), rngs=rngs)

    def __call__(
        self, pixels: Float[Array, "batch height width 3"]
    ) -> Float[Array, "batch latent_height latent_width 4"]:
        """Encode a batch of photos without sampling.

        Args:
            pixels: RGB in [-1, 1].

        Returns:
            The mean of the posterior times the scaling factor. Each of the
            ``log2(downscaling)`` halvings rounds an odd side down.

        Memory:
            Each of the ``softmax_attention.attend`` of its only attention, where tokens
            are latents: 64 MiB per photo for 512 x 512 pixels.
        """
        moments = self.quant_conv(self.encoder(pixels))
        return moments[..., :4] * self.config.scaling_factor


def load_vae(folder: Path, *, dtype: jax.typing.DTypeLike = jnp.float32) -> VAE:
    """Load the ``vae`` folder of a diffusers pipeline.

    Args:
        folder: Holds ``config.json`` and safetensors weights.
        dtype: Type of the parameters and of the computation.

    Returns:
        The encoder; the decoder's weights are not read.

    Raises:
        CheckpointError: Another architecture (``W06``, before any weight is read), or
            a fault of the files.
    """
    config = VAEConfig.from_dict(read_config(folder), source=config_source(folder))
    return load_module(
        partial(VAE, config),
        open_weights(folder),
        dtype=dtype,
        rename=modern_key,
        ignored=_IGNORED,
    )


def modern_key(key: str) -> str:
    """Today's spelling of a key of an autoencoder checkpoint."""
    return re.sub(
        r"(?<=\.attentions\.0\.)(query|key|value|proj_attn)(?=\.)",
        lambda match: _LEGACY[match[0]],
        key,
    )
