"""The UNet of Stable Diffusion 1 and 2, up to the attentions that are asked for.

It computes in the type of its parameters, except that scores, softmax and the
statistics of the normalisations are float32.
"""

import math
from collections.abc import Generator
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from dslo_jax.models.diffusion_layers import convolution
from dslo_jax.models.query_key import KeyValue, QueryKey
from dslo_jax.models.unet_blocks import Context, DownBlock, MidBlock, Tap, UpBlock
from dslo_jax.models.unet_config import UNetConfig
from dslo_jax.weights import (
    config_source,
    load_module,
    open_weights,
    read_config,
)


# No self-attention comes after these.
_IGNORED = (r"conv_norm_out\..*", r"conv_out\..*")

_MAX_PERIOD = 10_000


class TimeEmbedding(nnx.Module):
    """Sinusoids of the timestep through two linear maps."""

    def __init__(self, config: UNetConfig, *, rngs: nnx.Rngs):
        self.config = config
        channels, width = config.block_out_channels[0], config.time_channels
        self.linear_1 = nnx.Linear(channels, width, rngs=rngs)
        self.linear_2 = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, timestep: int) -> Float[Array, "1 time_channels"]:
        """Embed one timestep."""
        waves = sinusoids(
            timestep,
            self.config.block_out_channels[0],
            freq_shift=self.config.freq_shift,
            flip_sin_to_cos=self.config.flip_sin_to_cos,
        )
        return self.embed(jnp.asarray(waves, self.linear_1.kernel.dtype)[None])

    def embed(
        self, waves: Float[Array, "batch channels"]
    ) -> Float[Array, "batch time_channels"]:
        """Embed the sinusoids of one timestep for each row."""
        return self.linear_2(jax.nn.silu(self.linear_1(waves)))


def sinusoids(
    timestep: int, channels: int, *, freq_shift: float, flip_sin_to_cos: bool
) -> np.ndarray:
    """Sines and cosines of the timestep at falling frequencies.

    Args:
        timestep: 0 (no noise) ... 999.
        channels: Length of the result, an even number.
        freq_shift: Offset in the denominator of the exponents.
        flip_sin_to_cos: Whether the cosines come first.

    Returns:
        float32 ``[channels]``. A constant: the timestep is known while tracing.
    """
    half = channels // 2
    exponents = -math.log(_MAX_PERIOD) * np.arange(half, dtype=np.float32)
    frequencies = np.exp(exponents / np.float32(half - freq_shift))
    angles = np.float32(timestep) * frequencies
    waves = [np.sin(angles), np.cos(angles)]
    return np.concatenate(waves[::-1] if flip_sin_to_cos else waves)


class UNet(nnx.Module):
    """A UNet without its output layers, which no self-attention needs.

    Args:
        config: The shape of the network.
        rngs: Keys for the initial parameters.
    """

    def __init__(self, config: UNetConfig, *, rngs: nnx.Rngs):
        levels = range(len(config.block_out_channels))
        self.config = config
        self.conv_in = convolution(4, config.block_out_channels[0], rngs=rngs)
        self.time_embedding = TimeEmbedding(config, rngs=rngs)
        self.down_blocks = nnx.List([DownBlock(config, i, rngs=rngs) for i in levels])
        self.mid_block = MidBlock(config, rngs=rngs)
        self.up_blocks = nnx.List([UpBlock(config, i, rngs=rngs) for i in levels])

    def keys_values(
        self, context: Float[Array, "batch context_tokens context_channels"]
    ) -> dict[str, KeyValue]:
        """Compute the keys and values of a prompt for every attention to it.

        They depend on nothing else, so those of a fixed prompt are computed once.

        Args:
            context: Tokens of the prompt.

        Returns:
            For each path of such an attention
            ``[batch context_tokens heads head_channels]``.
        """
        context = context.astype(self.conv_in.kernel.dtype)
        levels = {"mid_block": self.mid_block}
        levels |= {f"down_blocks.{i}": b for i, b in enumerate(self.down_blocks)}
        levels |= {f"up_blocks.{i}": b for i, b in enumerate(self.up_blocks)}
        found = {}
        for path, level in levels.items():
            for index, transformer in enumerate(level.attentions):
                (block,) = transformer.transformer_blocks
                name = f"{path}.attentions.{index}.transformer_blocks.0.attn2"
                found[name] = block.attn2.keys_values(context)
        return found

    def __call__(
        self,
        latents: Float[Array, "batch height width 4"],
        context: Context,
        *,
        timestep: int,
        taps: tuple[str, ...],
    ) -> dict[str, QueryKey]:
        """Run the network up to the last of the tapped self-attentions.

        Args:
            latents: Scaled latents; sides of any size.
            context: Keys and values of the prompt, from ``keys_values``.
            timestep: 0 (no noise) ... 999; static.
            taps: Paths of self-attentions from ``config.taps``; static.

        Returns:
            Queries and keys of each tap, ``[batch tokens heads head_channels]``.

        Raises:
            ValueError: ``taps`` is empty or names something else.

        Memory:
            Each of the network's own attentions: see ``softmax_attention.attend``.
        """
        unknown = sorted(set(taps) - set(self.config.taps))
        if unknown or not taps:
            raise ValueError(
                f"`taps` is {unknown or taps}, expected one or more of "
                f"{', '.join(self.config.taps)}"
            )
        found: dict[str, QueryKey] = {}
        time = self.time_embedding(timestep)
        for path, query_key in self._self_attentions(latents, context, time):
            if path in taps:
                found[path] = query_key
            if len(found) == len(set(taps)):
                break
        return {tap: found[tap] for tap in taps}

    def _self_attentions(
        self,
        latents: Float[Array, "batch height width 4"],
        context: Context,
        time: Float[Array, "#batch time_channels"],
    ) -> Generator[Tap, None, Array]:
        """Yield every self-attention in order; returns the last block's output."""
        dtype = self.conv_in.kernel.dtype
        sample = self.conv_in(latents.astype(dtype))
        time = jnp.broadcast_to(time, (len(latents), time.shape[1]))
        skips = [sample]
        for index, block in enumerate(self.down_blocks):
            outputs = yield from block(sample, time, context, f"down_blocks.{index}")
            skips += outputs
            sample = outputs[-1]
        sample = yield from self.mid_block(sample, time, context, "mid_block")
        for index, block in enumerate(self.up_blocks):
            taken = len(block.resnets)
            used, skips = skips[-taken:], skips[:-taken]
            following = skips[-1] if skips else sample
            sample = yield from block(
                sample,
                time,
                context,
                f"up_blocks.{index}",
                skips=used,
                size=following.shape[1:3],
            )
        return sample


def load_unet(folder: Path, *, dtype: jax.typing.DTypeLike = jnp.float32) -> UNet:
    """Load the ``unet`` folder of a diffusers pipeline.

    Args:
        folder: Holds ``config.json`` and safetensors weights.
        dtype: Type of the parameters and of the computation.

    Returns:
        The network without its output layers.

    Raises:
        CheckpointError: Another architecture (``W06``, before any weight is read), or
            a fault of the files.
    """
    config = UNetConfig.from_dict(read_config(folder), source=config_source(folder))
    return load_module(
        partial(UNet, config),
        open_weights(folder),
        dtype=dtype,
        ignored=_IGNORED,
    )
