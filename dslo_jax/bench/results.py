"""Reading of result files, of all versions."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dslo_jax.errors import OptionError
from dslo_jax.files import parse_json


SCHEMAS = {
    f"dslo.bench.{family}.v{version}": family
    for family in ("solvers", "solver-peers", "stages")
    for version in (1, 2)
}
"""Schemas of results with rows of samples, and the family of each."""

_PIPELINE = "pipeline"
SCHEMAS[f"dslo.bench.{_PIPELINE}.v2"] = _PIPELINE

_CIRCUMSTANCES = ("started_utc", "command", "load", "peak_memory_bytes")


class About(NamedTuple):
    """The subject of a row; rows of two files with the same subject are compared.

    Attributes:
        solver: Solver or other step that was timed.
        name: Name of the implementation.
        patches: Number of patches of an image; ``None`` if the file does not state it.
        classes: Number of classes; ``None`` if there are no classes.
        images: Number of images at once.
        dtype: Type of the affinity.
    """

    solver: str
    name: str
    patches: int | None
    classes: int | None
    images: int
    dtype: str


class Entry(NamedTuple):
    """The measurement in a row.

    Attributes:
        samples_s: Times in seconds, in order; at least one.
        error: Error from the truth or from another implementation; ``None`` if there is
            no truth, or if the error is not a number.
    """

    samples_s: list[float]
    error: float | None


class ResultFile(NamedTuple):
    """A result that can be compared.

    Attributes:
        family: Family of the schema; results of two families cannot be compared.
        machine: From ``describe_machine``.
        noise: From ``noise_of``; empty if the version of the schema has none.
        entries: The rows.
    """

    family: str
    machine: Mapping[str, Any]
    noise: Mapping[str, str]
    entries: Mapping[About, Entry]


def read_result(path: Path) -> ResultFile:
    """Read a file that ``dslo bench solvers`` or a script of ``benchmarks`` wrote.

    Args:
        path: The file.

    Raises:
        OptionError: The file cannot be read, is not a result, has an unknown schema, or
            is damaged (``O04``).
    """
    content = _load(path)
    schema = content.get("schema")
    if not isinstance(schema, str):
        raise _error(path, "is not a result of a benchmark: it has no schema")
    if schema not in SCHEMAS:
        raise _error(path, f"is of schema {schema!r}; known are {', '.join(SCHEMAS)}")
    machine: Any = content.get("machine")
    noise: Any = content.get("noise", {})
    rows: Any = content.get("rows")
    if not isinstance(machine, dict) or not isinstance(noise, dict):
        raise _error(path, "is damaged: it does not describe the machine")
    if not isinstance(rows, list):
        raise _error(path, "is damaged: it has no rows")
    entries: dict[About, Entry] = {}
    for number, row in enumerate(rows, start=1):
        try:
            found = dict(_entries(SCHEMAS[schema], row, machine))
        except (
            AttributeError,
            KeyError,
            TypeError,
            ValueError,
            OverflowError,
        ) as error:
            raise _error(path, f"is damaged: row {number}: {error!r}") from error
        if known := entries.keys() & found.keys():
            raise _error(path, f"has two rows of {words_of(known.pop())}")
        entries |= found
    return ResultFile(SCHEMAS[schema], machine, noise, entries)


def words_of(about: About) -> str:
    """The subject of a row in words."""
    name = "" if about.name == "dslo-jax" else f": {about.name}"
    return f"{about.solver}{name}, {size_of(about)}"


def size_of(about: About) -> str:
    """The size of a row in words."""
    return words_of_size(about.patches, about.classes, about.images, about.dtype)


def words_of_size(
    patches: int | None, classes: int | None, images: int = 1, dtype: str | None = None
) -> str:
    """A size in words; the arguments are attributes of ``About``."""
    before = "" if images == 1 else f"{images} images, "
    after = "" if classes is None else f", {words_of_classes(classes)}"
    return f"{before}{patches} patches{after}" + (f", {dtype}" if dtype else "")


def words_of_classes(count: int) -> str:
    """A number of classes in words, such as ``8 classes``."""
    return "1 class" if count == 1 else f"{count} classes"


def differences(
    one: Mapping[str, Any], other: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    """Find the differences of two machines; start, command and load do not count.

    Args:
        one: From ``describe_machine``.
        other: From ``describe_machine``.

    Returns:
        Both values by their path, such as ``versions.jax``; ``None`` for a value that
        one of them lacks.
    """
    first, second = dict(_leaves(one)), dict(_leaves(other))
    return {
        path: (first.get(path), second.get(path))
        for path in (*first, *(path for path in second if path not in first))
        if first.get(path) != second.get(path)
    }


def _load(path: Path) -> dict[str, Any]:
    try:
        content = parse_json(path.read_bytes())
    except OSError as error:
        raise _error(path, f"cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise _error(path, "is not JSON: it is not UTF-8 text") from error
    except ValueError as error:
        raise _error(path, f"is not JSON, or cut short: {error}") from error
    return content if isinstance(content, dict) else {}


def _entries(
    family: str, row: Mapping[str, Any], machine: Mapping[str, Any]
) -> Iterator[tuple[About, Entry]]:
    """The entries of a row; a row of the family "stages" has one per implementation."""
    if family == "stages":
        side = machine["options"]["side"]
        for name, samples in row["samples_s"].items():
            about = About(row["name"], name, side**2, None, 1, "float32")
            yield about, Entry(_times(samples), _error_of(row["difference"]))
        return
    if family == _PIPELINE:
        yield from _pipeline_entries(row)
        return
    about = About(
        str(row["solver"]),
        str(row["name"]),
        row["patches"],
        row["classes"],
        row.get("images", 1),
        row.get("dtype", "float32"),
    )
    yield about, Entry(_times(row["samples_s"]), _error_of(row["error"]))


def _pipeline_entries(row: Mapping[str, Any]) -> Iterator[tuple[About, Entry]]:
    """The entry of a row; none if memory ended, or no time could be measured."""
    if not row["samples_s"] or min(row["samples_s"]) <= 0:
        return
    size = f"{row['height']} x {row['width']} px"
    what = f"{row['scenario']}, {row['stage']}, {row['mode']}, {size}"
    about = About(
        what,
        row["name"],
        row["patches"],
        row["classes"],
        row["images"],
        row["precision"],
    )
    yield about, Entry(_times(row["samples_s"]), None)


def _times(samples: list[Any]) -> list[float]:
    times = [float(sample) for sample in samples]
    if not times or not all(math.isfinite(time) and time > 0 for time in times):
        raise ValueError(f"samples_s is {samples}, expected seconds")
    return times


def _error_of(value: Any) -> float | None:
    return None if value is None else float(value)


def _leaves(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}{name}.")
        elif path or name not in _CIRCUMSTANCES:
            yield f"{path}{name}", value


def _error(path: Path, what: str) -> OptionError:
    return OptionError(
        "O04",
        f"{str(path)!r} {what}; expected a file of `dslo bench solvers --save` or of "
        "`dslo bench pipeline --save`",
    )
