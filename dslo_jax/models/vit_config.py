"""The shape of a DINO or DINOv2 vision transformer, from its ``config.json``."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from dslo_jax.models.clip_config import (
    ClipVisionConfig,
    check_value,
    checked,
    filled,
    mismatch,
)


# What transformers assumes where a config.json leaves a field out.
_DEFAULTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "vit": {"patch_size": 16, "layer_norm_eps": 1e-12},
        "dinov2": {"patch_size": 14, "layer_norm_eps": 1e-6},
        "dinov2_with_registers": {"patch_size": 16, "layer_norm_eps": 1e-6},
    }
)
VIT_TYPES = tuple(_DEFAULTS)
"""The ``model_type`` of what is loaded here: DINO, DINOv2, DINOv2 with registers."""


@dataclasses.dataclass(frozen=True)
class VitConfig(ClipVisionConfig):
    """What the vision transformer of a CLIP has, and what a DINO has beside it.

    The statistics of the pixels are ImageNet's, which all three were trained with, and
    are never read from a ``preprocessor_config.json``: copies of these checkpoints with
    a mean of 0.5, the processor's default, are about.

    Args:
        num_register_tokens: Tokens beside the class token that are no patches.
        layer_scale: Whether what a block adds is scaled channel by channel (DINOv2).
        antialias: How the position embedding is brought to another grid: see ``Vit``.
    """

    hidden_act: str = "gelu"
    pixel_mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    pixel_std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    num_register_tokens: int = 0
    layer_scale: bool = False
    antialias: bool = False

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "VitConfig":
        """Read a ``config.json``.

        The epsilon is the file's: that of DINO says 1e-12, though DINO was trained
        with 1e-6.

        Args:
            values: The parsed file.

        Returns:
            The config, checked.

        Raises:
            CheckpointError: It is none of ``VIT_TYPES``, or a field is not what this
                network needs (``W06``).
        """
        kind = values.get("model_type")
        if kind not in VIT_TYPES:
            raise mismatch("model_type", kind, f"one of {', '.join(VIT_TYPES)}")
        for field, wanted in (("use_swiglu_ffn", False), ("qkv_bias", True)):
            if values.get(field, wanted) != wanted:
                raise mismatch(field, values[field], f"{wanted}; use a smaller one")
        config = filled(cls, {"image_size": 224, **_DEFAULTS[kind], **values}, kind)
        if config.num_channels != 3:
            raise mismatch("num_channels", config.num_channels, "3")
        if kind != "vit":
            ratio = values.get("mlp_ratio", 4)
            check_value("mlp_ratio", ratio, int)
            config = dataclasses.replace(
                config,
                intermediate_size=ratio * config.hidden_size,
                layer_scale=True,
            )
        if kind == "dinov2_with_registers":
            registers = values.get("num_register_tokens", 4)
            config = dataclasses.replace(
                config, num_register_tokens=registers, antialias=True
            )
        return checked(config, kind)
