"""Sizes and constants of a CLIP network, as a checkpoint's ``config.json`` states them.

Files on the hub often list only what differs from the defaults of transformers, so the
defaults below are those of its ``CLIPTextConfig`` and ``CLIPVisionConfig``.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dslo_jax.models.config_fields import Fields, model_type_of


# Our names of the activations, by all names that transformers has for them.
_ACTIVATIONS: Mapping[str, str] = MappingProxyType(
    {
        "quick_gelu": "quick_gelu",
        "gelu": "gelu",
        "gelu_python": "gelu",
        "gelu_new": "gelu_tanh",
        "gelu_pytorch_tanh": "gelu_tanh",
        "gelu_python_tanh": "gelu_tanh",
        "gelu_fast": "gelu_tanh",
        "gelu_accurate": "gelu_tanh",
    }
)

# The statistics of CLIP's training pixels, RGB in [0, 1].
_PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
_PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclasses.dataclass(frozen=True)
class ClipTextConfig:
    """The text transformer.

    Args:
        vocab_size: Number of token ids.
        hidden_size: Channels of a token.
        intermediate_size: Channels inside an MLP.
        num_hidden_layers: Number of blocks.
        num_attention_heads: Heads of each block; divides ``hidden_size``.
        max_position_embeddings: Longest prompt in tokens.
        hidden_act: ``"quick_gelu"`` (OpenAI), ``"gelu"`` (OpenCLIP, the erf form) or
            ``"gelu_tanh"``.
        layer_norm_eps: Added to the variance of every layer norm.
        eos_token_id: Token whose state becomes the feature of the prompt; 2 stands for
            the highest id of the prompt (see ``TextModel.pool``).
    """

    vocab_size: int = 49408
    hidden_size: int = 512
    intermediate_size: int = 2048
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    max_position_embeddings: int = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    eos_token_id: int = 49407

    @classmethod
    def from_dict(
        cls, values: Mapping[str, Any], *, source: str | Path = "config.json"
    ) -> "ClipTextConfig":
        """Read the config of a text model.

        Args:
            values: A standalone ``config.json``, or that of a whole CLIP.
            source: The file, to be named in errors.

        Returns:
            The config, checked.

        Raises:
            CheckpointError: A field is not what this network needs (``W06``).
        """
        fields = _half(Fields(values, source), "text_config", "clip_text_model")
        return cls(**stated(cls, fields))


@dataclasses.dataclass(frozen=True)
class ClipVisionConfig:
    """The vision transformer.

    Args:
        hidden_size: Channels of a token.
        intermediate_size: Channels inside an MLP.
        num_hidden_layers: Number of blocks.
        num_attention_heads: Heads of each block; divides ``hidden_size``.
        num_channels: Always 3.
        image_size: Side of the square photos of training, pixels.
        patch_size: Side of a patch, pixels.
        hidden_act: ``"quick_gelu"`` (OpenAI), ``"gelu"`` (OpenCLIP, the erf form) or
            ``"gelu_tanh"``.
        layer_norm_eps: Added to the variance of every layer norm.
        pixel_mean: Mean of RGB in [0, 1], subtracted first.
        pixel_std: Standard deviation, by which the difference is divided.
    """

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_channels: int = 3
    image_size: int = 224
    patch_size: int = 32
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    pixel_mean: tuple[float, float, float] = _PIXEL_MEAN
    pixel_std: tuple[float, float, float] = _PIXEL_STD

    @classmethod
    def from_dict(
        cls, values: Mapping[str, Any], *, source: str | Path = "config.json"
    ) -> "ClipVisionConfig":
        """Read the config of a vision model.

        Args:
            values: A standalone ``config.json``, or that of a whole CLIP.
            source: The file, to be named in errors.

        Returns:
            The config with CLIP's pixel statistics, checked.

        Raises:
            CheckpointError: A field is not what this network needs (``W06``).
        """
        fields = _half(Fields(values, source), "vision_config", "clip_vision_model")
        return cls(**stated(cls, fields))

    @property
    def grid_size(self) -> int:
        """Side of the grid of patches that the position embedding was trained on."""
        return self.image_size // self.patch_size


@dataclasses.dataclass(frozen=True)
class ClipConfig:
    """Both transformers and the space they share.

    Args:
        text: The text transformer.
        vision: The vision transformer.
        projection_dim: Dimension D of the shared space.
    """

    text: ClipTextConfig = ClipTextConfig()
    vision: ClipVisionConfig = ClipVisionConfig()
    projection_dim: int = 512

    @classmethod
    def from_dict(
        cls, values: Mapping[str, Any], *, source: str | Path = "config.json"
    ) -> "ClipConfig":
        """Read a CLIP ``config.json``.

        Only the ``projection_dim`` next to the two halves counts. One inside a half is
        for networks that consist of this half alone.

        Args:
            values: The parsed file.
            source: The file, to be named in errors.

        Returns:
            The config, checked.

        Raises:
            CheckpointError: It is not CLIP, or this network cannot use the value of a
                field (``W06``). The message names the field, the value, and the value
                that was expected.
        """
        fields = Fields(values, source)
        if model_type_of(values) != "clip":
            raise fields.wrong("model_type", "'clip'")
        return cls(
            text=ClipTextConfig.from_dict(values, source=source),
            vision=ClipVisionConfig.from_dict(values, source=source),
            projection_dim=fields.integer("projection_dim", cls.projection_dim),
        )


def stated(kind: type, fields: Fields, **defaults: Any) -> dict[str, Any]:
    """Read the sizes and the activation of a transformer, and check them.

    Args:
        kind: ``ClipTextConfig`` or ``ClipVisionConfig``.
        fields: The file, or the part of one.
        **defaults: Values of fields that are left out, where they differ from the
            defaults of ``kind``.

    Returns:
        Every field of ``kind`` but the statistics of the pixels.

    Raises:
        CheckpointError: A field is not what our networks need (``W06``).
    """
    read: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        default = defaults.get(field.name, field.default)
        if field.type is int:
            read[field.name] = fields.integer(field.name, default)
        elif field.type is float:
            read[field.name] = fields.number(field.name, default)
        elif field.type is str:
            read[field.name] = _activation(fields, field.name, default)
    if read["hidden_size"] % read["num_attention_heads"]:
        raise fields.wrong(
            "num_attention_heads", f"a divisor of hidden_size {read['hidden_size']}"
        )
    if read.get("num_channels", 3) != 3:
        raise fields.wrong("num_channels", "3")
    return read


def _activation(fields: Fields, name: str, default: str) -> str:
    """Our name of an activation."""
    found = fields.get(name, default)
    if not isinstance(found, str) or found not in _ACTIVATIONS:
        raise fields.wrong(name, "one of " + ", ".join(_ACTIVATIONS))
    return _ACTIVATIONS[found]


def _half(fields: Fields, name: str, kind: str) -> Fields:
    """One half of a CLIP, from a file of its own or from that of the whole CLIP.

    A file may leave out its type; another type is refused.
    """
    if model_type_of(fields.values) == "clip":
        fields = _part(fields, name)
    if model_type_of(fields.values) not in (None, kind):
        raise fields.wrong("model_type", repr(kind))
    return fields


def _part(fields: Fields, name: str) -> Fields:
    """One half of the config of a CLIP.

    Old files hold each half twice. As in transformers, the one with ``_dict`` in its
    name wins, and fields that it leaves out have their defaults.
    """
    old = f"{name}_dict"
    return fields.part(name if fields.values.get(old) is None else old)
