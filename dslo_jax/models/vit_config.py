"""The shape of a DINO or DINOv2 vision transformer, from its ``config.json``."""

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dslo_jax.models.clip_config import ClipVisionConfig, stated
from dslo_jax.models.config_fields import Fields, model_type_of
from dslo_jax.models.pixel_statistics import with_pixel_statistics


logger = logging.getLogger(__name__)

# What transformers assumes where a config.json leaves a field out.
_DEFAULTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "vit": {"patch_size": 16, "layer_norm_eps": 1e-12},
        "dinov2": {"patch_size": 14, "layer_norm_eps": 1e-6},
        "dinov2_with_registers": {"patch_size": 16, "layer_norm_eps": 1e-6},
    }
)
VIT_TYPES = tuple(_DEFAULTS)
"""The ``model_type`` of DINO, DINOv2, and DINOv2 with registers."""

_HALF = (0.5, 0.5, 0.5)


@dataclasses.dataclass(frozen=True)
class VitConfig(ClipVisionConfig):
    """The shape of a DINO: that of a CLIP vision transformer, and further fields.

    The statistics of the pixels are ImageNet's, which all three were trained with,
    unless the folder says otherwise (see ``with_imagenet_statistics``).

    Args:
        num_register_tokens: Tokens beside the class token that are not patches.
        layer_scale: Whether attention and MLP have a scale for each channel (DINOv2).
        swiglu: Whether one half of an MLP gates the other (DINOv2-giant). Then
            ``intermediate_size`` is the width of each half.
        antialias: Whether the position embedding is resampled with antialiasing; see
            ``Vit``.
    """

    hidden_act: str = "gelu"
    pixel_mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    pixel_std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    num_register_tokens: int = 0
    layer_scale: bool = False
    swiglu: bool = False
    antialias: bool = False

    @classmethod
    def from_dict(
        cls, values: Mapping[str, Any], *, source: str | Path = "config.json"
    ) -> "VitConfig":
        """Read a ``config.json``.

        The epsilon is the one in the file: for DINO this is 1e-12, although DINO was
        trained with 1e-6.

        Args:
            values: The parsed file.
            source: The file, to be named in errors.

        Returns:
            The config, checked.

        Raises:
            CheckpointError: It is none of ``VIT_TYPES``, or a field is not what this
                network needs (``W06``).
        """
        fields = Fields(values, source)
        kind = model_type_of(values)
        if kind not in VIT_TYPES:
            raise fields.wrong("model_type", f"one of {', '.join(VIT_TYPES)}")
        if not fields.flag("qkv_bias", True):
            raise fields.wrong("qkv_bias", "true")
        defaults = {"hidden_act": cls.hidden_act, **_DEFAULTS[kind]}
        sizes = stated(ClipVisionConfig, fields, **defaults)
        if kind == "vit":
            return cls(**sizes)
        width = fields.integer("mlp_ratio", 4) * sizes["hidden_size"]
        swiglu = fields.flag("use_swiglu_ffn", False)
        if swiglu:  # two thirds, rounded up to a multiple of 8: about as many numbers
            width = -(-(width * 2 // 3) // 8) * 8
        sizes |= {"intermediate_size": width, "layer_scale": True, "swiglu": swiglu}
        if kind == "dinov2":
            return cls(**sizes)
        registers = fields.integer("num_register_tokens", 4, minimum=0)
        return cls(**sizes, num_register_tokens=registers, antialias=True)


def with_imagenet_statistics(config: VitConfig, folder: Path | None) -> VitConfig:
    """Give a config the statistics that its folder states, or those of ImageNet.

    transformers writes a mean and a standard deviation of 0.5 for any ViT unless it is
    given others. Some published copies of DINO have these values, but no DINO was
    trained with them. For them the statistics of ImageNet are used, and a warning is
    logged.

    Args:
        config: The config to complete.
        folder: The folder of the network's files; ``None`` where there is none.

    Returns:
        The config with its statistics.

    Raises:
        CheckpointError: As for ``with_pixel_statistics``.
    """
    told = with_pixel_statistics(config, folder)
    if (told.pixel_mean, told.pixel_std) != (_HALF, _HALF):
        return told
    logger.warning(
        "%s states a pixel mean and deviation of 0.5, the default of a ViT; no DINO "
        "was trained so, and those of ImageNet are used",
        folder,
    )
    return config
