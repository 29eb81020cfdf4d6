"""Fields of a configuration, compared by their meaning and not by their spelling.

Public files describe the same network in many ways: a field is left out, null, or equal
to the default; it is a number, or a list with the same number for every level; 12 or
12.0. An error names the file, the field, the value, and the value that was expected.
"""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dslo_jax.errors import CheckpointError


# ``model_type`` in transformers, for files that only state the class.
_TYPES = {
    "CLIPModel": "clip",
    "CLIPTextModel": "clip_text_model",
    "CLIPTextModelWithProjection": "clip_text_model",
    "CLIPVisionModel": "clip_vision_model",
    "CLIPVisionModelWithProjection": "clip_vision_model",
    "ViTModel": "vit",
    "Dinov2Model": "dinov2",
    "Dinov2WithRegistersModel": "dinov2_with_registers",
    "DINOv3ViTModel": "dinov3_vit",
}


def model_type_of(values: Mapping[str, Any]) -> Any:
    """The ``model_type`` of a ``config.json``, or what its ``architectures`` imply.

    Args:
        values: The parsed file.

    Returns:
        The value in the file, of any type; ``None`` if the file states neither.
    """
    found = values.get("model_type")
    classes = values.get("architectures")
    if found is None and isinstance(classes, list) and len(classes) == 1:
        return _TYPES.get(str(classes[0]))
    return found


@dataclasses.dataclass(frozen=True)
class Fields:
    """The fields of a configuration, or of a part of one. Null counts as left out.

    Args:
        values: The parsed file, or the part.
        source: The file, to be named in errors.
        prefix: What errors put before the name of a field, such as ``"text_config."``.
    """

    values: Mapping[str, Any]
    source: str | Path = "config.json"
    prefix: str = ""

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a field, or the default; a list of equal values is one value."""
        found = self.values.get(name)
        return default if found is None else one_value(found)

    def integer(self, name: str, default: int, *, minimum: int = 1) -> int:
        """A whole number; 12.0 is 12.

        Raises:
            CheckpointError: It is not a whole number, or below the minimum (``W06``).
        """
        whole = _whole(self.get(name, default))
        if whole is None or whole < minimum:
            wanted = "a positive integer" if minimum else "an integer of 0 or more"
            raise self.wrong(name, wanted)
        return whole

    def integers(
        self, name: str, default: Any, *, levels: int | None = None
    ) -> tuple[int, ...]:
        """A positive whole number for each level of a network.

        Args:
            name: The field.
            default: A list, or one number for all levels.
            levels: Number of levels; default: the length of the list.

        Raises:
            CheckpointError: One is not a positive whole number, or their number is
                wrong (``W06``).
        """
        found = self.values.get(name)
        found = default if found is None else found
        if levels is not None and not _is_list(found):
            found = [found] * levels
        each = [_whole(one) or 0 for one in found] if _is_list(found) else []
        if not each or min(each) < 1 or len(each) != (levels or len(each)):
            count = f"each of the {levels} levels" if levels else "each level"
            raise self.wrong(name, f"a positive integer for {count}")
        return tuple(each)

    def number(self, name: str, default: float, *, positive: bool = True) -> float:
        """A finite number.

        Raises:
            CheckpointError: It is not a number, or not positive (``W06``).
        """
        found = self.get(name, default)
        if not is_number(found) or (positive and found <= 0):
            raise self.wrong(name, "a positive number" if positive else "a number")
        return float(found)

    def flag(self, name: str, default: bool) -> bool:
        """True or false.

        Raises:
            CheckpointError: It is neither (``W06``).
        """
        found = self.get(name, default)
        if not isinstance(found, bool):
            raise self.wrong(name, "true or false")
        return found

    def part(self, name: str) -> "Fields":
        """A nested object; an empty one where the field is left out.

        Raises:
            CheckpointError: It is not an object (``W06``).
        """
        found = self.values.get(name)
        if found is None:
            found = {}
        if not isinstance(found, Mapping):
            raise self.wrong(name, "an object")
        return Fields(found, self.source, f"{self.prefix}{name}.")

    def require(self, allowed: Mapping[str, tuple[Any, ...]], network: str) -> None:
        """Refuse a configuration of another network.

        Here null does not count as left out, because a switch that is null is off.

        Args:
            allowed: For each field, the values that our network has. All fields may be
                left out.
            network: Its name, for the error.

        Raises:
            CheckpointError: ``W06``, naming every field that differs.
        """
        differing = [
            f"{self.prefix}{name} = {self.values[name]!r}, wanted "
            + " or ".join(map(repr, values))
            for name, values in allowed.items()
            if name in self.values and not _is_one_of(self.values[name], values)
        ]
        if differing:
            raise CheckpointError(
                "W06", f"{self.source} is not a {network}: {'; '.join(differing)}"
            )

    def wrong(self, name: str, wanted: str) -> CheckpointError:
        """The error (``W06``) about a field that the network cannot use."""
        return CheckpointError(
            "W06",
            f"{self.source} has {self.prefix}{name} = {self.values.get(name)!r}, this "
            f"network wants {wanted}",
        )


def one_value(found: Any) -> Any:
    """The value of a list of equal values, or the side of a square; else ``found``."""
    if isinstance(found, Mapping) and found.keys() == {"height", "width"}:
        found = [found["height"], found["width"]]
    if _is_list(found) and found:
        first, *others = map(one_value, found)
        if all(other == first for other in others):
            return first
    return found


def is_number(found: Any) -> bool:
    """Whether this is a finite number; true and false are not."""
    if isinstance(found, float):
        return math.isfinite(found)
    return isinstance(found, int) and not isinstance(found, bool)


def _is_one_of(found: Any, allowed: tuple[Any, ...]) -> bool:
    return one_value(found) in allowed or (found is None and False in allowed)


def _is_list(found: Any) -> bool:
    return isinstance(found, (list, tuple))


def _whole(found: Any) -> int | None:
    """A whole number as an integer; ``None`` for anything else."""
    return int(found) if is_number(found) and found == int(found) else None
