"""The options of the method on the command line, made from the classes of options.

Names, types, choices, defaults and explanations are those of the classes of options, so
that a new option of a room is on the command line as well.
"""

import dataclasses
from typing import Any, Literal

import docstring_parser

from dslo_jax.config import SegmenterConfig, option_fields
from dslo_jax.options import flat_name
from dslo_jax.solvers.options import SolverOptions


def method_options(config: SegmenterConfig) -> Any:
    """The options of a configuration as one flat dataclass, for the option parser."""
    return Method(**config.flat)


def config_of(method: Any) -> SegmenterConfig:
    """The configuration of such a flat dataclass.

    Raises:
        OptionError: A value is out of its range (``O01``).
    """
    names = [field.name for field in dataclasses.fields(method)]
    return SegmenterConfig.of(**{name: getattr(method, name) for name in names})


def _method_type() -> type:
    defaults = SegmenterConfig().flat
    fields, lines = [], []
    for name, (kind, field) in option_fields().items():
        choices = field.metadata.get("choices", ())
        if name == "mode":
            choices = SolverOptions().modes
        annotation = Literal[choices] if choices else field.type
        fields.append((name, annotation, dataclasses.field(default=defaults[name])))
        lines.append(f"    {name}: {explanation(kind, field)}")
    text = "\n".join(["Options of the method.", "", "Args:", *lines])
    return dataclasses.make_dataclass(
        "Method", fields, frozen=True, namespace={"__doc__": text}
    )


def explanation(kind: type, field: dataclasses.Field) -> str:
    """The explanation of an option in the docstring of its class, on one line."""
    for param in docstring_parser.parse(kind.__doc__ or "").params:
        if param.arg_name == field.name:
            return " ".join((param.description or "").split())
    raise ValueError(f"{kind.__name__} does not explain {flat_name(field)}")


Method = _method_type()
"""The flat dataclass of all options."""

DEFAULTS = Method(**SegmenterConfig().flat)
