"""Write the pages of ``docs/reference`` that are made from the code.

    python docs/_site/reference.py

``configuration.md`` comes from the classes of options, ``cli.md`` from the parsers of
the commands, and ``result.md`` from the JSON schema of a result. The pages are
committed, so that they can be read on GitHub; a test compares them with what this file
writes (``make reference``).
"""

import argparse
import dataclasses
import json
import warnings
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args, get_origin
from unittest import mock

import tyro
from rich.console import Console

from dslo_jax import cli
from dslo_jax.cli.method import explanation
from dslo_jax.config import SegmenterConfig, option_fields
from dslo_jax.options import MAX_FLOAT, MAX_INT, MIN_FLOAT
from dslo_jax.solvers.options import SolverOptions


FOLDER = Path(__file__).parents[1] / "reference"
# Commands in a command that have parsers of their own.
_INNER = {"export": ("stablehlo",)}
_NOTE = "<!-- Made from the code by docs/_site/reference.py. Do not edit. -->"


def configuration() -> str:
    """Every option of the method: type, default, range and explanation."""
    lines = [
        _NOTE,
        "",
        "# Configuration",
        "",
        "Every option of the method, under its flat name. The name is the same in",
        "Python (`segmenter(photo, classes, epsilon=0.05)`,",
        "`SegmenterConfig.of(epsilon=0.05)`), in a TOML file (`epsilon = 0.05`) and,",
        "with `-` for `_`, on the command line (`--epsilon 0.05`). An unknown name is",
        "an error (`O02`), and so are a value of another type (`O03`) and one outside",
        "the range (`O01`).",
        "",
        "The defaults are those of `SegmenterConfig()`. A pair of networks may bring",
        "other ones that suit it: those of the bundled networks are in",
        "[segmenter.toml](../../dslo_jax/demo/checkpoint/segmenter.toml). [The",
        "method](../method.md) says which step each option belongs to, and what was",
        "measured.",
    ]
    defaults = SegmenterConfig().flat
    kind = None
    for name, (owner, field) in option_fields().items():
        if owner is not kind:
            kind = owner
            lines += ["", f"## {_title(owner)}", ""]
            lines += ["| option | values | default | explanation |"]
            lines += ["|---|---|---|---|"]
        cells = (
            f"`{name}`",
            _type(_annotation(name, field)) + _range(field),
            f"`{json.dumps(defaults[name])}`",
            _inline(explanation(owner, field)),
        )
        lines.append(_row(cells))
    return "\n".join(lines) + "\n"


def commands() -> str:
    """Every command, with its arguments."""
    lines = [
        _NOTE,
        "",
        "# Commands",
        "",
        "`dslo COMMAND --help` prints the same. What a command returns to the shell is",
        "in [errors](../errors.md).",
    ]
    for name in cli.COMMANDS:
        lines += _command(_parser(name), level=2)
        for inner in _INNER.get(name, ()):
            lines += _command(_parser(name, inner), level=3)
    return "\n".join(lines) + "\n"


def result() -> str:
    """Every field of ``segmentation.json``."""
    place = files("dslo_jax.outputs") / "segmentation.schema.json"
    schema = json.loads(place.read_text(encoding="utf-8"))
    lines = [
        _NOTE,
        "",
        "# segmentation.json",
        "",
        "The fields of the file, from its",
        "[JSON schema](../../dslo_jax/outputs/segmentation.schema.json),",
        f"`{schema['$id']}`. A dot leads into an object, and `[]` into the entries of",
        "a list. [Result files](../outputs.md) explains the other files of a result.",
        "",
        "| field | type | meaning |",
        "|---|---|---|",
    ]
    for path, field in _fields(schema, schema["$defs"]):
        meaning = _inline(field.get("description", ""))
        lines.append(_row((f"`{path}`", _schema_type(field, schema["$defs"]), meaning)))
    return "\n".join(lines) + "\n"


PAGES = {"configuration.md": configuration, "cli.md": commands, "result.md": result}
"""The pages that are made, and what makes them."""


def _title(kind: type) -> str:
    """The first line of the docstring of a class, as a heading."""
    if kind is SolverOptions:
        return "The discrepancy"
    first = (kind.__doc__ or "").split("\n")[0].rstrip(".")
    first = first.split(" as a discrepancy")[0].removeprefix("Options of ")
    return first[0].upper() + first[1:]


def _annotation(name: str, field: dataclasses.Field) -> Any:
    if name == "mode":
        return Literal[SolverOptions().modes]  # pyright: ignore
    choices = field.metadata.get("choices")
    return Literal[choices] if choices else field.type  # pyright: ignore


def _type(kind: Any) -> str:
    inner = get_args(kind)
    if get_origin(kind) is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if get_origin(kind) is tuple:
        parts = [_type(part) for part in inner if part is not Ellipsis]
        return f"list of {parts[0]}" if len(parts) == 1 else f"({', '.join(parts)})"
    if inner:
        return "; or ".join(map(_type, inner))
    names = {float: "number", int: "whole number", bool: "`true`, `false`", str: "text"}
    return names[kind]


def _range(field: dataclasses.Field) -> str:
    low, high = field.metadata.get("low"), field.metadata.get("high")
    if low is None:
        return ""
    if low == MIN_FLOAT and high == MAX_FLOAT:
        return ", more than 0"
    if high == MAX_INT:
        return f", at least {low}"
    return f", {low} to {high}"


def _parser(name: str, *inner: str) -> argparse.ArgumentParser:
    """The parser of a command: its module is run as far as its call of ``tyro.cli``."""
    with (
        mock.patch("tyro.cli", side_effect=_Reached) as call,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", DeprecationWarning)  # of get_parser
        try:
            cli.COMMANDS[name]([*inner, "--help"], Console(stderr=True))
        except _Reached:
            kind, prog = call.call_args.args[0], call.call_args.kwargs["prog"]
            return tyro.extras.get_parser(kind, prog=prog)
    raise ValueError(f"dslo {name} calls no tyro.cli, so its options are not known")


class _Reached(Exception):  # no error
    """The options of a command are about to be parsed."""


def _command(parser: argparse.ArgumentParser, level: int) -> list[str]:
    lines = ["", f"{'#' * level} {parser.prog}"]
    if parser.description:
        lines += ["", *parser.description.split("\n")]
    own = [action for action in parser._actions if action.dest != "help"]
    inner = [action for action in own if isinstance(action.choices, dict)]
    rows = [_argument(action) for action in own if action not in inner]
    known = {"--" + name.replace("_", "-") for name in option_fields()}
    listed = [row for row in rows if row[0].split("`")[1].split()[0] not in known]
    if listed:
        lines += ["", "| argument | explanation |", "|---|---|"]
        lines += map(_row, listed)
    if len(listed) < len(rows):
        lines += ["", "And every option of [the configuration](configuration.md)."]
    for action in inner:
        for each in dict(action.choices or {}).values():
            lines += _command(each, level + 1)
    return lines


def _argument(action: argparse.Action) -> tuple[str, str]:
    value = str(action.metavar or "").replace("{None}|", "")
    count = (
        2 if action.default is True else 1
    )  # --no-x is named where it changes a thing
    names = list(action.option_strings[:count])
    names = names or [action.dest.upper().split(".")[-1]]
    if action.option_strings and action.nargs != 0:
        names.append(value)
    elif not action.option_strings and "{" in value:
        names = [value.strip("[]")]
    names = [name.replace(",", ", ") for name in names]  # lines may end between choices
    text = " ".join((action.help or "").split())
    for default in (" (default: )", " (default: None)", " (default: '')"):
        text = text.removesuffix(default)
    return f"`{' '.join(names)}`", _inline(text)


def _fields(
    schema: dict[str, Any], shared: dict[str, Any], path: str = ""
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The fields of a schema and of the objects in it, with their paths."""
    for name, field in schema.get("properties", {}).items():
        yield path + name, field
        for inner, mark in _inside(field, shared):
            yield from _fields(inner, shared, f"{path}{name}{mark}.")


def _inside(
    field: dict[str, Any], shared: dict[str, Any]
) -> Iterator[tuple[dict[str, Any], str]]:
    """The schemas inside a field, each with the mark that its path gets."""
    for option in field.get("oneOf", [field]):
        if "$ref" in option:
            yield shared[option["$ref"].split("/")[-1]], ""
        elif "items" in option:
            for inner, mark in _inside(option["items"], shared):
                yield inner, "[]" + mark
        elif "properties" in option:
            yield option, ""


def _schema_type(field: dict[str, Any], shared: dict[str, Any]) -> str:
    if "oneOf" in field:
        return " or ".join(_schema_type(each, shared) for each in field["oneOf"])
    if "$ref" in field:
        return "object"
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    kinds = field["type"]
    words = {"array": "list"}
    kinds = kinds if isinstance(kinds, list) else [kinds]
    return " or ".join(words.get(kind, kind) for kind in kinds)


def _inline(text: str) -> str:
    """A text of a docstring in a cell of a Markdown table."""
    text = text.replace("``", "`")
    parts = text.split("`")
    for index in range(0, len(parts), 2):  # outside code
        parts[index] = parts[index].replace("<", "&lt;").replace("*", r"\*")
    return "`".join(parts)


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def main() -> None:
    """Write all pages."""
    FOLDER.mkdir(exist_ok=True)
    for name, make in PAGES.items():
        (FOLDER / name).write_text(make(), encoding="utf-8")


if __name__ == "__main__":
    main()
