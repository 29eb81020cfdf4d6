"""Affinities from the self-attention of vision transformers: DINO and CLIP."""

import dataclasses
import math
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dslo_jax.attention.layers import Layers, find_layers
from dslo_jax.attention.options import AffinityOptions
from dslo_jax.attention.source import AffinitySource
from dslo_jax.cost import Work, networks as costs
from dslo_jax.errors import OptionError
from dslo_jax.models.clip_vision import VisionModel, load_vision
from dslo_jax.models.config_fields import model_type_of
from dslo_jax.models.dinov3 import Dinov3, load_dinov3
from dslo_jax.models.dinov3_config import DINOV3_TYPE
from dslo_jax.models.query_key import QueryKey
from dslo_jax.models.vit import Vit, load_vit
from dslo_jax.models.vit_config import VIT_TYPES
from dslo_jax.weights import read_config


_LOADERS = {**dict.fromkeys(VIT_TYPES, load_vit), DINOV3_TYPE: load_dinov3}
_SIZE_UNIT = 64  # affinity_size is a multiple of it, as diffusion models need it


class TransformerAffinity(AffinitySource):
    """Source of affinities: the self-attention of a vision transformer.

    The photo is stretched to a square and standardised with the pixel statistics of the
    network. The class token and the registers take part in the softmax and are left out
    of the affinity (see ``average_attention``); heads are averaged, and rows divided by
    their sum. The default layer is the last, as in DINO's own code; the paper does not
    state one.

    Args:
        network: A DINO, a DINOv2, a DINOv3, or the vision half of a CLIP.
        options: The size must be a multiple of the patch size, the timestep 0, and
            there is no noise. The layers are called ``"layers.0"``, ``"layers.1"``,
            ... or by their index; an empty list stands for the last.

    Attributes:
        wanted: Indices of the layers.

    Raises:
        OptionError: The size is not such a multiple, the timestep is not 0, noise is
            wanted, a layer does not exist, or the weights are negative or all zero
            (``O01``).
    """

    stages: ClassVar[tuple[str, str]] = ("vit", "aggregation")

    def __init__(self, network: Vit | Dinov3 | VisionModel, options: AffinityOptions):
        depth = network.config.num_hidden_layers
        _check_size(options.size, network.config.patch_size)
        for name, off in (("timestep", 0), ("noise_seed", -1)):
            if (value := getattr(options, name)) != off:
                raise OptionError(
                    "O01",
                    f"{name} = {value}, but a vision transformer has no noise and no "
                    f"timestep; leave it at {off}, or use the attention of a diffusion "
                    "model",
                )
        names = [f"layers.{index}" for index in range(depth)]
        layers = find_layers(
            options.layers or (("-1", 1.0),), names, "this vision transformer"
        )
        self.network = network
        self.options = dataclasses.replace(options, layers=layers)
        self.wanted = tuple(names.index(name) for name, _ in layers)

    @classmethod
    def load(
        cls,
        place: Path,
        *,
        dtype: jax.typing.DTypeLike = jnp.float32,
        options: AffinityOptions = AffinityOptions(),
    ) -> "TransformerAffinity":
        """Load a DINO, DINOv2 (also with registers), DINOv3, or half of a CLIP.

        Args:
            place: A folder or a file, whose ``model_type`` names the network.
            dtype: As for ``AffinitySource``.
            options: As for the class.
        """
        load = _LOADERS.get(model_type_of(read_config(place)), load_vision)
        return cls(load(place, dtype=dtype), options)

    @property
    def downscaling(self) -> int:
        """Pixels per patch along each side."""
        return self.network.config.patch_size

    @property
    def encoding(self) -> tuple[int, Layers]:
        """Options that ``encode`` depends on: the size of the photo, and the layers."""
        return self.options.size, self.options.layers

    def encode(self, pixels: Float[Array, "batch size size 3"]) -> tuple[QueryKey, ...]:
        """Compute the queries of patches and the keys of all tokens, for each layer.

        See ``AffinitySource`` for the photos.
        """
        self.require_size(pixels)
        return self.network.queries_keys(pixels, self.wanted)

    def attend(
        self, encoded: tuple[QueryKey, ...]
    ) -> Float[Array, "batch patches patches"]:
        """The affinity between patches; see ``AffinitySource``."""
        return self.averaged(encoded)

    def with_options(self, options: AffinityOptions) -> "TransformerAffinity":
        """The same network with other options; see ``AffinitySource``."""
        return type(self)(self.network, options)

    def networks(self) -> dict[str, list[Any]]:
        """The vision transformer."""
        return {"vit": [self.network]}

    def work(self) -> dict[str, Work]:
        """Computation of the transformer and of the averaging."""
        config, others = self.network.config, self.network.others
        layers = [(config.num_attention_heads, config.hidden_size)] * len(self.wanted)
        patches = math.prod(self.grid)
        return {
            "vit": costs.vit(config, *self.grid, others, max(self.wanted)),
            "aggregation": costs.aggregation(layers, patches, others),
        }


def fitting_size(size: int, patch: int) -> int:
    """The ``affinity_size`` nearest to a wanted one that fits a patch size.

    Args:
        size: Wanted size, in pixels.
        patch: Side of a patch, in pixels.
    """
    unit = math.lcm(patch, _SIZE_UNIT)
    return unit * max(1, round(size / unit))


def _check_size(size: int, patch: int) -> None:
    if size <= 0 or size % patch:
        unit = math.lcm(patch, _SIZE_UNIT)
        lower = unit * (size // unit)
        near = [str(valid) for valid in (lower, lower + unit) if valid > 0]
        raise OptionError(
            "O01",
            f"affinity_size = {size} is not a multiple of {patch}, the side of a patch "
            f"of this attention; use {' or '.join(near)}",
        )
