"""Logits of CLIP: cosines between the features of words and of patches."""

from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from dslo_jax.cost import Work, networks as costs
from dslo_jax.errors import OptionError
from dslo_jax.logits.source import Cuts, LogitsSource
from dslo_jax.models.clip import Clip, load_clip
from dslo_jax.models.dense_clip.registry import ATTENTIONS
from dslo_jax.models.proxy import ProxyVit, load_proxy as load_proxy
from dslo_jax.ops.patches import Patches


class ClipLogits(LogitsSource):
    """CLIP as a source of logits.

    Args:
        clip: The network.
        proxy: The second network of the attentions that need one.
    """

    stages: ClassVar[tuple[str, str]] = ("text", "clip")

    def __init__(self, clip: Clip, proxy: ProxyVit | None = None):
        self.clip = clip
        self.proxy = proxy
        self.vocab_size = clip.config.text.vocab_size
        self.patch_size = clip.config.vision.patch_size

    def embed(self, ids: Int[Array, "batch tokens"]) -> Float[Array, "batch channels"]:
        """Features of prompts; see ``Clip.encode_text``."""
        return self.clip.encode_text(ids)

    def cuts(self, attention: str) -> Cuts:
        """One cut for CLIP, and one for the proxy of an attention that needs it.

        Raises:
            OptionError: The attention needs heads that the proxy does not have
                (``O05``).
        """
        if not self.needs_proxy(attention):
            return super().cuts(attention)
        assert self.proxy is not None, "the source was made without its proxy"
        if ATTENTIONS[attention].same_heads:
            self._check_heads(attention)
        sides = self.patch_size, self.proxy.config.patch_size
        return Cuts(sides, int(ATTENTIONS[attention].on_proxy_grid))

    def _check_heads(self, attention: str) -> None:
        assert self.proxy is not None  # called for attentions with a proxy
        found, wanted = (
            (config.num_attention_heads, config.hidden_size)
            for config in (self.proxy.config, self.clip.config.vision)
        )
        if found != wanted:
            raise OptionError(
                "O05",
                f"clip_attention {attention!r} pairs the heads of CLIP ({wanted[0]} "
                f"heads, {wanted[1]} channels) with those of its proxy ({found[0]} "
                f"heads, {found[1]} channels); choose a proxy of the same size",
            )

    def needs_proxy(self, attention: str) -> bool:
        """Whether the attention is one with a proxy."""
        return ATTENTIONS[attention].needs_proxy

    def with_proxy(self, proxy: nnx.Module) -> "ClipLogits":
        """This CLIP with a DINO or DINOv2."""
        assert isinstance(proxy, ProxyVit)
        return ClipLogits(self.clip, proxy)

    def features(
        self, patches: Patches, attention: str, proxy: Patches | None = None
    ) -> Float[Array, "batch patches channels"]:
        """Features of every patch; see ``Clip.patch_features``."""
        told = None
        if proxy is not None:
            assert self.proxy is not None, "the source was made without its proxy"
            told = self.proxy.of_patches(proxy)
        return self.clip.patch_features(patches, attention=attention, proxy=told)

    def embed_work(self, prompts: int, tokens: int) -> Work:
        """Computation of the text half."""
        return costs.text(self.clip.config, prompts, tokens)

    def features_work(self, patches: int, attention: str, proxy: int = 0) -> Work:
        """Computation of the vision half, and of the proxy."""
        work = costs.vision(self.clip.config, patches, attention, proxy)
        if proxy:
            assert self.proxy is not None, "the source was made without its proxy"
            others = self.proxy.others
            work += costs.proxy(self.proxy.config, proxy, others)
        return work

    def networks(self) -> dict[str, list[Any]]:
        """The text half and the vision half, each with its projection."""
        clip = self.clip
        proxy = [] if self.proxy is None else [self.proxy]
        return {
            "text": [clip.text_model, clip.text_projection],
            "clip": [clip.vision_model, clip.visual_projection, *proxy],
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
