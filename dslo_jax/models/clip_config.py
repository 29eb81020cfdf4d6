"""Sizes and constants of a CLIP network, as a checkpoint's ``config.json`` states them.

Files on the hub often list only what differs from the defaults of transformers, so the
defaults below are those of its ``CLIPTextConfig`` and ``CLIPVisionConfig``.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dslo_jax.errors import CheckpointError


_ACTIVATIONS = ("quick_gelu", "gelu")

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
        hidden_act: ``"quick_gelu"`` (OpenAI) or ``"gelu"`` (OpenCLIP, the erf form).
        layer_norm_eps: Added to the variance of every layer norm.
        eos_token_id: The token that a prompt is pooled at; 2 stands for the highest
            id of the prompt (see ``TextModel.pool``).
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
    def from_dict(cls, values: Mapping[str, Any]) -> "ClipTextConfig":
        """Read the config of a text model.

        Args:
            values: A standalone ``config.json``, or the part of one.

        Returns:
            The config, checked.

        Raises:
            CheckpointError: A field is not what this network needs (``W06``).
        """
        _check_model_type(values, "clip_text_model")
        return checked(filled(cls, values, "text_config"), "text_config")


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
        hidden_act: ``"quick_gelu"`` (OpenAI) or ``"gelu"`` (OpenCLIP, the erf form).
        layer_norm_eps: Added to the variance of every layer norm.
        pixel_mean: Subtracted from RGB in [0, 1].
        pixel_std: Divides what is left.
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
    def from_dict(cls, values: Mapping[str, Any]) -> "ClipVisionConfig":
        """Read the config of a vision model.

        Args:
            values: The ``vision_config`` part of a ``config.json``.

        Returns:
            The config with CLIP's pixel statistics, checked.

        Raises:
            CheckpointError: A field is not what this network needs (``W06``).
        """
        _check_model_type(values, "clip_vision_model")
        config = checked(filled(cls, values, "vision_config"), "vision_config")
        if config.num_channels != 3:
            raise mismatch("vision_config.num_channels", config.num_channels, "3")
        return config

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
    def from_dict(cls, values: Mapping[str, Any]) -> "ClipConfig":
        """Read a CLIP ``config.json``.

        Args:
            values: The parsed file.

        Returns:
            The config, checked.

        Raises:
            CheckpointError: It is not CLIP, or a field is not what this network
                needs (``W06``): the field, what was found, what was wanted.
        """
        if values.get("model_type") != "clip":
            raise mismatch("model_type", values.get("model_type"), "'clip'")
        projection_dim = values.get("projection_dim", cls.projection_dim)
        check_value("projection_dim", projection_dim, int)
        return cls(
            text=ClipTextConfig.from_dict(_part(values, "text_config")),
            vision=ClipVisionConfig.from_dict(_part(values, "vision_config")),
            projection_dim=projection_dim,
        )


def with_pixel_statistics(config: ClipConfig, folder: Path) -> ClipConfig:
    """Take the pixel mean and deviation of a folder's ``preprocessor_config.json``.

    Args:
        config: The config to complete.
        folder: A model folder; without the file nothing changes.

    Returns:
        The config with the folder's statistics.

    Raises:
        CheckpointError: The file is not JSON (``W08``), or its mean or deviation is
            not three numbers (``W06``).
    """
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return config
    try:
        values = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise CheckpointError("W08", f"{path} is not a JSON object: {error}") from error
    vision = dataclasses.replace(
        config.vision,
        pixel_mean=_triple(values, "image_mean", config.vision.pixel_mean),
        pixel_std=_triple(values, "image_std", config.vision.pixel_std),
    )
    if min(vision.pixel_std) <= 0:
        raise mismatch("image_std", vision.pixel_std, "positive numbers")
    return dataclasses.replace(config, vision=vision)


def _triple(
    values: Mapping[str, Any], field: str, default: tuple[float, float, float]
) -> tuple[float, float, float]:
    found = values.get(field, default)
    try:
        red, green, blue = (float(value) for value in found)
    except (ValueError, TypeError) as error:
        raise mismatch(field, found, "three numbers") from error
    if not all(map(math.isfinite, (red, green, blue))):
        raise mismatch(field, found, "three finite numbers")
    return red, green, blue


def _part(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """One half of a CLIP config.

    Old files hold each half twice. transformers lets the ``_dict`` spelling win, and
    with it the defaults of whatever that spelling leaves out.
    """
    old = values.get(f"{name}_dict")
    part = (values.get(name) or {}) if old is None else old
    if not isinstance(part, Mapping):
        raise mismatch(name, part, "an object")
    return part


def filled(kind: type, values: Mapping[str, Any], name: str) -> Any:
    """Build a config from the fields that the file states, checking their types.

    Args:
        kind: A dataclass; its fields ``pixel_...`` are never read.
        values: The file, or the part of one.
        name: What to call that in an error.

    Raises:
        CheckpointError: A field has another type (``W06``).
    """
    given = {}
    for field in dataclasses.fields(kind):
        if field.name in values and not field.name.startswith("pixel_"):
            check_value(f"{name}.{field.name}", values[field.name], field.type)
            given[field.name] = values[field.name]
    return kind(**given)


def checked(config: Any, name: str) -> Any:
    """Check what concerns two fields, and the activation; arguments as for ``filled``.

    Raises:
        CheckpointError: They do not fit (``W06``).
    """
    if config.hidden_act not in _ACTIVATIONS:
        wanted = " or ".join(map(repr, _ACTIVATIONS))
        raise mismatch(f"{name}.hidden_act", config.hidden_act, wanted)
    if config.hidden_size % config.num_attention_heads:
        raise mismatch(
            f"{name}.num_attention_heads",
            config.num_attention_heads,
            f"a divisor of hidden_size {config.hidden_size}",
        )
    return config


def _check_model_type(values: Mapping[str, Any], wanted: str) -> None:
    """A part of a CLIP config may leave its type out; a foreign type is refused."""
    found = values.get("model_type", wanted)
    if found != wanted:
        raise mismatch("model_type", found, repr(wanted))


def check_value(name: str, found: Any, kind: Any) -> None:
    """Refuse (``W06``) a number that is not positive, or not of its kind."""
    if kind is int and (type(found) is not int or found < 1):
        raise mismatch(name, found, "a positive integer")
    if kind is float and (type(found) not in (int, float) or not found > 0):
        raise mismatch(name, found, "a positive number")


def mismatch(name: str, found: object, wanted: str) -> CheckpointError:
    """The error (``W06``) about a field that this network cannot use."""
    return CheckpointError(
        "W06", f"config.json has {name} = {found!r}, this network wants {wanted}"
    )
