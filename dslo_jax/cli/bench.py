"""``dslo bench``: times, memory and errors of the solvers on this machine."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, make_dataclass
from typing import Annotated, Any, Literal, Union

import tyro
from rich.console import Console
from rich.table import Table

from dslo_jax.bench.cases import Dtype, Size
from dslo_jax.bench.machine import describe_machine, stolen_since
from dslo_jax.bench.noise import QUIET, noise_of
from dslo_jax.bench.peaks import Peaks, measure_peaks
from dslo_jax.bench.results import words_of_size
from dslo_jax.bench.scenes import draw_affinities
from dslo_jax.bench.solvers import (
    SCHEMA,
    SELF_ATTENTION,
    measure_solvers,
    solver_names,
)
from dslo_jax.bench.timing import Effort
from dslo_jax.cli import (
    bench_compare,
    bench_compile,
    bench_pipeline,
    bench_plan,
    bench_scaling,
)
from dslo_jax.cli.saving import save_result
from dslo_jax.cli.terminal import results, say
from dslo_jax.cli.values import OptionalPath
from dslo_jax.devices import find_device
from dslo_jax.errors import OptionError, did_you_mean


_WIDTH = 100  # width of tables when the output is not a terminal
_COLUMNS = (
    *("solver", "ms", "p90", "±", "n", "steps", "error", "of the\nroofline"),
    *("compile\ns", "first\ncall s", "memory\nMiB", "pre-\ndicted"),
)
_OTHERS: Mapping[str, tuple[type, Callable[[Any, Console, Console], int]]] = {
    "compare": (bench_compare.Compare, bench_compare.run),
    "compile": (bench_compile.Compile, bench_compile.run),
    "pipeline": (bench_pipeline.Pipeline, bench_pipeline.run),
    "scaling": (bench_scaling.Scaling, bench_scaling.run),
    "plan": (bench_plan.Plan, bench_plan.run),
}
_BOUNDS = {"memory": "memory", "compute": "compute", "transcendentals": "exp, log"}


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Time the solvers on drawn scenes on this machine, without any download.

    A time is the median of warm calls, from inputs on the device to finished results.
    The table also has the 90th percentile, the spread (median distance from the
    median), the number of calls, and the times of compilation and of the first call. An
    error is the greatest distance from float64: relative to each value for paths and
    velocities, relative to the greatest value for others. The roofline is the least
    time that the work could take at the peaks of this device, which are measured first.
    The table shows its share of the time, and the limit: memory, computation, or
    exponentials and logarithms. Memory is what the compiler reserves beside inputs and
    results, next to the predicted value. A discrepancy is solved as in the first
    attempt of the segmenter: the path with the kernel alone, on the patches with mass.
    A place is empty where the true values, or a formula for the work, are not known.

    Args:
        solvers: Solvers to time: discrepancies; upsampling, which weighs 5 x 5 patches
            for 8 x 8 pixels each; self-attention, which averages 10 heads of 64
            channels.
        patches: Numbers of patches per image, each a square number: 4096 is 64 x 64.
        classes: Numbers of classes per image.
        images: Number of images that one program solves.
        dtype: Type of the affinity, or of queries and keys. The solvers compute in
            float32, and errors include the rounding of the affinity.
        device: auto, cpu, gpu or tpu; gpu:1 is the second GPU.
        repeats: Least number of timed calls of each solver; results with fewer than 30
            are marked as quick.
        seconds: Least time in seconds for the timed calls of one size, with all solvers
            by turns.
        budget: Greatest time in seconds for the timed calls of each solver; a solver
            that takes longer is called once.
        save: JSON file for all samples, versions and the machine.
    """

    solvers: tuple[str, ...] = ("path", "velocity", "kl")
    patches: tuple[int, ...] = (1024, 4096)
    classes: tuple[int, ...] = (8, 21)
    images: int = 1
    dtype: Dtype = "float32"
    device: str = "auto"
    repeats: int = Effort().repeats
    seconds: float = Effort().seconds
    budget: float = Effort().budget
    save: OptionalPath = None


def commands() -> Any:
    """The sub-commands; ``--solvers`` may name every discrepancy of the registry."""
    choices = Literal[solver_names()]  # pyright: ignore[reportInvalidTypeForm]
    solvers = ("solvers", tuple[choices, ...], Bench.solvers)
    named = make_dataclass(
        "Bench",
        [solvers],
        bases=(Bench,),
        frozen=True,
        kw_only=True,
        namespace={"__doc__": Bench.__doc__},
    )
    kinds = {"solvers": named, **{name: kind for name, (kind, _) in _OTHERS.items()}}
    commands = tuple(
        Annotated[kind, tyro.conf.subcommand(name)] for name, kind in kinds.items()
    )
    return Union[commands]  # noqa: UP007  # the types are made here


def run(arguments: list[str], errors: Console) -> int:
    """Run the command and return the exit code."""
    known = ("solvers", *_OTHERS)
    word = arguments[0] if arguments else ""
    if word and not word.startswith("-") and word not in known:
        listed = f"after bench: {', '.join(known)}; dslo bench --help explains them"
        hint = did_you_mean(word, known, then=listed)
        raise OptionError("O02", f"unknown command 'bench {word}'; {hint}")
    options = tyro.cli(commands(), prog="dslo bench", args=arguments)
    out = results(soft_wrap=False)
    if not out.is_terminal:
        out.width = _WIDTH
    for kind, run_it in _OTHERS.values():
        if isinstance(options, kind):
            return run_it(options, out, errors)
    return _bench(options, out, errors)


def _bench(options: Bench, out: Console, errors: Console) -> int:
    _check(options)
    device = find_device(options.device)
    machine = describe_machine(device)
    result: dict[str, Any] = {"schema": SCHEMA, "machine": machine, "rows": []}
    save_result(options.save, result)  # reports at once that a file cannot be written
    say(out, _circumstances(machine))
    if (machine["load"] or 0) > QUIET:
        say(errors, f"load is {machine['load']:.1f}: other work makes times noisy")
    say(errors, "measuring the peaks of the device")
    peaks = measure_peaks(device)
    result["peaks"] = peaks.plain()
    say(out, _words_of_peaks(peaks))
    for size, rows in _measure(options, peaks, errors):
        out.print(_table(size, rows))
        result["rows"] += rows
        stolen = stolen_since(machine)
        result["noise"] = noise_of(machine, _times(result["rows"]), stolen)
        save_result(options.save, result)
    for reason in result["noise"].values():
        say(out, f"noise: {reason}")
    if any(_is_unsolved(row) for row in result["rows"]):
        say(errors, "unsolved: a class that the kernel cannot solve, or the step cap")
    return 0


def _measure(
    options: Bench, peaks: Peaks, errors: Console
) -> Iterator[tuple[Size, list[dict[str, Any]]]]:
    """Measure one size after the other, and yield its rows."""
    device = find_device(options.device)
    for patches in options.patches:
        say(errors, f"drawing {patches} patches")
        affinities = draw_affinities(patches, options.images)
        for classes in options.classes:
            is_first = classes == options.classes[0]
            solvers = [  # self-attention does not depend on the classes
                name for name in options.solvers if is_first or name != SELF_ATTENTION
            ]
            size = Size(patches, classes, options.images, options.dtype)
            say(errors, f"measuring {words_of_size(*size)}")
            yield (
                size,
                measure_solvers(
                    solvers,
                    size,
                    affinities,
                    device=device,
                    peaks=peaks,
                    effort=Effort(options.repeats, options.seconds, options.budget),
                ),
            )


def _check(options: Bench) -> None:
    for name in ("solvers", "patches", "classes"):
        if not getattr(options, name):
            raise OptionError("O01", f"--{name} is empty; name one at least")
    for name in ("images", "repeats"):
        if getattr(options, name) < 1:
            raise OptionError(
                "O01", f"--{name} {getattr(options, name)}; expected at least 1"
            )
    if not (math.isfinite(options.seconds) and options.seconds >= 0):
        raise OptionError("O01", f"--seconds {options.seconds}; expected 0 or more")
    for classes in options.classes:
        if classes < 1:
            raise OptionError("O01", f"--classes {classes}; expected at least 1")
    for patches in options.patches:
        if patches < 1 or math.isqrt(patches) ** 2 != patches:
            raise OptionError(
                "O01", f"--patches {patches}; expected a square number, as 4096"
            )


def _table(size: Size, rows: list[dict[str, Any]]) -> Table:
    """The table of one size, whose columns fit a narrow terminal."""
    table = Table(
        title=words_of_size(*size), title_justify="left", box=None, padding=(0, 1, 0, 0)
    )
    for column in _COLUMNS:
        table.add_column(column, justify="left" if column == "solver" else "right")
    for row in rows:
        steps, memory = row["num_steps"], row["memory"]
        table.add_row(
            row["solver"],
            f"{1e3 * row['median_s']:.3g}",
            f"{1e3 * row['statistics']['p90']:.3g}",
            f"{row['spread']:.0%}",
            str(row["statistics"]["n"]),
            "" if steps is None else str(steps),
            _words_of_error(row),
            _words_of_roofline(row["roofline"]),
            f"{row['lower_s'] + row['compile_s']:.2g}",
            f"{row['first_call_s']:.2g}",
            _mebibytes(memory["compiler_bytes"]),
            _mebibytes(memory["predicted_bytes"]),
        )
    return table


def _words_of_error(row: dict[str, Any]) -> str:
    if _is_unsolved(row):
        return "unsolved"
    return f"{row['error']:.0e}" if row["has_truth"] else ""


def _words_of_roofline(roofline: dict[str, Any] | None) -> str:
    if roofline is None:
        return ""
    return f"{roofline['fraction']:.0%} {_BOUNDS[roofline['bound']]}"


def _is_unsolved(row: dict[str, Any]) -> bool:
    converged = row["converged"]  # None for upsampling and self-attention
    is_no_number = row["has_truth"] and row["error"] is None
    return is_no_number or (converged is not None and converged < 1)


def _times(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Rows by their names."""
    sizes = [Size(*(row[name] for name in Size._fields)) for row in rows]
    return {
        f"{row['solver']}, {words_of_size(*size)}": row
        for size, row in zip(sizes, rows, strict=True)
    }


def _mebibytes(count: int | None) -> str:
    return "" if count is None else f"{count / 2**20:,.2f}"


def _circumstances(machine: dict[str, Any]) -> str:
    device, versions = machine["device"], machine["versions"]
    return (
        f"{device['platform']} {device['kind']}; {machine['cpu']}, "
        f"{machine['cores']} cores; dslo-jax {versions['dslo-jax']}, "
        f"jax {versions['jax']}"
    )


def _words_of_peaks(peaks: Peaks) -> str:
    bandwidths = ", ".join(
        f"{each.bytes_per_s / 1e9:.3g} ({each.working_set_bytes / 2**20:g} MiB)"
        for each in peaks.bandwidths
    )
    return (
        f"peaks: {peaks.flops_per_s / 1e9:.3g} Gflop/s in a product of {peaks.side} x "
        f"{peaks.side}, {peaks.transcendentals_per_s / 1e9:.3g} G exponentials/s,\n"
        f"GB/s, by size of the working set: {bandwidths}"
    )
