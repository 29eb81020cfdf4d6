"""The base class of all sources of affinities."""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from dslo_jax.attention.average import average_attention
from dslo_jax.attention.options import AffinityOptions
from dslo_jax.cost import Work
from dslo_jax.models.query_key import QueryKey


class AffinitySource(nnx.Module):
    """A source of affinities: a network whose self-attention is read.

    It is a Flax module, so that its parameters can be put on a device and its methods
    compiled.

    Attributes:
        stages: Names of the stages that run ``encode`` and ``attend``.
        options: The attention that is read; with the names of the layers, also where
            the caller left them open.
    """

    stages: ClassVar[tuple[str, str]] = ("encode", "attend")
    options: AffinityOptions

    @classmethod
    @abstractmethod
    def load(
        cls,
        place: Path,
        *,
        dtype: jax.typing.DTypeLike = jnp.float32,
        options: AffinityOptions = AffinityOptions(),
    ) -> "AffinitySource":
        """Load the network of a folder or a file.

        Args:
            place: Folder or file with its weights and its configuration.
            dtype: Type of the parameters and of the computation.
            options: The attention that is read, and how it is averaged.

        Returns:
            The source of affinities. For full float32, trace it under
            ``jax.default_matmul_precision("highest")``.

        Raises:
            CheckpointError: The checkpoint is missing, damaged, or not of this kind.
            OptionError: The network cannot use an option.
        """

    @property
    @abstractmethod
    def downscaling(self) -> int:
        """Pixels per patch along each side."""

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        side = self.options.size // self.downscaling
        return side, side

    @property
    def comparable_layers(self) -> tuple[str, ...]:
        """Layers that ``dslo ablate`` compares, in the order of execution."""
        return ()

    @abstractmethod
    def encode(self, pixels: Float[Array, "batch size size 3"]) -> Any:
        """Compute the first half: everything that ``attend`` needs.

        Args:
            pixels: RGB in [0, 1], ``size`` pixels square.

        Raises:
            ValueError: The photos have another size.
        """

    @abstractmethod
    def attend(self, encoded: Any) -> Float[Array, "batch patches patches"]:
        """Compute the affinity between patches: float32, rows sum to 1.

        Args:
            encoded: The result of ``encode``.

        Memory:
            See ``average_attention``.
        """

    @abstractmethod
    def with_options(self, options: AffinityOptions) -> "AffinitySource":
        """The same networks with other options.

        Raises:
            OptionError: The network cannot use an option.
        """

    @abstractmethod
    def networks(self) -> dict[str, list[Any]]:
        """The modules whose parameters each stage uses, by the name of the stage."""

    @abstractmethod
    def work(self) -> dict[str, Work]:
        """Computation for one photo, by stage; that of the averaging is separate."""

    @property
    @abstractmethod
    def encoding(self) -> tuple[Any, ...]:
        """The options that ``encode`` depends on."""

    def __call__(
        self, pixels: Float[Array, "batch size size 3"]
    ) -> Float[Array, "batch patches patches"]:
        """The affinity of photos: ``attend(encode(pixels))``."""
        return self.attend(self.encode(pixels))

    def averaged(
        self, queries_keys: Sequence[QueryKey]
    ) -> Float[Array, "batch patches patches"]:
        """Average the attentions of the layers with their weights.

        Args:
            queries_keys: Queries and keys of each layer, in the order of the options.
        """
        weights = tuple(weight for _, weight in self.options.layers)
        temperature = self.options.temperature
        return average_attention(queries_keys, weights, temperature=temperature)

    def require_size(self, pixels: Float[Array, "batch _ _ 3"]) -> None:
        """Refuse (``ValueError``) photos of another size."""
        size = self.options.size
        if pixels.shape[1:3] != (size, size):
            raise ValueError(
                f"`pixels` is {pixels.shape}, expected photos of {size} x {size} "
                "pixels; resize them"
            )
