"""The vision transformers of DINOv3, up to the attention that is asked for.

DINOv3 (arXiv 2508.10104) has no position embedding that is added to the tokens.
Instead, queries and keys of the patches are rotated by angles that depend on the place
of the patch. The tests use networks of transformers with random weights; no published
checkpoint has been loaded here yet.
"""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from dslo_jax.models.dinov3_config import Dinov3Config
from dslo_jax.models.layer_norm import LayerNorm
from dslo_jax.models.pixel_statistics import with_pixel_statistics
from dslo_jax.models.query_key import QueryKey
from dslo_jax.models.softmax_attention import attend
from dslo_jax.models.vit_layers import Tokens, normalise_pixels, queries_keys
from dslo_jax.weights import (
    config_source,
    load_module,
    open_weights,
    read_config,
)


# Tensors that only training uses, and the layer after the last block.
_IGNORED = (r"embeddings\.mask_token", r"norm\..*", r"rope_embeddings\..*")

Heads = Float[Array, "batch tokens heads size"]


class Dinov3Embeddings(nnx.Module):
    """Class token, registers and patches.

    Args:
        config: Sizes and pixel statistics.
        rngs: Streams that initialise the parameters.
    """

    def __init__(self, config: Dinov3Config, *, rngs: nnx.Rngs):
        self.config = config
        size, patch = config.hidden_size, config.patch_size

        def tokens(count: int) -> nnx.Param:
            shape = (1, count, size)
            return nnx.Param(nnx.initializers.normal(0.02)(rngs.params(), shape))

        self.cls_token = tokens(1)
        # An empty tensor without registers, as transformers writes it.
        self.register_tokens = tokens(config.num_register_tokens)
        self.patch_embeddings = nnx.Conv(
            config.num_channels,
            size,
            kernel_size=(patch, patch),
            strides=(patch, patch),
            padding="VALID",
            rngs=rngs,
        )

    def __call__(
        self, pixels: Float[Array, "batch height width 3"]
    ) -> tuple[Tokens, tuple[int, int]]:
        """Normalise RGB in [0, 1] and embed it.

        Returns:
            Class token, registers and patches; rows and columns of the patches.
        """
        normalised = normalise_pixels(pixels, self.config)
        lone = [self.cls_token[...], self.register_tokens[...]]
        patches = self.patch_embeddings(normalised.astype(lone[0].dtype))
        batch, rows, columns, channels = patches.shape
        lone = jnp.concatenate(lone, axis=1)
        lone = jnp.broadcast_to(lone, (batch, *lone.shape[1:]))
        patches = patches.reshape(batch, rows * columns, channels)
        return jnp.concatenate([lone, patches], axis=1), (rows, columns)


class Rotation:
    """The rotary position embedding of a grid of patches.

    The coordinates of the centre of a patch are in [-1, 1] in both directions, whatever
    the number of patches. Half of the angles are those of the row, the others those of
    the column: 2 pi times the coordinate, divided by theta^(4 i / size) for i = 0, 1,
    ... up to a quarter of the channels of a head. (In training, the coordinates are
    also stretched at random.)

    Args:
        grid: Rows and columns of the patches.
        config: Sizes of the network.
    """

    def __init__(self, grid: tuple[int, int], config: Dinov3Config):
        size = config.head_size
        exponents = np.arange(size // 4) * 4 / size
        angles = [
            2 * np.pi * _centres(count)[:, None] / config.rope_theta**exponents
            for count in grid
        ]
        self._cos = _over_grid(*map(np.cos, angles))
        self._sin = _over_grid(*map(np.sin, angles))

    def __call__(self, vectors: Heads) -> Heads:
        """Rotate queries or keys in float32; tokens before the patches stay.

        Channel c is rotated with channel c + size / 2.
        """
        others = vectors.shape[1] - len(self._cos)
        turned = vectors[:, others:].astype(jnp.float32)
        first, second = jnp.split(turned, 2, axis=-1)
        cos, sin = self._cos[None, :, None], self._sin[None, :, None]
        turned = jnp.concatenate(
            [first * cos - second * sin, second * cos + first * sin], axis=-1
        )
        return jnp.concatenate(
            [vectors[:, :others], turned.astype(vectors.dtype)], axis=1
        )


class Dinov3Attention(nnx.Module):
    """Multi-head self-attention.

    Args:
        config: Sizes, and which maps have a bias.
        rngs: Streams that initialise the parameters.
    """

    def __init__(self, config: Dinov3Config, *, rngs: nnx.Rngs):
        self.config = config
        linear = partial(nnx.Linear, config.hidden_size, config.hidden_size, rngs=rngs)
        self.q_proj = linear(use_bias=config.query_bias)
        self.k_proj = linear(use_bias=config.key_bias)
        self.v_proj = linear(use_bias=config.value_bias)
        self.o_proj = linear(use_bias=config.proj_bias)

    def query_key(self, hidden: Tokens, rotation: Rotation) -> QueryKey:
        """Queries and keys of all tokens, after the rotation."""
        pair = self.q_proj(hidden), self.k_proj(hidden)
        return QueryKey(*(rotation(self._split(each)) for each in pair))

    def mix(self, hidden: Tokens, pair: QueryKey) -> Tokens:
        """Average the values with the attention, and project the result."""
        mixed = attend(pair.query, pair.key, self._split(self.v_proj(hidden)))
        return self.o_proj(mixed.reshape(hidden.shape))

    def _split(self, hidden: Tokens) -> Heads:
        sizes = self.config.num_attention_heads, self.config.head_size
        return hidden.reshape(*hidden.shape[:2], *sizes)


class Dinov3Mlp(nnx.Module):
    """Two linear maps around an activation; where stated, a third one gates the first.

    Args:
        config: Sizes and activation.
        rngs: Streams that initialise the parameters.
    """

    def __init__(self, config: Dinov3Config, *, rngs: nnx.Rngs):
        self.config = config
        linear = partial(nnx.Linear, use_bias=config.mlp_bias, rngs=rngs)
        size, width = config.hidden_size, config.intermediate_size
        self.up_proj = linear(size, width)
        self.down_proj = linear(width, size)
        if config.swiglu:
            self.gate_proj = linear(size, width)

    def __call__(self, hidden: Tokens) -> Tokens:
        """Transform every token on its own."""
        inner = self.up_proj(hidden)
        if self.config.swiglu:
            return self.down_proj(self._activated(self.gate_proj(hidden)) * inner)
        return self.down_proj(self._activated(inner))

    def _activated(self, hidden: Array) -> Array:
        if self.config.hidden_act == "silu":
            return jax.nn.silu(hidden)
        return jax.nn.gelu(hidden, approximate=False)


class LayerScale(nnx.Module):
    """A factor for each channel.

    Args:
        config: Sizes.
    """

    def __init__(self, config: Dinov3Config):
        self.lambda1 = nnx.Param(jnp.ones(config.hidden_size))

    def __call__(self, hidden: Tokens) -> Tokens:
        """Multiply."""
        return hidden * self.lambda1[...][None, None]


class Dinov3Layer(nnx.Module):
    """One block: attention, then MLP, each after a layer norm and with a residual.

    Args:
        config: Sizes, activation, epsilon.
        rngs: Streams that initialise the parameters.
    """

    def __init__(self, config: Dinov3Config, *, rngs: nnx.Rngs):
        size, epsilon = config.hidden_size, config.layer_norm_eps
        self.norm1 = LayerNorm(size, epsilon=epsilon)
        self.attention = Dinov3Attention(config, rngs=rngs)
        self.layer_scale1 = LayerScale(config)
        self.norm2 = LayerNorm(size, epsilon=epsilon)
        self.mlp = Dinov3Mlp(config, rngs=rngs)
        self.layer_scale2 = LayerScale(config)

    def query_key(self, hidden: Tokens, rotation: Rotation) -> QueryKey:
        """Queries and keys of this block's attention, after the rotation."""
        return self.attention.query_key(self.norm1(hidden), rotation)

    def update(self, hidden: Tokens, pair: QueryKey) -> Tokens:
        """Compute the rest of the block, given ``query_key``."""
        mixed = self.attention.mix(self.norm1(hidden), pair)
        hidden = hidden + self.layer_scale1(mixed)
        return hidden + self.layer_scale2(self.mlp(self.norm2(hidden)))


class Dinov3(nnx.Module):
    """A DINOv3, without the layer norm after its last block.

    Args:
        config: Sizes and pixel statistics.
        rngs: Streams that initialise the parameters.
    """

    def __init__(self, config: Dinov3Config, *, rngs: nnx.Rngs):
        self.config = config
        self.embeddings = Dinov3Embeddings(config, rngs=rngs)
        self.layer = nnx.List(
            [Dinov3Layer(config, rngs=rngs) for _ in range(config.num_hidden_layers)]
        )

    @property
    def others(self) -> int:
        """Number of tokens that are not patches: class token and registers."""
        return 1 + self.config.num_register_tokens

    def queries_keys(
        self, pixels: Float[Array, "batch height width 3"], wanted: tuple[int, ...]
    ) -> tuple[QueryKey, ...]:
        """Compute queries of the patches and keys of all tokens, up to the last block.

        Args:
            pixels: RGB in [0, 1]; pixels below and to the right of the last whole
                patch are ignored.
            wanted: Indices of the blocks, in any order.

        Returns:
            One pair per block, after the rotation.

        Memory:
            See ``softmax_attention.attend``.
        """
        hidden, grid = self.embeddings(pixels)
        rotation = Rotation(grid, self.config)

        def look(
            layer: Dinov3Layer, hidden: Tokens
        ) -> tuple[QueryKey, Callable[[], Tokens]]:
            pair = layer.query_key(hidden, rotation)
            return pair, partial(layer.update, hidden, pair)

        return queries_keys(self.layer, hidden, wanted, others=self.others, look=look)


def load_dinov3(folder: Path, *, dtype: jax.typing.DTypeLike = jnp.float32) -> Dinov3:
    """Load a DINOv3 vision transformer.

    Args:
        folder: A folder in the layout of transformers' ``DINOv3ViTModel``, such as
            facebook/dinov3-vitb16-pretrain-lvd1689m.
        dtype: Type of the parameters and of the computation; softmax, rotation and the
            statistics of the layer norms are float32 in any case.

    Returns:
        The network.

    Raises:
        CheckpointError: The folder is missing, damaged, or not of this kind.
    """
    config = Dinov3Config.from_dict(read_config(folder), source=config_source(folder))
    return load_module(
        partial(Dinov3, with_pixel_statistics(config, folder)),
        open_weights(folder),
        dtype=dtype,
        rename=lambda key: re.sub(r"^model\.layer\.", "layer.", key),
        ignored=_IGNORED,
    )


def _centres(count: int) -> Float[np.ndarray, " count"]:
    """The centres of the patches along one side, which reaches from -1 to 1."""
    return (2 * np.arange(count) + 1) / count - 1


def _over_grid(
    rows: Float[np.ndarray, "rows quarter"],
    columns: Float[np.ndarray, "columns quarter"],
) -> Float[Array, "patches half"]:
    """The numbers of the row of each patch, then those of its column."""
    shape = len(rows), len(columns), rows.shape[1]
    both = [
        jnp.broadcast_to(jnp.asarray(each, jnp.float32), shape)
        for each in (rows[:, None], columns[None])
    ]
    return jnp.concatenate(both, axis=-1).reshape(shape[0] * shape[1], -1)
