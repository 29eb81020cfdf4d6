"""The base class of all options: frozen dataclasses that check types and ranges.

Each room defines its own options next to the code that uses them. The flat name of an
option is its name on the command line, in TOML files, in results and in errors. It may
differ from the name of the field: ``AffinityOptions.size`` is ``affinity_size``.
"""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self, Union, get_args, get_origin

from dslo_jax.errors import OptionError


# Limits of the solvers: counts are int32, and a float32 square must not overflow.
MAX_INT = 2**31 - 1
MIN_FLOAT, MAX_FLOAT = 1e-30, 1e30


def option(
    default: Any,
    *,
    flat: str = "",
    low: float | None = None,
    high: float | None = None,
    open_left: bool = False,
    choices: tuple[str, ...] = (),
) -> Any:
    """Define a field of an ``Options`` class.

    Args:
        default: The default value.
        flat: The flat name, if it differs from the name of the field.
        low: Least value.
        high: Greatest value.
        open_left: Whether ``low`` itself is excluded.
        choices: The allowed values, if the type does not express them.
    """
    bounds = {"low": low, "high": high, "open_left": open_left, "choices": choices}
    named = {"flat": flat} if flat else {}
    return dataclasses.field(default=default, metadata={**named, **bounds})


@dataclasses.dataclass(frozen=True)
class Options:
    """The base class of all options, which checks types and ranges.

    A whole number is accepted where a float is expected, and stored as one.

    Raises:
        OptionError: A value is out of its range (``O01``) or of the wrong type
            (``O03``); the message names the option, the value and what was expected.
    """

    # Without this, a type checker at run time would refuse a value first, with a less
    # helpful error.
    __no_type_check__: ClassVar[bool] = True

    def __post_init__(self):
        for field in dataclasses.fields(self):
            name, value = flat_name(field), getattr(self, field.name)
            check_type(name, value, field.type)
            if choices := field.metadata.get("choices"):
                check_choice(name, value, choices)
            low, high = field.metadata.get("low"), field.metadata.get("high")
            if low is not None and high is not None:
                check_range(
                    name, value, low, high, open_left=field.metadata["open_left"]
                )
            if field.type is float:
                object.__setattr__(self, field.name, float(value))

    @property
    def flat(self) -> dict[str, Any]:
        """The options by their flat names."""
        fields = flat_fields(type(self))
        return {name: getattr(self, field.name) for name, field in fields.items()}

    def replaced(self, values: Mapping[str, Any]) -> Self:
        """Make options that differ in some values.

        Args:
            values: Values by flat names; names of other classes are ignored.

        Raises:
            OptionError: A value is out of its range (``O01``) or of the wrong type
                (``O03``).
        """
        fields = flat_fields(type(self))
        own = {fields[name].name: values[name] for name in values if name in fields}
        return dataclasses.replace(self, **own) if own else self


def flat_name(field: dataclasses.Field) -> str:
    """The name of an option on the command line and in files."""
    return field.metadata.get("flat") or field.name


def flat_fields(kind: type) -> dict[str, dataclasses.Field]:
    """The fields of a class of options, by their flat names."""
    return {flat_name(field): field for field in dataclasses.fields(kind)}


def check_range(
    name: str, value: float, low: float, high: float, *, open_left: bool = False
) -> None:
    """Refuse (``O01``) a number outside a range, and NaN."""
    inside = low < value <= high if open_left else low <= value <= high
    if not inside:  # NaN is never inside
        bracket = "(" if open_left else "["
        raise OptionError(
            "O01",
            f"{name} = {value} is out of range; expected {bracket}{low}, {high}]",
        )


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Refuse (``O03``) a value that is not one of the choices."""
    if value not in choices:
        known = ", ".join(map(repr, choices))
        raise OptionError("O03", f"{name} = {value!r}; expected one of {known}")


def check_type(name: str, value: Any, kind: Any) -> None:
    """Refuse (``O03``) a value that is not of the annotated type."""
    if not _matches(value, kind):
        raise OptionError("O03", f"{name} = {value!r}; expected {_describe(kind)}")


def _matches(value: Any, kind: Any) -> bool:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return any(_matches(value, option) for option in inner)
    if origin is Literal:
        return value in inner and isinstance(value, str)
    if origin is tuple and inner[-1] is Ellipsis:
        return isinstance(value, tuple) and all(_matches(v, inner[0]) for v in value)
    if origin is tuple:
        return (
            isinstance(value, tuple)
            and len(value) == len(inner)
            and all(map(_matches, value, inner))
        )
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def _describe(kind: Any) -> str:
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(map(_describe, get_args(kind)))
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(repr, get_args(kind)))
    if get_origin(kind) is tuple:
        return "a list of " + " and ".join(
            _describe(part) for part in get_args(kind) if part is not Ellipsis
        )
    return {float: "a number", int: "a whole number", bool: "true or false"}.get(
        kind, "text"
    )
