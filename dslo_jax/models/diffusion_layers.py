"""The layers that both networks of Stable Diffusion share, channels last.

Attribute names are the checkpoint's. Every layer computes in the type of its
parameters, except that scores, softmax and the normalisations are float32. The
normalisations of float32 activations subtract the mean before they square: E[x^2] -
E[x]^2 cancels where the mean is far from zero.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from dslo_jax.models.query_key import KeyValue
from dslo_jax.models.softmax_attention import attend


Padding = tuple[tuple[int, int], tuple[int, int]]

_SAME: Padding = ((1, 1), (1, 1))
_NONE: Padding = ((0, 0), (0, 0))


def convolution(
    in_channels: int,
    out_channels: int,
    *,
    size: int = 3,
    stride: int = 1,
    padding: Padding = _SAME,
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """A square convolution with bias and explicit padding."""
    return nnx.Conv(
        in_channels,
        out_channels,
        kernel_size=(size, size),
        strides=(stride, stride),
        padding=padding,
        use_bias=True,
        rngs=rngs,
    )


class GroupNorm(nnx.Module):
    """Normalisation over all positions and a group of channels.

    Each channel is first summed over the positions, so that memory is read in order.
    On a CPU this takes 0.6 of the time of ``nnx.GroupNorm``.

    Args:
        channels: Channels of the feature map.
        groups: Number of groups; divides ``channels``.
        epsilon: Added to the variance.
    """

    def __init__(self, channels: int, *, groups: int, epsilon: float):
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))
        self.groups = groups
        self.epsilon = epsilon

    def __call__(
        self, sample: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch height width channels"]:
        """Normalise, scale and shift; the result has the type of ``sample``."""
        batch, height, width, channels = sample.shape
        rows = sample.reshape(batch, height * width, channels).astype(jnp.float32)
        is_coarse = sample.dtype == jnp.bfloat16
        normed = self._in_one_pass(rows) if is_coarse else self._in_two_passes(rows)
        return normed.reshape(sample.shape).astype(sample.dtype)

    def _in_two_passes(
        self, rows: Float[Array, "batch positions channels"]
    ) -> Float[Array, "batch positions channels"]:
        """Subtract the mean, then square."""
        scale, bias = self._parameters()
        centred = rows - self._group_mean(rows)
        variance = self._group_mean(jnp.square(centred))
        return centred * (jax.lax.rsqrt(variance + self.epsilon) * scale) + bias

    def _in_one_pass(
        self, rows: Float[Array, "batch positions channels"]
    ) -> Float[Array, "batch positions channels"]:
        """Read the mean and the mean square together, as E[x^2] - E[x]^2.

        An accelerator computes both while it writes the activations. In float32 the
        difference has an error near 2^-23 E[x]^2. Half-precision activations have a
        variance of 2^-18 E[x]^2 or more from their own rounding, so it is exact enough.
        """
        scale, bias = self._parameters()
        mean = self._group_mean(rows)
        variance = self._group_mean(jnp.square(rows)) - jnp.square(mean)
        variance = jnp.maximum(variance, 0)
        factor = jax.lax.rsqrt(variance + self.epsilon) * scale
        return rows * factor + (bias - mean * factor)

    def _parameters(self) -> tuple[Array, Array]:
        """Scale and bias in float32, ``[1 1 channels]``."""
        scale, bias = (
            parameter.get_value().astype(jnp.float32)[None, None]
            for parameter in (self.scale, self.bias)
        )
        return scale, bias

    def _group_mean(
        self, rows: Float[Array, "batch positions channels"]
    ) -> Float[Array, "batch 1 channels"]:
        """Mean over positions and the channels of a group, for each channel."""
        batch, _, channels = rows.shape
        grouped = rows.mean(axis=1).reshape(batch, self.groups, -1)
        mean = jnp.broadcast_to(grouped.mean(axis=2, keepdims=True), grouped.shape)
        return mean.reshape(batch, 1, channels)


class ResnetBlock(nnx.Module):
    """Two normalised convolutions around a shift by the time embedding.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        groups: Groups of both normalisations.
        epsilon: Epsilon of both normalisations.
        time_channels: Width of the time embedding; ``None`` for a block without one.
        rngs: Keys for the initial parameters.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        groups: int,
        epsilon: float,
        time_channels: int | None,
        rngs: nnx.Rngs,
    ):
        self.norm1 = GroupNorm(in_channels, groups=groups, epsilon=epsilon)
        self.conv1 = convolution(in_channels, out_channels, rngs=rngs)
        self.norm2 = GroupNorm(out_channels, groups=groups, epsilon=epsilon)
        self.conv2 = convolution(out_channels, out_channels, rngs=rngs)
        self.time_emb_proj = (
            nnx.Linear(time_channels, out_channels, rngs=rngs)
            if time_channels is not None
            else None
        )
        self.conv_shortcut = (
            convolution(in_channels, out_channels, size=1, padding=_NONE, rngs=rngs)
            if in_channels != out_channels
            else None
        )

    def __call__(
        self,
        sample: Float[Array, "batch height width channels"],
        time: Float[Array, "batch time_channels"] | None = None,
    ) -> Float[Array, "batch height width out_channels"]:
        """Apply the block.

        Args:
            sample: The feature map.
            time: The time embedding; ``None`` exactly when the block has none.

        Returns:
            The feature map with ``out_channels`` channels.
        """
        hidden = self.conv1(jax.nn.silu(self.norm1(sample)))
        if self.time_emb_proj is not None:
            assert time is not None
            hidden += self.time_emb_proj(jax.nn.silu(time))[:, None, None, :]
        hidden = self.conv2(jax.nn.silu(self.norm2(hidden)))
        if self.conv_shortcut is not None:
            sample = self.conv_shortcut(sample)
        return sample + hidden


class Downsample(nnx.Module):
    """Halve both sides with a strided convolution.

    Args:
        channels: Channels of input and output.
        padding: Rows and columns of zeros: the autoencoder pads only after the last
            (an odd side rounds down), the UNet on both sides (it rounds up).
        rngs: Keys for the initial parameters.
    """

    def __init__(self, channels: int, *, padding: Padding, rngs: nnx.Rngs):
        self.conv = convolution(
            channels, channels, stride=2, padding=padding, rngs=rngs
        )

    def __call__(
        self, sample: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch half_height half_width channels"]:
        """Apply the convolution."""
        return self.conv(sample)


class Attention(nnx.Module):
    """Multi-head attention in two halves, so that queries and keys can be returned.

    Args:
        channels: Channels of the tokens, in and out.
        context_channels: Channels of the tokens that are attended to.
        heads: Number of heads.
        use_bias: Whether queries, keys and values have a bias; the output always has.
        rngs: Keys for the initial parameters.
    """

    def __init__(
        self,
        channels: int,
        context_channels: int,
        *,
        heads: int,
        use_bias: bool,
        rngs: nnx.Rngs,
    ):
        options = {"use_bias": use_bias, "rngs": rngs}
        self.heads = heads
        self.to_q = nnx.Linear(channels, channels, **options)
        self.to_k = nnx.Linear(context_channels, channels, **options)
        self.to_v = nnx.Linear(context_channels, channels, **options)
        self.to_out = nnx.List([nnx.Linear(channels, channels, rngs=rngs)])

    def queries(
        self, tokens: Float[Array, "batch tokens channels"]
    ) -> Float[Array, "batch tokens heads head_channels"]:
        """Queries of the tokens."""
        return self._split_heads(self.to_q(tokens))

    def keys_values(
        self, context: Float[Array, "batch context_tokens context_channels"]
    ) -> KeyValue:
        """Keys and values of the tokens that are attended to."""
        return KeyValue(
            self._split_heads(self.to_k(context)), self._split_heads(self.to_v(context))
        )

    def attend(
        self,
        query: Float[Array, "batch tokens heads head_channels"],
        context: KeyValue,
    ) -> Float[Array, "batch tokens channels"]:
        """Average the values and mix the heads.

        Args:
            query: Queries of the tokens.
            context: Keys and values; those of one photo serve all photos.

        Memory:
            See ``softmax_attention.attend``.
        """
        key, value = (jnp.broadcast_to(x, (len(query), *x.shape[1:])) for x in context)
        mixed = attend(query, key, value)
        return self.to_out[0](mixed.reshape(*mixed.shape[:2], -1))

    def _split_heads(
        self, tokens: Float[Array, "batch tokens channels"]
    ) -> Float[Array, "batch tokens heads head_channels"]:
        return tokens.reshape(*tokens.shape[:2], self.heads, -1)
