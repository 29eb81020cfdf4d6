"""The blocks of the UNet, as generators of their self-attentions.

A block yields the queries and keys of each self-attention as soon as they are computed,
and returns its output at its end. The caller can stop after the last attention that it
needs; the rest of the network is then never traced.
"""

from collections.abc import Generator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from dslo_jax.models.diffusion_layers import (
    Attention,
    Downsample,
    GroupNorm,
    ResnetBlock,
    convolution,
)
from dslo_jax.models.layer_norm import LayerNorm
from dslo_jax.models.query_key import KeyValue, QueryKey
from dslo_jax.models.unet_config import UNetConfig


Tap = tuple[str, QueryKey]
Sample = Float[Array, "batch height width channels"]
Time = Float[Array, "batch time_channels"]
Context = Mapping[str, KeyValue]
"""Keys and values of the prompt for every attention to it, by the path of the attention
module. A batch of 1 stands for all photos."""


class GatedProjection(nnx.Module):
    """A linear map gated by the GELU (erf form) of another."""

    def __init__(self, channels: int, out_channels: int, *, rngs: nnx.Rngs):
        self.proj = nnx.Linear(channels, 2 * out_channels, rngs=rngs)

    def __call__(
        self, tokens: Float[Array, "batch tokens channels"]
    ) -> Float[Array, "batch tokens out_channels"]:
        """Apply the projection."""
        value, gate = jnp.split(self.proj(tokens), 2, axis=-1)
        return value * jax.nn.gelu(gate, approximate=False)


class FeedForward(nnx.Module):
    """A gated projection to four times the width, and back."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.net: nnx.List[Any] = nnx.List(
            [
                GatedProjection(channels, 4 * channels, rngs=rngs),
                None,  # dropout in the checkpoint's numbering
                nnx.Linear(4 * channels, channels, rngs=rngs),
            ]
        )

    def __call__(
        self, tokens: Float[Array, "batch tokens channels"]
    ) -> Float[Array, "batch tokens channels"]:
        """Apply both maps."""
        return self.net[2](self.net[0](tokens))


class TransformerBlock(nnx.Module):
    """Self-attention, attention to the context, feed-forward; each pre-normalised."""

    def __init__(
        self, channels: int, *, heads: int, config: UNetConfig, rngs: nnx.Rngs
    ):
        attention = {"heads": heads, "use_bias": False, "rngs": rngs}
        self.norm1 = LayerNorm(channels, epsilon=1e-5)
        self.attn1 = Attention(channels, channels, **attention)
        self.norm2 = LayerNorm(channels, epsilon=1e-5)
        self.attn2 = Attention(channels, config.cross_attention_dim, **attention)
        self.norm3 = LayerNorm(channels, epsilon=1e-5)
        self.ff = FeedForward(channels, rngs=rngs)

    def __call__(
        self, tokens: Float[Array, "batch tokens channels"], context: Context, path: str
    ) -> Generator[Tap, None, Float[Array, "batch tokens channels"]]:
        """Apply the block; yields before the first score is computed."""
        normed = self.norm1(tokens)
        query, own = self.attn1.queries(normed), self.attn1.keys_values(normed)
        yield f"{path}.attn1", QueryKey(query, own.key)
        tokens = tokens + self.attn1.attend(query, own)
        query = self.attn2.queries(self.norm2(tokens))
        tokens = tokens + self.attn2.attend(query, context[f"{path}.attn2"])
        return tokens + self.ff(self.norm3(tokens))


class Transformer(nnx.Module):
    """A transformer block over the positions of a feature map.

    The projections are linear maps. Some checkpoints store them as 1 x 1 convolutions,
    which are the same.
    """

    def __init__(
        self, channels: int, *, heads: int, config: UNetConfig, rngs: nnx.Rngs
    ):
        self.norm = GroupNorm(channels, groups=config.norm_num_groups, epsilon=1e-6)
        self.proj_in = nnx.Linear(channels, channels, rngs=rngs)
        self.transformer_blocks = nnx.List(
            [TransformerBlock(channels, heads=heads, config=config, rngs=rngs)]
        )
        self.proj_out = nnx.Linear(channels, channels, rngs=rngs)

    def __call__(
        self, sample: Sample, context: Context, path: str
    ) -> Generator[Tap, None, Sample]:
        """Apply the transformer and add its input."""
        batch, height, width, channels = sample.shape
        tokens = self.norm(sample).reshape(batch, height * width, channels)
        tokens = yield from self.transformer_blocks[0](
            self.proj_in(tokens), context, f"{path}.transformer_blocks.0"
        )
        return sample + self.proj_out(tokens).reshape(sample.shape)


def _resnet(
    in_channels: int, out_channels: int, *, config: UNetConfig, rngs: nnx.Rngs
) -> ResnetBlock:
    return ResnetBlock(
        in_channels,
        out_channels,
        groups=config.norm_num_groups,
        epsilon=config.norm_eps,
        time_channels=config.time_channels,
        rngs=rngs,
    )


class DownBlock(nnx.Module):
    """Residual blocks, with or without attention, then half of the resolution."""

    def __init__(self, config: UNetConfig, index: int, *, rngs: nnx.Rngs):
        channels = config.block_out_channels[index]
        in_channels = config.block_out_channels[max(index - 1, 0)]
        layers = range(config.layers_per_block)
        self.resnets = nnx.List(
            [
                _resnet(
                    in_channels if layer == 0 else channels,
                    channels,
                    config=config,
                    rngs=rngs,
                )
                for layer in layers
            ]
        )
        self.attentions = nnx.List(
            [
                Transformer(
                    channels, heads=config.heads[index], config=config, rngs=rngs
                )
                for _ in layers
                if config.down_attention[index]
            ]
        )
        last = index == len(config.block_out_channels) - 1
        self.downsamplers = nnx.List(
            [
                Downsample(channels, padding=((1, 1), (1, 1)), rngs=rngs)
                for _ in range(0 if last else 1)
            ]
        )

    def __call__(
        self, sample: Sample, time: Time, context: Context, path: str
    ) -> Generator[Tap, None, list[Array]]:
        """Apply the block.

        Returns:
            The output of every layer, for the up blocks; the last is the block's.
        """
        outputs = []
        for layer, resnet in enumerate(self.resnets):
            sample = resnet(sample, time)
            if self.attentions:
                sample = yield from self.attentions[layer](
                    sample, context, f"{path}.attentions.{layer}"
                )
            outputs.append(sample)
        for downsample in self.downsamplers:
            outputs.append(downsample(sample))
        return outputs


class MidBlock(nnx.Module):
    """Two residual blocks around one transformer, at the lowest resolution."""

    def __init__(self, config: UNetConfig, *, rngs: nnx.Rngs):
        channels = config.block_out_channels[-1]
        self.resnets = nnx.List(
            [_resnet(channels, channels, config=config, rngs=rngs) for _ in range(2)]
        )
        self.attentions = nnx.List(
            [Transformer(channels, heads=config.heads[-1], config=config, rngs=rngs)]
        )

    def __call__(
        self, sample: Sample, time: Time, context: Context, path: str
    ) -> Generator[Tap, None, Sample]:
        """Apply the block."""
        sample = self.resnets[0](sample, time)
        sample = yield from self.attentions[0](sample, context, f"{path}.attentions.0")
        return self.resnets[1](sample, time)


class Upsample(nnx.Module):
    """Double both sides by repetition, then convolve."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.conv = convolution(channels, channels, rngs=rngs)

    def __call__(self, sample: Sample, size: tuple[int, int]) -> Array:
        """Apply the convolution at ``size``: twice the sides, or one pixel less.

        The smaller size is needed where a side was odd before it was halved. Nearest
        interpolation to that size is repetition without the last pixel.
        """
        doubled = jnp.repeat(jnp.repeat(sample, 2, axis=1), 2, axis=2)
        return self.conv(doubled[:, : size[0], : size[1]])


class UpBlock(nnx.Module):
    """Residual blocks that also read outputs of a down block, then twice the size."""

    def __init__(self, config: UNetConfig, index: int, *, rngs: nnx.Rngs):
        levels = config.block_out_channels[::-1]
        channels = levels[index]
        # The inputs are the previous up block and, layer by layer, the down block of
        # this level in reverse; its last one came from the level above.
        inputs = [levels[max(index - 1, 0)]] + [channels] * config.layers_per_block
        skips = [channels] * config.layers_per_block
        skips.append(levels[min(index + 1, len(levels) - 1)])
        self.resnets = nnx.List(
            [
                _resnet(in_channels + skip_channels, channels, config=config, rngs=rngs)
                for in_channels, skip_channels in zip(inputs, skips, strict=True)
            ]
        )
        self.attentions = nnx.List(
            [
                Transformer(
                    channels, heads=config.heads[::-1][index], config=config, rngs=rngs
                )
                for _ in inputs
                if config.up_attention[index]
            ]
        )
        last = index == len(levels) - 1
        self.upsamplers = nnx.List(
            [Upsample(channels, rngs=rngs) for _ in range(0 if last else 1)]
        )

    def __call__(
        self,
        sample: Sample,
        time: Time,
        context: Context,
        path: str,
        *,
        skips: Sequence[Array],
        size: tuple[int, int],
    ) -> Generator[Tap, None, Array]:
        """Apply the block.

        Args:
            sample: Output of the block before.
            time: The time embedding.
            context: Keys and values of the prompt.
            path: Path of this block, for the names of its self-attentions.
            skips: Outputs of the down path in the order they were made.
            size: Sides of the block after this one.
        """
        for layer, resnet in enumerate(self.resnets):
            skip = skips[-1 - layer]
            sample = resnet(jnp.concatenate([sample, skip], axis=-1), time)
            if self.attentions:
                sample = yield from self.attentions[layer](
                    sample, context, f"{path}.attentions.{layer}"
                )
        for upsample in self.upsamplers:
            sample = upsample(sample, size)
        return sample
