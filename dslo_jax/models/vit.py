"""The vision transformers of DINO and DINOv2, up to the attention that is asked for.

One network serves three kinds of checkpoint: DINO (``model_type`` is ``vit``), DINOv2,
and DINOv2 with registers. Its blocks are those of CLIP and have the same names; the
tensor names of each kind are translated. The tests use networks of transformers with
random weights; no published checkpoint has been loaded here yet.
"""

import re
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from dslo_jax.models.clip_layers import Attention, EncoderLayer, Mlp
from dslo_jax.models.query_key import QueryKey
from dslo_jax.models.vit_config import VitConfig, with_imagenet_statistics
from dslo_jax.models.vit_layers import normalise_pixels, queries_keys
from dslo_jax.ops.resize import resize_positions
from dslo_jax.weights import (
    config_source,
    load_module,
    open_weights,
    read_config,
)


# Tensor names of DINO and DINOv2, and those of CLIP; replaced in this order.
_SPELLINGS = (
    (r"^(vit|dinov2|dinov2_with_registers)\.", ""),
    (r"\.patch_embeddings\.projection\.", ".patch_embedding."),
    (r"^encoder\.layer\.", "layers."),
    (r"\.attention\.attention\.query\.", ".self_attn.q_proj."),
    (r"\.attention\.attention\.key\.", ".self_attn.k_proj."),
    (r"\.attention\.attention\.value\.", ".self_attn.v_proj."),
    (r"\.attention\.output\.dense\.", ".self_attn.out_proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.(layernorm_before|norm1)\.", ".layer_norm1."),
    (r"\.(layernorm_after|norm2)\.", ".layer_norm2."),
    (r"\.layer_scale1\.lambda1$", ".self_attn.layer_scale"),
    (r"\.layer_scale2\.lambda1$", ".mlp.layer_scale"),
)
# The other way, for a DINO without prefix; replaced in this order.
_TO_VIT = (
    (r"^layers\.", "encoder.layer."),
    (r"\.patch_embedding\.", ".patch_embeddings.projection."),
    (r"\.self_attn\.q_proj\.", ".attention.attention.query."),
    (r"\.self_attn\.k_proj\.", ".attention.attention.key."),
    (r"\.self_attn\.v_proj\.", ".attention.attention.value."),
    (r"\.self_attn\.out_proj\.", ".attention.output.dense."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
    (r"\.layer_norm1\.", ".layernorm_before."),
    (r"\.layer_norm2\.", ".layernorm_after."),
)
# Tensors that only training uses, and those of layers after the last block.
_IGNORED = (r"embeddings\.mask_token", r"(layernorm|pooler|classifier|decoder)\..*")


class VitEmbeddings(nnx.Module):
    """Class token, registers, patches, and the positions of the patches.

    Args:
        config: Sizes and pixel statistics.
        rngs: Streams that initialise the parameters.
    """

    def __init__(self, config: VitConfig, *, rngs: nnx.Rngs):
        self.config = config
        size, patch = config.hidden_size, config.patch_size

        def tokens(count: int) -> nnx.Param:
            shape = (1, count, size)
            return nnx.Param(nnx.initializers.normal(0.02)(rngs.params(), shape))

        self.cls_token = tokens(1)
        self.position_embeddings = tokens(1 + config.grid_size**2)
        if config.num_register_tokens:
            self.register_tokens = tokens(config.num_register_tokens)
        self.patch_embedding = nnx.Conv(
            config.num_channels,
            size,
            kernel_size=(patch, patch),
            strides=(patch, patch),
            padding="VALID",
            rngs=rngs,
        )

    def __call__(
        self, pixels: Float[Array, "batch height width 3"]
    ) -> Float[Array, "batch tokens channels"]:
        """Normalise RGB in [0, 1] and embed it: class token, registers, patches."""
        normalised = normalise_pixels(pixels, self.config)
        patches = self.patch_embedding(normalised.astype(self.cls_token[...].dtype))
        batch, *grid, channels = patches.shape
        positions = self.position_embeddings[...]
        lone = [self.cls_token[...] + positions[:, :1]]
        if self.config.num_register_tokens:  # registers have no position
            lone.append(self.register_tokens[...])
        lone = jnp.concatenate(lone, axis=1)
        patches = patches + self._positions((grid[0], grid[1]))[None]
        return jnp.concatenate(
            [
                jnp.broadcast_to(lone, (batch, *lone.shape[1:])),
                patches.reshape(batch, -1, channels),
            ],
            axis=1,
        )

    def _positions(
        self, grid: tuple[int, int]
    ) -> Float[Array, "height width channels"]:
        """Position embeddings of the patches on another grid."""
        side = self.config.grid_size
        trained = self.position_embeddings[...][0, 1:].reshape(side, side, -1)
        if not self.config.antialias or grid == (side, side):
            return resize_positions(trained, grid, offset=0.0)
        shape = (*grid, trained.shape[-1])
        resized = jax.image.resize(trained.astype(jnp.float32), shape, "cubic")
        return resized.astype(trained.dtype)


class ScaledAttention(Attention):
    """Self-attention whose result is multiplied by a scale for each channel."""

    def __init__(self, config: VitConfig, *, rngs: nnx.Rngs):
        super().__init__(config, rngs=rngs)
        self.layer_scale = nnx.Param(jnp.ones(config.hidden_size))

    def join(
        self, mixed: Float[Array, "batch heads tokens size"]
    ) -> Float[Array, "batch tokens channels"]:
        """Concatenate the heads, project and scale them."""
        return super().join(mixed) * self.layer_scale[...][None, None]


class ScaledMlp(Mlp):
    """Two linear maps around a gelu, and a scale for each channel."""

    def __init__(self, config: VitConfig, *, rngs: nnx.Rngs):
        super().__init__(config, rngs=rngs)
        self.layer_scale = nnx.Param(jnp.ones(config.hidden_size))

    def __call__(
        self, hidden: Float[Array, "batch tokens channels"]
    ) -> Float[Array, "batch tokens channels"]:
        """Transform every token on its own."""
        return super().__call__(hidden) * self.layer_scale[...][None, None]


class ScaledSwiglu(nnx.Module):
    """SwiGLU (Shazeer, arXiv 2002.05202) with a scale for each channel.

    The output is scale * (silu(a) * b) W, where a and b are the halves of a linear map.

    Args:
        config: Sizes.
        rngs: Streams that initialise the parameters.
    """

    def __init__(self, config: VitConfig, *, rngs: nnx.Rngs):
        size, width = config.hidden_size, config.intermediate_size
        self.weights_in = nnx.Linear(size, 2 * width, rngs=rngs)
        self.weights_out = nnx.Linear(width, size, rngs=rngs)
        self.layer_scale = nnx.Param(jnp.ones(size))

    def __call__(
        self, hidden: Float[Array, "batch tokens channels"]
    ) -> Float[Array, "batch tokens channels"]:
        """Transform every token on its own."""
        gate, value = jnp.split(self.weights_in(hidden), 2, axis=-1)
        hidden = self.weights_out(jax.nn.silu(gate) * value)
        return hidden * self.layer_scale[...][None, None]


class VitLayer(EncoderLayer):
    """A block of CLIP, with layer scales and another MLP where the config says so."""

    def __init__(self, config: VitConfig, *, rngs: nnx.Rngs):
        super().__init__(config, rngs=rngs)
        if config.layer_scale:
            self.self_attn = ScaledAttention(config, rngs=rngs)
            mlp = ScaledSwiglu if config.swiglu else ScaledMlp
            self.mlp = mlp(config, rngs=rngs)


class Vit(nnx.Module):
    """A DINO or DINOv2, without the layers after its last block.

    The position embedding is resampled to another grid as transformers does it, in
    float32: bicubic to the exact size, with a = -0.75 for DINO and DINOv2. For DINOv2
    with registers, a = -0.5 and the resampling is antialiased, which changes the result
    even where the grid grows. (The authors' code for DINO and DINOv2, but not that for
    registers, resamples to a grid that is larger by 0.1.)

    Args:
        config: Sizes and pixel statistics.
        rngs: Streams that initialise the parameters.
    """

    def __init__(self, config: VitConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.embeddings = VitEmbeddings(config, rngs=rngs)
        self.layers = nnx.List(
            [VitLayer(config, rngs=rngs) for _ in range(config.num_hidden_layers)]
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
            wanted: Indices of the blocks.

        Returns:
            One pair per block; see ``vit_layers.queries_keys``.
        """
        return queries_keys(
            self.layers,
            self.embeddings(pixels),
            wanted,
            others=self.others,
        )


def load_vit(
    folder: Path,
    *,
    dtype: jax.typing.DTypeLike = jnp.float32,
    network: type[Vit] = Vit,
) -> Vit:
    """Load a DINO or DINOv2 checkpoint.

    Args:
        folder: A folder in the layout of transformers' ``ViTModel``, ``Dinov2Model`` or
            ``Dinov2WithRegistersModel``, such as facebook/dino-vitb8,
            facebook/dinov2-base, facebook/dinov2-giant or
            facebook/dinov2-with-registers-base.
        dtype: Type of the parameters and of the computation; softmax and the statistics
            of the layer norms are float32 in any case.
        network: The class of the network: ``Vit``, or one with further layers.

    Returns:
        The network.

    Raises:
        CheckpointError: The folder is missing, damaged, or not of this kind.
    """
    config = VitConfig.from_dict(read_config(folder), source=config_source(folder))
    return load_module(
        partial(network, with_imagenet_statistics(config, folder)),
        open_weights(folder),
        dtype=dtype,
        rename=_respell,
        ignored=_IGNORED,
    )


def vit_spelling(key: str) -> str:
    """The name of a tensor of ``Vit`` in transformers' ``ViTModel``."""
    for ours, theirs in _TO_VIT:
        key = re.sub(ours, theirs, key)
    return key


def _respell(key: str) -> str:
    """A tensor's name in CLIP's spelling."""
    for theirs, ours in _SPELLINGS:
        key = re.sub(theirs, ours, key)
    return key
