"""Logits of CLIP: cosines between the features of words and of patches."""

from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dslo_jax.cost import Work, networks as costs
from dslo_jax.logits.source import LogitsSource
from dslo_jax.models.clip import Clip, load_clip
from dslo_jax.ops.patches import Patches


class ClipLogits(LogitsSource):
    """CLIP as a source of logits.

    Args:
        clip: The network.
    """

    stages: ClassVar[tuple[str, str]] = ("text", "clip")

    def __init__(self, clip: Clip):
        self.clip = clip
        self.vocab_size = clip.config.text.vocab_size
        self.patch_size = clip.config.vision.patch_size

    def embed(self, ids: Int[Array, "batch tokens"]) -> Float[Array, "batch channels"]:
        """Features of prompts; see ``Clip.encode_text``."""
        return self.clip.encode_text(ids)

    def features(
        self, patches: Patches, attention: str
    ) -> Float[Array, "batch patches channels"]:
        """Features of every patch; see ``Clip.patch_features``."""
        return self.clip.patch_features(patches, attention=attention)

    def embed_work(self, prompts: int, tokens: int) -> Work:
        """Computation of the text half."""
        return costs.text(self.clip.config, prompts, tokens)

    def features_work(self, patches: int, attention: str) -> Work:
        """Computation of the vision half."""
        return costs.vision(self.clip.config, patches, attention)

    def networks(self) -> dict[str, list[Any]]:
        """The text half and the vision half, each with its projection."""
        clip = self.clip
        return {
            "text": [clip.text_model, clip.text_projection],
            "clip": [clip.vision_model, clip.visual_projection],
        }


def load_logits(
    place: Path, *, dtype: jax.typing.DTypeLike = jnp.float32
) -> LogitsSource:
    """Load the network of a folder or file as a source of logits.

    Args:
        place: Folder or file of a CLIP, as for ``load_clip``.
        dtype: Type of the parameters and of the computation.

    Raises:
        CheckpointError: The checkpoint is missing, damaged, or not of this kind.
    """
    return ClipLogits(load_clip(place, dtype=dtype))
