"""The base class of all sources of logits."""

from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple

from flax import nnx
from jaxtyping import Array, Float, Int

from dslo_jax.cost import Work
from dslo_jax.ops.patches import Patches


class Cuts(NamedTuple):
    """How a photo is cut into patches for a source.

    Attributes:
        sides: Side of the patches of the source, in pixels; if it has a proxy, also of
            those of the proxy.
        output: Index in ``sides`` of the patches that get features.
    """

    sides: tuple[int, ...]
    output: int = 0


class LogitsSource(nnx.Module):
    """A source of logits: a network with features of words and of patches.

    The logit of a word in a patch is the product of their features. A source is a Flax
    module, so that its parameters can be put on a device and its methods compiled.

    Attributes:
        stages: Names of the stages that run ``embed`` and ``features``.
        vocab_size: Number of tokens that ``embed`` knows.
        patch_size: Side of a patch, in pixels.
    """

    stages: ClassVar[tuple[str, str]] = ("text", "features")
    vocab_size: int
    patch_size: int

    @abstractmethod
    def embed(self, ids: Int[Array, "batch tokens"]) -> Float[Array, "batch channels"]:
        """Compute features of prompts; each has length 1.

        Args:
            ids: Token ids from ``prompts.tokenize``.
        """

    def cuts(self, attention: str) -> Cuts:
        """How ``features`` wants photos to be cut."""
        return Cuts((self.patch_size,))

    def needs_proxy(self, attention: str) -> bool:
        """Whether ``features`` needs a second network; see ``with_proxy``."""
        return False

    def with_proxy(self, proxy: nnx.Module) -> "LogitsSource":
        """This source with a second network, which shares its parameters.

        Raises:
            OptionError: The proxy does not fit this source (``O05``).
        """
        raise NotImplementedError("this source has no use for a proxy")

    @abstractmethod
    def features(
        self, patches: Patches, attention: str, proxy: Patches | None = None
    ) -> Float[Array, "batch patches channels"]:
        """Compute features of the patches of photos; each has length 1.

        A sequence may be longer than its photo. Its padding must not change the
        features of the patches (see ``Patches.is_real``), and its own are not used.

        Args:
            patches: Photos of any sizes with RGB in [0, 1].
            attention: Name of the attention between patches; static under ``jax.jit``.
            proxy: The same photos, cut for the proxy; given if ``cuts`` says so.
        """

    @abstractmethod
    def embed_work(self, prompts: int, tokens: int) -> Work:
        """Computation of ``embed``."""

    @abstractmethod
    def features_work(self, patches: int, attention: str, proxy: int = 0) -> Work:
        """Computation of ``features`` for sequences of so many patches.

        Args:
            patches: Patches of this source.
            attention: As for ``features``.
            proxy: Patches of the proxy, if there is one.
        """

    @abstractmethod
    def networks(self) -> dict[str, list[Any]]:
        """The modules whose parameters each stage uses, by the name of the stage."""
