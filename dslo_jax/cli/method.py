"""The options of the method on the command line, made from the classes of options.

Names, types, choices, defaults and explanations are those of the classes of options, so
that a new option of a room is on the command line as well.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import docstring_parser
import tyro

from dslo_jax import prompts
from dslo_jax.attention import Layers
from dslo_jax.config import SegmenterConfig, option_fields
from dslo_jax.errors import OptionError
from dslo_jax.options import flat_name
from dslo_jax.solvers.options import SolverOptions


# Several words, which the class of options reads.
_LAYERS = Annotated[
    tuple[str, ...], tyro.conf.arg(metavar="[LAYER[=WEIGHT] [LAYER[=WEIGHT] ...]]")
]
Background = Literal["none", "sclip", "proxyclip-coco", "clearclip"]
"""The published words of ``--background``; see ``prompts.BACKGROUNDS``."""


def method_options(config: SegmenterConfig) -> Any:
    """The options of a configuration as one flat dataclass, for the option parser."""
    return Method(**_shown(config))


def config_of(method: Any) -> SegmenterConfig:
    """The configuration of such a flat dataclass.

    Raises:
        OptionError: A value is out of its range (``O01``).
    """
    names = [field.name for field in dataclasses.fields(method)]
    return SegmenterConfig.of(**{name: getattr(method, name) for name in names})


def _shown(config: SegmenterConfig) -> dict[str, Any]:
    """The options by their flat names, as they are written on a command line."""
    fields = option_fields()
    return {
        name: tuple(f"{layer}={weight:g}" for layer, weight in value)
        if fields[name][1].type == Layers
        else value
        for name, value in config.flat.items()
    }


def chosen_classes(
    classes: Sequence[str], class_file: Path | None, background: Background = "none"
) -> prompts.ClassList:
    """The classes of ``--classes`` or of ``--class-file``, and ``--background``.

    Raises:
        OptionError: Both are given, or neither (``O05``).
        ClassListError: The list cannot be used.
    """
    if background != "none":
        return prompts.with_background(chosen_classes(classes, class_file), background)
    if classes and class_file is None:
        return prompts.classes_of_options(classes)
    if class_file is not None and not classes:
        return prompts.read_class_file(class_file)
    raise OptionError("O05", "give either --classes or --class-file")


def _method_type() -> type:
    defaults = _shown(SegmenterConfig())
    fields, lines = [], []
    for name, (kind, field) in option_fields().items():
        choices = field.metadata.get("choices", ())
        if name == "mode":
            choices = SolverOptions().modes
        annotation = Literal[choices] if choices else field.type
        if annotation == Layers:
            annotation = _LAYERS
        fields.append((name, annotation, dataclasses.field(default=defaults[name])))
        lines.append(f"    {name}: {explanation(kind, field).replace('``', '')}")
    text = "\n".join(["Options of the method.", "", "Args:", *lines])
    return dataclasses.make_dataclass(
        "Method", fields, frozen=True, namespace={"__doc__": text}
    )


def explanation(kind: type, field: dataclasses.Field) -> str:
    """The explanation of an option in the docstring of its class, on one line.

    Other options of the class have their flat names in it, in place of the fields.
    """
    for param in docstring_parser.parse(kind.__doc__ or "").params:
        if param.arg_name == field.name:
            text = " ".join((param.description or "").split())
            for own, flat in getattr(kind, "flat_names", {}).items():
                text = text.replace(f"``{own}``", f"``{flat}``")
            return text
    raise ValueError(f"{kind.__name__} does not explain {flat_name(field)}")


Method = _method_type()
"""The flat dataclass of all options."""

DEFAULTS = method_options(SegmenterConfig())


def check_proxy(given: str | None, needed: bool, user: str) -> None:
    """Refuse a proxy that would have no effect.

    Args:
        given: The option ``--proxy``.
        needed: Whether anything uses it.
        user: What would use it.

    Raises:
        OptionError: It was given and is not needed (``O05``).
    """
    if given is not None and not needed:
        raise OptionError(
            "O05",
            f"--proxy {given} has no effect here; leave it out, or choose {user}",
        )
