"""The shape of a DINOv3 vision transformer, from its ``config.json``."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dslo_jax.models.clip_config import ClipVisionConfig, stated
from dslo_jax.models.config_fields import Fields, model_type_of


DINOV3_TYPE = "dinov3_vit"
"""The ``model_type`` of DINOv3's vision transformers."""

_ACTIVATIONS = ("gelu", "silu")
# What transformers assumes where a config.json leaves a field out.
_DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {
        "hidden_size": 384,
        "intermediate_size": 1536,
        "num_attention_heads": 6,
        "patch_size": 16,
        "layer_norm_eps": 1e-5,
        "hidden_act": "gelu",
    }
)
_BIASES: Mapping[str, bool] = MappingProxyType(
    {
        "query_bias": True,
        "key_bias": False,
        "value_bias": True,
        "proj_bias": True,
        "mlp_bias": True,
    }
)


@dataclasses.dataclass(frozen=True)
class Dinov3Config(ClipVisionConfig):
    """The shape of a DINOv3: that of a CLIP vision transformer, and further fields.

    The defaults are those of transformers. The statistics of the pixels are ImageNet's,
    unless the folder says otherwise.

    Args:
        num_register_tokens: Tokens beside the class token that are not patches; 4 in
            all published checkpoints.
        swiglu: Whether one linear map gates another in the MLP (the larger networks).
            Then ``intermediate_size`` is the width of each.
        rope_theta: Base of the wavelengths of the rotary position embedding.
        query_bias: Whether the linear map to the queries has a bias; the same for the
            others.
    """

    hidden_size: int = 384
    intermediate_size: int = 1536
    num_attention_heads: int = 6
    patch_size: int = 16
    hidden_act: str = "gelu"
    pixel_mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    pixel_std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    num_register_tokens: int = 0
    swiglu: bool = False
    rope_theta: float = 100.0
    query_bias: bool = True
    key_bias: bool = False
    value_bias: bool = True
    proj_bias: bool = True
    mlp_bias: bool = True

    @classmethod
    def from_dict(
        cls, values: Mapping[str, Any], *, source: str | Path = "config.json"
    ) -> "Dinov3Config":
        """Read a ``config.json``.

        Args:
            values: The parsed file.
            source: The file, to be named in errors.

        Returns:
            The config, checked.

        Raises:
            CheckpointError: It is no DINOv3, or a field is not what this network needs
                (``W06``).
        """
        fields = Fields(values, source)
        if model_type_of(values) != DINOV3_TYPE:
            raise fields.wrong("model_type", DINOV3_TYPE)
        activation = fields.get("hidden_act", cls.hidden_act)
        if activation not in _ACTIVATIONS:
            raise fields.wrong("hidden_act", " or ".join(_ACTIVATIONS))
        # The activations of CLIP are others; this one is read here.
        shared = Fields({**values, "hidden_act": None}, source)
        sizes = stated(ClipVisionConfig, shared, **_DEFAULTS)
        sizes |= {
            "hidden_act": activation,
            "num_register_tokens": fields.integer("num_register_tokens", 0, minimum=0),
            "swiglu": fields.flag("use_gated_mlp", False),
            "rope_theta": fields.number("rope_theta", cls.rope_theta),
        }
        sizes |= {name: fields.flag(name, usual) for name, usual in _BIASES.items()}
        config = cls(**sizes)
        if config.head_size % 4:
            raise fields.wrong(
                "num_attention_heads",
                f"heads whose number of channels is a multiple of 4; hidden_size is "
                f"{config.hidden_size}",
            )
        return config

    @property
    def head_size(self) -> int:
        """Channels of a head."""
        return self.hidden_size // self.num_attention_heads
