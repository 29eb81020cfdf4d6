"""The vision transformer of CLIP, with features for every patch."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int32

from dslo_jax.models.clip_config import ClipVisionConfig
from dslo_jax.models.clip_layers import Encoder, Mask
from dslo_jax.models.dense_clip.registry import ATTENTIONS
from dslo_jax.models.dense_clip.variant import DenseInput, ProxyFeatures
from dslo_jax.models.layer_norm import LayerNorm
from dslo_jax.models.pixel_statistics import with_pixel_statistics
from dslo_jax.models.query_key import QueryKey
from dslo_jax.models.vit_layers import normalise_pixels, queries_keys
from dslo_jax.ops.patches import Patches, places_of
from dslo_jax.ops.resize import position_weights, resize_positions
from dslo_jax.weights import (
    config_source,
    load_module,
    open_weights,
    read_config,
    side_folder,
)


# The position embedding is stretched to a grid inflated by so many tenths, as in the
# code that the published numbers of CLIP segmentation come from (a habit of DINO's).
_POSITION_TENTHS = 1

# Tensors of a CLIP that are not part of this network.
_NOT_VISION = (
    r"embeddings\.position_ids",
    r"text_model\..*",
    r"(text|visual)_projection\.weight",
    r"logit_scale",
)


class VisionEmbeddings(nnx.Module):
    """Class token, patches, and their positions.

    Args:
        config: Sizes and pixel statistics.
        rngs: Streams that initialise the parameters.
    """

    def __init__(self, config: ClipVisionConfig, *, rngs: nnx.Rngs):
        self.config = config
        size, patch = config.hidden_size, config.patch_size
        self.class_embedding = nnx.Param(
            nnx.initializers.normal(size**-0.5)(rngs.params(), (size,))
        )
        self.patch_embedding = nnx.Conv(
            config.num_channels,
            size,
            kernel_size=(patch, patch),
            strides=(patch, patch),
            padding="VALID",  # drops the last partial patch of either axis
            use_bias=False,
            rngs=rngs,
        )
        self.position_embedding = nnx.Embed(config.grid_size**2 + 1, size, rngs=rngs)

    def __call__(
        self, pixels: Float[Array, "batch height width 3"]
    ) -> Float[Array, "batch tokens channels"]:
        """Normalise RGB in [0, 1] and embed it; the class token comes first."""
        patches = self._project(pixels)
        batch, height, width, channels = patches.shape
        patches = patches.reshape(batch, height * width, channels)
        return self._join(patches, self.positions(height, width)[None])

    def of_patches(self, patches: Patches) -> Float[Array, "batch tokens channels"]:
        """The same for photos that are cut into patches; padding included."""
        batch, count, side = patches.pixels.shape[:3]
        strip = jnp.reshape(patches.pixels, (batch, count * side, side, 3))  # a column
        return self._join(self._project(strip)[:, :, 0], self._positions_of(patches))

    def positions(self, height: int, width: int) -> Float[Array, "tokens channels"]:
        """Position embedding of the class token and of a height x width grid."""
        trained = self.position_embedding.embedding[...]
        side = self.config.grid_size
        grid = trained[1:].reshape(side, side, -1)
        offset = _POSITION_TENTHS / 10
        resized = resize_positions(grid, (height, width), offset=offset)
        return jnp.concatenate([trained[:1], resized.reshape(height * width, -1)])

    def _project(
        self, pixels: Float[Array, "batch height width 3"]
    ) -> Float[Array, "batch rows columns channels"]:
        normalised = normalise_pixels(pixels, self.config)
        return self.patch_embedding(normalised.astype(self.class_embedding[...].dtype))

    def _join(
        self,
        patches: Float[Array, "batch patches channels"],
        positions: Float[Array, "#batch tokens channels"],
    ) -> Float[Array, "batch tokens channels"]:
        """The class token, then the patches; with their positions added."""
        batch, _, channels = patches.shape
        first = jnp.broadcast_to(self.class_embedding[...], (batch, 1, channels))
        return jnp.concatenate([first, patches], axis=1) + positions

    def _positions_of(self, patches: Patches) -> Float[Array, "batch tokens channels"]:
        """As ``positions``, for the grid of each photo, which is data."""
        trained = self.position_embedding.embedding[...]
        side = self.config.grid_size
        grid = jnp.asarray(patches.grid)
        is_native = jnp.all(grid == side, axis=1, keepdims=True)
        tenths = jnp.where(is_native, 0, _POSITION_TENTHS)
        rows, columns = (
            position_weights(place, grid[:, axis, None], side, tenths=tenths)
            for axis, place in enumerate(patches.places)
        )
        batch, count, _ = rows.shape
        weights = rows[..., :, None] * columns[..., None, :]
        resized = jnp.einsum(
            "bpn,nc->bpc",
            weights.reshape(batch, count, side * side),
            trained[1:].astype(jnp.float32),
            precision=jax.lax.Precision.HIGHEST,
        )
        first = jnp.broadcast_to(trained[0], (batch, 1, trained.shape[1]))
        return jnp.concatenate([first, resized.astype(trained.dtype)], axis=1)


class VisionModel(nnx.Module):
    """Vision transformer.

    Its blocks are run by an entry of ``ATTENTIONS``.

    Args:
        config: Sizes and pixel statistics.
        rngs: Streams that initialise the parameters.
    """

    def __init__(self, config: ClipVisionConfig, *, rngs: nnx.Rngs):
        size, epsilon = config.hidden_size, config.layer_norm_eps
        self.config = config
        self.embeddings = VisionEmbeddings(config, rngs=rngs)
        self.pre_layrnorm = LayerNorm(size, epsilon=epsilon)  # spelled as in the file
        self.encoder = Encoder(config, rngs=rngs)
        self.post_layernorm = LayerNorm(size, epsilon=epsilon)

    def __call__(
        self, pixels: Float[Array, "batch height width 3"], attention: str
    ) -> Float[Array, "batch patches channels"]:
        """Features of every patch, after the last layer norm.

        Args:
            pixels: RGB in [0, 1].
            attention: One of ``ATTENTIONS``.

        Returns:
            One feature per patch, row by row, in the type of the parameters.

        Memory:
            About 10 * batch * heads * patches**2 bytes for the attention of one layer,
            and the keys (and queries) of all layers.
        """
        side = self.config.patch_size
        grid = np.array([[length // side for length in pixels.shape[1:3]]], np.int32)
        return self._run(self.embeddings(pixels), None, grid, attention)

    def of_patches(
        self,
        patches: Patches,
        attention: str,
        proxy: ProxyFeatures | None = None,
    ) -> Float[Array, "batch patches channels"]:
        """The same for photos that are cut into patches.

        The padding of a sequence changes no feature of its patches: no token attends
        to it. A padded patch gets the feature of the last patch.

        Args:
            patches: Photos with RGB in [0, 1].
            attention: One of ``ATTENTIONS``.
            proxy: Features of a second network, if this attention needs them.
        """
        is_real = jnp.pad(patches.is_real, ((0, 0), (1, 0)), constant_values=True)
        mask = is_real[:, None]  # the same for all tokens that attend
        tokens = self.embeddings.of_patches(patches)
        return self._run(tokens, mask, patches.grid, attention, proxy)

    def _run(
        self,
        tokens: Float[Array, "batch tokens channels"],
        mask: Mask | None,
        grid: Int32[Array | np.ndarray, "#batch 2"],
        attention: str,
        proxy: ProxyFeatures | None = None,
    ) -> Float[Array, "batch patches channels"]:
        photos = DenseInput(
            tokens=self.pre_layrnorm(tokens),
            mask=mask,
            places=places_of(grid, tokens.shape[1] - self.others),
            grid=jnp.asarray(grid),
            proxy=proxy,
        )
        patches = ATTENTIONS[attention].run(self.encoder.layers, photos)
        return self.post_layernorm(patches)

    @property
    def others(self) -> int:
        """Number of tokens that are not patches: 1, the class token."""
        return 1

    def queries_keys(
        self, pixels: Float[Array, "batch height width 3"], wanted: tuple[int, ...]
    ) -> tuple[QueryKey, ...]:
        """Compute queries of the patches and keys of all tokens, up to the last block.

        Args:
            pixels: RGB in [0, 1].
            wanted: Indices of the blocks.

        Returns:
            One pair per block; see ``vit_layers.queries_keys``.
        """
        hidden = self.pre_layrnorm(self.embeddings(pixels))
        return queries_keys(self.encoder.layers, hidden, wanted, others=self.others)


def load_vision(
    folder: Path, *, dtype: jax.typing.DTypeLike = jnp.float32
) -> VisionModel:
    """Load the vision half of a CLIP checkpoint, without its projection.

    Args:
        folder: As for ``load_clip``, or in the layout of transformers'
            ``CLIPVisionModel``, with or without a projection.
        dtype: As for ``load_clip``.

    Returns:
        The network.

    Raises:
        CheckpointError: The folder is missing, damaged, or not of this kind.
    """
    config = ClipVisionConfig.from_dict(
        read_config(folder), source=config_source(folder)
    )
    return load_module(
        partial(VisionModel, with_pixel_statistics(config, side_folder(folder))),
        open_weights(folder),
        dtype=dtype,
        rename=lambda key: key.removeprefix("vision_model."),
        ignored=_NOT_VISION,
    )
