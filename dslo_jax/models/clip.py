"""CLIP: features of prompts and of the patches of photos, in one space."""

import dataclasses
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from dslo_jax.models.clip_config import ClipConfig
from dslo_jax.models.clip_layers import unit
from dslo_jax.models.clip_text import TextModel
from dslo_jax.models.clip_vision import VisionModel
from dslo_jax.models.dense_clip.registry import ATTENTIONS
from dslo_jax.models.dense_clip.variant import ProxyFeatures
from dslo_jax.models.pixel_statistics import with_pixel_statistics
from dslo_jax.ops.patches import Patches
from dslo_jax.weights import (
    config_source,
    load_module,
    open_weights,
    read_config,
    side_folder,
)


# log(1 / 0.07), the initial value of OpenAI's training.
_LOGIT_SCALE = 2.6592


class Clip(nnx.Module):
    """Text and vision transformer with their projections.

    To agree with torch in float32, matrix products must have full precision.
    Accelerators use less by default; ``jax.default_matmul_precision("highest")`` asks
    for it.

    Args:
        config: Sizes and constants.
        rngs: Streams that initialise the parameters.
    """

    def __init__(self, config: ClipConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.text_model = TextModel(config.text, rngs=rngs)
        self.vision_model = VisionModel(config.vision, rngs=rngs)
        self.text_projection = nnx.Linear(
            config.text.hidden_size, config.projection_dim, use_bias=False, rngs=rngs
        )
        self.visual_projection = nnx.Linear(
            config.vision.hidden_size, config.projection_dim, use_bias=False, rngs=rngs
        )
        self.logit_scale = nnx.Param(jnp.asarray(_LOGIT_SCALE))

    def encode_text(self, ids: Int[Array, "batch tokens"]) -> Float[Array, "batch dim"]:
        """Embed prompts.

        Tokens after the end-of-text token have no influence: ``ids`` may be cut after
        the longest prompt, and padded with any token.

        Args:
            ids: Token ids with start- and end-of-text tokens, as ``prompts.tokenize``
                makes them.

        Returns:
            Float32 features of length 1 in the space shared with
            ``dense_features``.

        Raises:
            ValueError: There are more tokens than positions.
        """
        pooled = self.text_model.pool(ids, self.text_model(ids))
        return unit(self.text_projection(pooled))

    def dense_features(
        self,
        pixels: Float[Array, "batch height width 3"],
        *,
        attention: str = "kk_mean",
    ) -> Float[Array, "batch rows columns dim"]:
        """Embed every patch of a photo.

        Args:
            pixels: RGB in [0, 1], of any size and aspect from one patch upwards.
                Pixels below and to the right of the last whole patch are ignored.
            attention: Variant of the network, one of
                ``dense_clip.registry.ATTENTIONS``. Static under ``jax.jit``.

        Returns:
            Float32 features of length 1, rows = height // patch_size and columns =
            width // patch_size. Their product with a text feature is a cosine.

        Raises:
            ValueError: ``attention`` is unknown or needs a second network, or the photo
                is smaller than a patch.

        Memory:
            About 10 * batch * heads * patches**2 bytes: 0.7 GB for one photo of
            1120 x 560 pixels and ViT-B/16 (12 heads, 2450 patches).
        """
        _require_known(attention)
        patch = self.config.vision.patch_size
        batch, height, width, _ = pixels.shape
        rows, columns = height // patch, width // patch
        if rows == 0 or columns == 0:
            raise ValueError(
                f"`pixels` is {height} x {width}, expected at least one patch of "
                f"{patch} x {patch}; enlarge the photo"
            )
        features = unit(self.visual_projection(self.vision_model(pixels, attention)))
        return features.reshape(batch, rows, columns, -1)

    def patch_features(
        self,
        patches: Patches,
        *,
        attention: str = "kk_mean",
        proxy: ProxyFeatures | None = None,
    ) -> Float[Array, "batch patches dim"]:
        """Embed every patch of photos that are cut into patches.

        Photos of any sizes go together, and one program serves all sequences of the
        same length. The features are those of ``dense_features``, row by row.

        Args:
            patches: Photos with RGB in [0, 1].
            attention: As for ``dense_features``, or one that needs a proxy.
            proxy: Features of a second network, if ``attention`` needs them.

        Returns:
            Float32 features of length 1; a padded patch has that of the last patch.
            The patches are those of the proxy where the attention says so
            (``Variant.on_proxy_grid``).

        Raises:
            ValueError: ``attention`` is unknown, or needs a proxy.

        Memory:
            As for ``dense_features``, by the length of the sequences.
        """
        _require_known(attention, with_proxy=proxy is not None)
        hidden = self.vision_model.of_patches(patches, attention, proxy)
        return unit(self.visual_projection(hidden))


def _require_known(attention: str, *, with_proxy: bool = False) -> None:
    if attention not in ATTENTIONS:
        raise ValueError(
            f"`attention` is {attention!r}, expected one of {', '.join(ATTENTIONS)}"
        )
    if ATTENTIONS[attention].needs_proxy and not with_proxy:
        raise ValueError(
            f"`attention` is {attention!r}, which needs the features of a proxy; use "
            "`patch_features` with them"
        )


def load_clip(folder: Path, *, dtype: jax.typing.DTypeLike = jnp.float32) -> Clip:
    """Load a CLIP checkpoint.

    Args:
        folder: A folder in the layout of transformers' ``CLIPModel`` or of open_clip,
            such as openai/clip-vit-large-patch14; or a file, such as OpenAI's
            ``ViT-B-16.pt`` (see docs/checkpoints.md).
        dtype: Type of the parameters and of the computation. Softmax, the statistics
            of layer norms and the features returned are float32 in any case.

    Returns:
        The network.

    Raises:
        CheckpointError: The checkpoint is missing, damaged, or not of this kind.
    """
    config = ClipConfig.from_dict(read_config(folder), source=config_source(folder))
    vision = with_pixel_statistics(config.vision, side_folder(folder))
    config = dataclasses.replace(config, vision=vision)
    return load_module(
        partial(Clip, config),
        open_weights(folder),
        dtype=dtype,
        ignored=(r"(text|vision)_model\.embeddings\.position_ids",),
    )
