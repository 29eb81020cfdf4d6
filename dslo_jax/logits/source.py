"""What all sources of logits have in common."""

from abc import abstractmethod
from typing import Any, ClassVar

from flax import nnx
from jaxtyping import Array, Float, Int

from dslo_jax.cost import Work


class LogitsSource(nnx.Module):
    """Where the logits of a photo come from: features of words and of patches.

    The logit of a word in a patch is the product of their features. A base class,
    because what is compiled and put on a device is a module of flax.

    Attributes:
        stages: What people call the encoding of words and that of photos.
        vocab_size: Number of tokens that ``embed`` knows.
        patch_size: Side of a patch, in pixels.
    """

    stages: ClassVar[tuple[str, str]] = ("text", "features")
    vocab_size: int
    patch_size: int

    @abstractmethod
    def embed(self, ids: Int[Array, "batch tokens"]) -> Float[Array, "batch channels"]:
        """Features of prompts, of length 1.

        Args:
            ids: Token ids, as ``prompts.tokenize`` makes them.
        """

    @abstractmethod
    def features(
        self, pixels: Float[Array, "batch height width 3"], attention: str
    ) -> Float[Array, "batch rows columns channels"]:
        """Features of every patch of photos, of length 1.

        Args:
            pixels: RGB in [0, 1], of any size.
            attention: How patches are mixed; static under ``jax.jit``.
        """

    @abstractmethod
    def embed_work(self, prompts: int, tokens: int) -> Work:
        """What ``embed`` costs."""

    @abstractmethod
    def features_work(self, rows: int, columns: int, attention: str) -> Work:
        """What ``features`` of a photo of so many patches costs."""

    @abstractmethod
    def networks(self) -> dict[str, list[Any]]:
        """The modules whose parameters each stage uses, by the name of the stage."""
