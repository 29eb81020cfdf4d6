"""``dslo bench compile``: all stages compiled for chips that are not there."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from dslo_jax.bench.compile.measure import SCHEMA, compile_stage
from dslo_jax.bench.compile.report import (
    key_of,
    milliseconds,
    unknown_findings,
    whole_image,
    words_of_bytes,
    words_of_finding,
)
from dslo_jax.bench.compile.stages import (
    Size,
    is_square_number,
    sizes_alike,
    stage_names,
    words_of_size,
)
from dslo_jax.bench.compile.targets import (
    describe_compiler,
    quiet_logs,
    stay_on_cpu,
    topology,
)
from dslo_jax.bench.machine import describe_machine
from dslo_jax.cli.saving import save_result
from dslo_jax.cli.terminal import escaped, say
from dslo_jax.cli.values import OptionalPath
from dslo_jax.errors import OptionError
from dslo_jax.files import parse_json


# What reading values raises where they are others than those of --save.
_DAMAGE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)

Target = Literal["v5e", "v6e", "h100", "h200", "a100"]
_COLUMNS = (
    *("stage", "calls", "compile\ns", "GFLOP", "of the\nmodel", "MB", "of the\nmodel"),
    *("temp\nMiB", "pre-\ndicted", "launches", "ms", "floor\nms", "to\nlook at"),
)


@dataclass(frozen=True, kw_only=True)
class Compile:
    """Compile every stage at full size for chips that are not there.

    The real compilers of TPUs and GPUs run on this machine, and nothing runs on a chip.
    The table has what they made of each stage: seconds to compile; computation and
    memory traffic of one call, and their ratio to the cost model; temporary memory and
    its prediction; kernels that a GPU starts. The time of all calls for a batch is an
    estimate: on a TPU the cycles that its compiler states, on a GPU the peaks of the
    data sheet and an assumed time for each start of a kernel. The floor is everything
    at the peaks. Numbers of turns that depend on the data are assumed; the file of
    --save lists them. Below the table are findings: N x N arrays and memory that the
    cost model does not know, steps that leave the device, float32 products that are
    rounded, and exchanges between devices.

    A stage that cannot be compiled is a row with the reason. A network takes a minute
    for a GPU and up to fifteen for a TPU.

    Args:
        targets: Chips; each needs its compiler, from the extra tpu-aot or gpu-aot.
        stages: Stages; default: all.
        patches: Numbers of patches per photo, each a square number.
        batch: Numbers of photos at once.
        classes: Numbers of classes.
        dtype: Types of the networks; other stages compute in float32.
        devices: Number of chips: photos are divided over them, and classes where there
            are more chips than photos.
        save: JSON file for all rows; it is written after each row.
        known: A file of --save whose rows are kept and not compiled again.
    """

    targets: tuple[Target, ...] = ("v5e", "h100")
    stages: tuple[str, ...] = ()
    patches: tuple[int, ...] = (4096,)
    batch: tuple[int, ...] = (1,)
    classes: tuple[int, ...] = (8,)
    dtype: tuple[Literal["bfloat16", "float32"], ...] = ("bfloat16",)
    devices: int = 1
    save: OptionalPath = None
    known: OptionalPath = None


def run(options: Compile, out: Console, errors: Console) -> int:
    """Compile and return the exit code.

    Raises:
        DeviceError: A compiler is missing (``D04``).
        OptionError: An option cannot be used.
        OutputError: The file cannot be written.
    """
    stay_on_cpu()
    quiet_logs()
    _check(options)
    for target in options.targets:  # a missing compiler is reported before any work
        topology(target, options.devices)
    known = _read(options.known)
    used = {name: describe_compiler(name) for name in options.targets}
    result = {
        "schema": SCHEMA,
        "machine": describe_machine(),
        "compilers": {**known["compilers"], **used},
        "rows": [row for row in known["rows"] if not row["failed"]],
    }
    save_result(options.save, result)
    done = {key_of(row) for row in result["rows"]}
    for target, name, size in _plan(options):
        if (target, options.devices, name, *size) in done:
            continue
        say(errors, f"compiling {name} for {target}: {words_of_size(size)}")
        result["rows"] += compile_stage(name, size, target, options.devices)
        save_result(options.save, result)
    _print(options, result["rows"], out)
    return 0


def _plan(options: Compile) -> Iterator[tuple[str, str, Size]]:
    """All stages to compile, each size of a stage once."""
    seen = set()
    for target in options.targets:
        for size in _sizes(options):
            for name in options.stages or stage_names():
                case = target, name, sizes_alike(name, size)
                if case not in seen:
                    seen.add(case)
                    yield case


def _sizes(options: Compile) -> Iterator[Size]:
    for dtype in options.dtype:
        for patches in options.patches:
            for classes in options.classes:
                for batch in options.batch:
                    yield Size(patches, classes, batch, dtype)


def _check(options: Compile) -> None:
    for name in ("targets", "patches", "batch", "classes", "dtype"):
        if not getattr(options, name):
            raise OptionError("O01", f"--{name} is empty; name one at least")
    for name in options.stages:
        if name not in stage_names():
            known = ", ".join(stage_names())
            raise OptionError("O03", f"--stages {name!r}; expected some of {known}")
    for name in ("batch", "classes"):
        for value in getattr(options, name):
            if value < 1:
                raise OptionError("O01", f"--{name} {value}; expected at least 1")
    for patches in options.patches:
        if not is_square_number(patches):
            raise OptionError(
                "O01",
                f"--patches {patches}; expected the square of a multiple of 8, as 4096",
            )
    if not 1 <= options.devices <= 16:
        raise OptionError("O01", f"--devices {options.devices}; expected 1 to 16")


def _read(path: Path | None) -> dict[str, Any]:
    """A file of ``--save``; without rows if there is no path."""
    if path is None:
        return {"compilers": {}, "rows": []}
    try:
        result = parse_json(path.read_bytes())
        if result["schema"] != SCHEMA:
            raise ValueError(f"its schema is {result['schema']!r}")
        rows = list(result["rows"])
        for row in rows:  # what cannot be shown is refused now, and not after hours
            hash(key_of(row))
            _cells(row)
            list(_remarks(row))
        return {"compilers": dict(result["compilers"]), "rows": rows}
    except (OSError, *_DAMAGE) as error:
        raise OptionError(
            "O04", f"--known {path}: no file of dslo bench compile: {error!r}"
        ) from error


def _print(options: Compile, rows: list[dict[str, Any]], out: Console) -> None:
    by_key: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        by_key.setdefault(key_of(row), []).append(row)
    for target in options.targets:
        for size in _sizes(options):
            chosen = [
                row
                for name in options.stages or stage_names()
                for row in by_key.get(
                    (target, options.devices, name, *sizes_alike(name, size)), ()
                )
            ]
            out.print(_table(f"{target}: {words_of_size(size)}", chosen))
            for solver in ("velocity", "path"):
                whole = whole_image(rows, target, size, solver, options.devices)
                if whole is not None:
                    say(out, f"a photo with {solver}: {whole:.3g} ms")
            for row in chosen:
                for remark in _remarks(row):
                    say(out, f"{row['stage']}: {remark}")


def _remarks(row: dict[str, Any]) -> Iterator[str]:
    """What is said of a row below the table."""
    if row["failed"]:
        yield f"failed: {row['failed']}"
    for finding in unknown_findings(row):
        yield words_of_finding(finding)
    for each in row.get("collectives", ()):
        size = words_of_bytes(each["bytes"])
        yield f"exchange: {each['times']:g} x {each['what']} of {size}, {each['where']}"


def _table(title: str, rows: list[dict[str, Any]]) -> Table:
    table = Table(
        title=escaped(title), title_justify="left", box=None, padding=(0, 1, 0, 0)
    )
    for column in _COLUMNS:
        is_name = column == "stage"
        table.add_column(
            column, justify="left" if is_name else "right", no_wrap=is_name
        )
    for row in rows:
        table.add_row(*_cells(row))
    return table


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    """A row of the table, in the order of ``_COLUMNS``."""
    if row["failed"]:
        return row["stage"], "failed"
    memory, model = row["memory"], row["model"]
    return (
        row["stage"],
        str(row["calls"]),
        f"{row['compile_s']:.1f}",
        _figure(row["flops"] / 1e9),
        _ratio(row["flops"], model["flops"]),
        _figure(row["bytes"] / 1e6),
        _ratio(row["bytes"], model["bytes"]),
        f"{memory['temp'] / 2**20:,.1f}",
        "" if model["temp"] is None else f"{model['temp'] / 2**20:,.1f}",
        "" if row["launches"] is None else f"{row['launches']:,.0f}",
        _figure(milliseconds(row)),
        _figure(1e3 * row["calls"] * row["estimate"]["floor_s"]),
        str(len(unknown_findings(row)) or ""),
    )


def _figure(value: float) -> str:
    """Three digits, and no power of ten."""
    if value < 0.001:
        return "0"
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def _ratio(found: float, predicted: float | None) -> str:
    return f"{found / predicted:.2f}" if predicted else ""
