"""What all sources of affinities have in common."""

from abc import abstractmethod
from collections.abc import Collection, Sequence
from typing import Any

from flax import nnx
from jaxtyping import Array, Float

from dslo_jax.attention.average import average_attention, check_weights
from dslo_jax.models.unet_blocks import QueryKey


Layers = tuple[tuple[str, float], ...]
"""Layers of a network by name, and the weight of each."""


class AffinitySource(nnx.Module):
    """Where the affinity of a photo comes from: the self-attention of a network.

    A base class, because what is compiled and put on a device is a module of flax.

    Attributes:
        size: Side of the square photo, in pixels.
        timestep: Noise of a diffusion model, 0 ... 999; 0 for all other networks.
        layers: Whose attention is averaged.
        temperature: Softens (> 1) or sharpens (< 1) the affinity.
    """

    size: int
    timestep: int
    layers: Layers
    temperature: float

    @property
    @abstractmethod
    def downscaling(self) -> int:
        """Pixels per patch along each side."""

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        side = self.size // self.downscaling
        return side, side

    @abstractmethod
    def encode(self, pixels: Float[Array, "batch size size 3"]) -> Any:
        """The first half of the way, as far as ``attend`` needs it.

        Args:
            pixels: RGB in [0, 1], ``size`` pixels square.

        Raises:
            ValueError: The photos have another size.
        """

    @abstractmethod
    def attend(self, encoded: Any) -> Float[Array, "batch patches patches"]:
        """The affinity between patches: float32, rows sum to 1.

        Args:
            encoded: What ``encode`` returned.
        """

    @abstractmethod
    def with_choices(
        self, *, size: int, timestep: int, layers: Layers, temperature: float
    ) -> "AffinitySource":
        """The same networks with other choices.

        Args:
            size: Side of the square photo, in pixels.
            timestep: 0 (no noise) ... 999.
            layers: Names and weights; empty for the usual ones.
            temperature: Softens (> 1) or sharpens (< 1) the affinity.

        Raises:
            OptionError: The source has no use for a choice.
            ValueError: A choice is out of range.
        """

    @property
    @abstractmethod
    def encoding(self) -> tuple[Any, ...]:
        """The choices that ``encode`` depends on, beside the network."""

    def __call__(
        self, pixels: Float[Array, "batch size size 3"]
    ) -> Float[Array, "batch patches patches"]:
        """The affinity of photos: ``attend(encode(pixels))``."""
        return self.attend(self.encode(pixels))

    def averaged(
        self, queries_keys: Sequence[QueryKey]
    ) -> Float[Array, "batch patches patches"]:
        """The mean of the attentions of ``layers``, by their weights.

        Args:
            queries_keys: Of each of ``layers``, in their order.
        """
        weights = tuple(weight for _, weight in self.layers)
        return average_attention(queries_keys, weights, temperature=self.temperature)

    def require_size(self, pixels: Float[Array, "batch _ _ 3"]) -> None:
        """Refuse (``ValueError``) photos of another size."""
        if pixels.shape[1:3] != (self.size, self.size):
            raise ValueError(
                f"`pixels` is {pixels.shape}, expected photos of {self.size} x "
                f"{self.size} pixels; resize them"
            )


def wrong_layers(layers: Layers, valid: Collection[str]) -> list[str]:
    """Names that are not valid; all of them if one comes twice; none if all is well.

    Raises:
        OptionError: All names are well and a weight is none (``O01``).
    """
    names = [name for name, _ in layers]
    unknown = sorted(set(names) - set(valid))
    if unknown or len(set(names)) != len(names):
        return unknown or names
    check_weights([weight for _, weight in layers])
    return []
