"""``dslo bench pipeline``: from photos to labels, by the clock."""

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from rich.console import Console

from dslo_jax.bench.machine import describe_machine, stolen_since
from dslo_jax.bench.noise import QUIET, noise_of
from dslo_jax.bench.peaks import WORKING_SETS, Peaks, measure_peaks, product_peak
from dslo_jax.bench.pipeline.child import Job, run_child
from dslo_jax.bench.pipeline.result import (
    SCHEMA,
    draw_result,
    require_plots,
    table_of_values,
    words_of_row,
    words_of_setting,
)
from dslo_jax.bench.pipeline.scenarios import SCENARIOS, STAGES
from dslo_jax.bench.pipeline.subjects import OURS, TORCH
from dslo_jax.bench.pipeline.sweep import Sweep, measure_sweep
from dslo_jax.bench.timing import Effort
from dslo_jax.cli.measuring import photo_size
from dslo_jax.cli.saving import new_table, save_result
from dslo_jax.cli.terminal import say
from dslo_jax.cli.values import OptionalPath, OptionalText
from dslo_jax.devices import Precision, find_device, network_dtype
from dslo_jax.errors import OptionError


Scenario = Literal["SingleStream", "Offline", "stages", "files"]
_QUICK = Effort(repeats=10, seconds=2.0, budget=10.0)
_QUICK_BATCHES = (1, 2, 4, 8)
_COLUMNS = ("", "batch", "p50 ms", "p90", "p99", "±", "n", "photos/s", "torch / ours")
_STAGE_COLUMNS = (
    *("stage", "batch", "ms", "±", "of the\nroofline", "MiB", "torch / ours"),
)
_START_COLUMNS = ("load s", "compile s", "first call s", "loaded MiB", "peak MiB")
_BOUNDS = {"memory": "memory", "compute": "compute", "transcendentals": "exp, log"}


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """Time the whole pipeline, from pixels on the host to labels on the host.

    SingleStream gives the latency of one photo at a time: the median, and the 90th and
    (from 500 samples on) 99th percentiles. Offline gives the photos in a second for a
    series of batch sizes, until memory ends. Stages are timed apart, in runs that wait
    after each; the roofline is the least time that the computation of a stage could
    take at the peaks of this device. A last figure includes decoding of JPEG files and
    writing of results. Loading, compilation and first calls are measured in processes
    of their own, with an empty cache and then with a full one, and so is the memory.
    Inputs are distinct, and timed results are compared with those of an untimed run.

    Args:
        model: A pair of networks, as for dslo segment. Default: sd2+clip-b16; with
            --quick: demo.
        scenarios: Scenarios to measure; see above.
        modes: Discrepancies to solve for.
        precisions: Precisions of the networks; auto is float32 on a CPU, bfloat16
            elsewhere.
        sizes: Sides of a photo for the self-attention, in pixels; 512 is 64 x 64
            patches for Stable Diffusion. Default: that of the model.
        classes: Numbers of classes, at most 200.
        batches: Numbers of photos at once on the device. Default: 1, 2, 4, ... until
            memory ends.
        distinct: Number of distinct photos, at least that of a batch; the results of
            so many are compared with those of an untimed run.
        photos: Photos, folders or patterns. Default: drawn scenes.
        photo_size: HEIGHTxWIDTH of drawn scenes in pixels.
        device: auto, cpu, gpu or tpu; gpu:1 is the second GPU.
        against: torch: measure a pipeline in PyTorch by turns with this one.
        torch_compile: Let PyTorch compile its networks, which takes minutes.
        energy: Measure the energy of an NVIDIA GPU (needs nvidia-ml-py).
        starts: Measure start and memory in processes of their own.
        repeats: Least number of timed calls; results with fewer than 30 are marked.
        seconds: Least time in seconds for the timed calls of a scenario.
        budget: Greatest time in seconds for the timed calls of each pipeline; what
            takes longer is called once.
        quick: A minute on the bundled networks; the result is marked as quick.
        trace: Folder for a trace of the profiler of JAX, after all timing.
        save: JSON file for all samples, versions and the machine.
        csv: CSV file with a line for each row.
        plot: Picture of the result, as SVG, PNG or PDF.
    """

    model: OptionalText = None
    scenarios: tuple[Scenario, ...] = SCENARIOS
    modes: tuple[str, ...] = ("velocity",)
    precisions: tuple[Precision, ...] = ("auto",)
    sizes: tuple[int, ...] = ()
    classes: tuple[int, ...] = (8,)
    batches: tuple[int, ...] = ()
    distinct: int = 8
    photos: tuple[str, ...] = ()
    photo_size: str = "512x512"
    device: str = "auto"
    against: Literal["nothing", "torch"] = "nothing"
    torch_compile: bool = False
    energy: bool = False
    starts: bool = True
    repeats: int = Effort().repeats
    seconds: float = Effort().seconds
    budget: float = 120.0
    quick: bool = False
    trace: OptionalPath = None
    save: OptionalPath = None
    csv: OptionalPath = None
    plot: OptionalPath = None


def run(options: Pipeline, out: Console, errors: Console) -> int:
    """Run the command and return the exit code."""
    options = _settled(options)
    result: dict[str, Any] = {"schema": SCHEMA, "quick": options.quick}
    result |= {"status": "running", "starts": [], "rows": [], "pairs": []}
    save_result(options.save, result)  # reports at once that a file cannot be written
    if options.starts:
        # Before this process uses a device, because an accelerator may serve only one.
        result["starts"] = list(_starts(options, errors))
        _tell_starts(result["starts"], out)
    device = find_device(options.device)
    machine = describe_machine(device)
    result["machine"] = machine
    if (machine["load"] or 0) > QUIET:
        say(errors, f"load is {machine['load']:.1f}: other work makes times noisy")
    say(errors, "measuring the peaks of the device")
    peaks = measure_peaks(device, WORKING_SETS[::3] if options.quick else WORKING_SETS)
    result["peaks"] = {"float32": peaks.plain()}

    def peaks_of(precision: str) -> Peaks:
        if precision == "float32":
            return peaks
        side, flops = product_peak(device, precision)
        narrow = peaks._replace(side=side, flops_per_s=flops)
        result["peaks"][precision] = narrow.plain()
        return narrow

    sweep = _sweep(options, device)
    for found in measure_sweep(sweep, device, peaks_of, lambda w: say(errors, w)):
        result["rows"] += found.rows
        result["pairs"] += found.pairs
        _tell(found.rows, found.pairs, out)
        result["noise"] = _noise(result, machine)
        _save(options, result)
    result["status"] = "done"
    _save(options, result)
    for reason in result["noise"].values():
        say(out, f"noise: {reason}")
    if options.quick:
        say(out, "quick: not for publication")
    return 0


def _settled(options: Pipeline) -> Pipeline:
    """Check the options, and fill in what ``--quick`` chooses.

    Raises:
        OptionError: An option is out of its range (``O01``), or a package that an
            option needs is missing (``O05``).
    """
    for name in ("scenarios", "modes", "precisions", "classes"):
        if not getattr(options, name):
            raise OptionError("O01", f"--{name} is empty; name one at least")
    for name in ("sizes", "classes", "batches"):
        for value in getattr(options, name):
            if value < 1:
                raise OptionError("O01", f"--{name} {value}; expected at least 1")
    for name in ("repeats", "distinct"):
        if getattr(options, name) < 1:
            given = getattr(options, name)
            raise OptionError("O01", f"--{name} {given}; expected at least 1")
    for name in ("seconds", "budget"):
        value = getattr(options, name)
        if not (math.isfinite(value) and value >= 0):
            raise OptionError("O01", f"--{name} {value}; expected 0 or more")
    photo_size(options.photo_size)
    if options.plot is not None:
        require_plots()
    if options.quick:
        options = replace(
            options,
            model=options.model or "demo",
            batches=options.batches or _QUICK_BATCHES,
            repeats=min(options.repeats, _QUICK.repeats),
            seconds=min(options.seconds, _QUICK.seconds),
            budget=min(options.budget, _QUICK.budget),
        )
    return replace(options, model=options.model or "sd2+clip-b16")


def _sweep(options: Pipeline, device: Any) -> Sweep:
    precisions = [str(network_dtype(each, device)) for each in options.precisions]
    return Sweep(
        model=str(options.model),
        modes=options.modes,
        precisions=tuple(dict.fromkeys(precisions)),
        sizes=options.sizes,
        classes=options.classes,
        batches=options.batches,
        scenarios=options.scenarios,
        distinct=options.distinct,
        photos=options.photos,
        photo_size=photo_size(options.photo_size),
        with_torch=options.against == TORCH,
        compiled=options.torch_compile,
        energy=options.energy,
        effort=Effort(options.repeats, options.seconds, options.budget),
        trace=options.trace,
    )


def _starts(options: Pipeline, errors: Console) -> Iterator[dict[str, Any]]:
    """Start each pipeline in a process of its own, and yield what it measured.

    Ours starts twice: with an empty cache of compiled programs, and with a full one.
    """
    job = Job(
        model=str(options.model),
        device=options.device,
        precision=options.precisions[0],
        options={"mode": options.modes[0]}
        | ({"affinity_size": options.sizes[0]} if options.sizes else {}),
        classes=options.classes[0],
        photos=options.photos,
        size=photo_size(options.photo_size),
        compiled=options.torch_compile,
    )
    setting = {**job.options, "precision": job.precision, "classes": job.classes}
    with tempfile.TemporaryDirectory() as cache:
        places = {"DSLO_CACHE": cache}
        for kept in ("empty", "full"):
            say(errors, f"starting {OURS} in a process of its own, cache {kept}")
            yield {**setting, "cache": kept, **run_child(job, places)}
        if options.against == TORCH:
            say(errors, f"starting {TORCH} in a process of its own")
            theirs = run_child(replace(job, name=TORCH), places)
            yield {**setting, "cache": None, **theirs}


def _tell_starts(starts: Sequence[Mapping[str, Any]], out: Console) -> None:
    table = new_table("", *_START_COLUMNS)
    for row in starts:
        cache = f", {row['cache']} cache" if row["cache"] else ""
        compiling = row["compile_s"]
        table.add_row(
            f"{row['name']}{cache}",
            f"{row['load_s']:.2f}",
            "" if compiling is None else f"{sum(compiling.values()):.2f}",
            f"{row['first_call_s']:.2f}",
            _mebibytes(row["memory"]["loaded_bytes"]),
            _mebibytes(row["memory"]["run_peak_bytes"]),
        )
    say(out, "start and memory, each in a process of its own:")
    out.print(table)


def _tell(
    rows: Sequence[Mapping[str, Any]], pairs: Sequence[Mapping[str, Any]], out: Console
) -> None:
    """Print what was measured end to end, and the stages."""
    ratios = {
        (pair["scenario"], pair["stage"], pair["images"]): pair["ratio"]
        for pair in pairs
    }
    table = new_table(*_COLUMNS)
    for row in rows:
        if row["scenario"] != STAGES:
            table.add_row(*_cells(row), _ratio(row, ratios))
    say(out, f"\n{words_of_setting(rows[0])}:")
    out.print(table)
    stages = new_table(*_STAGE_COLUMNS)
    for row in rows:
        if row["scenario"] == STAGES and row["name"] == OURS:
            stages.add_row(*_stage_cells(row), _ratio(row, ratios))
    if stages.row_count:
        out.print(stages)
    for pair in pairs[-1:]:
        say(out, f"labels equal to torch's: {pair['labels_agree_px']:.3%} of pixels")


def _stage_cells(row: Mapping[str, Any]) -> list[str]:
    """The cells of one of our stages."""
    roofline = row["roofline"]
    return [
        row["stage"],
        str(row["images"]),
        f"{1e3 * row['median_s']:.3g}",
        f"{row['spread']:.0%}",
        ""
        if roofline is None
        else f"{roofline['fraction']:.0%} {_BOUNDS[roofline['bound']]}",
        _mebibytes(row["memory"]["predicted_bytes"]),
    ]


def _cells(row: Mapping[str, Any]) -> list[str]:
    """The cells of a row that was measured end to end."""
    place = [f"{row['scenario']}: {row['name']}", str(row["images"])]
    if row["oom"]:
        return [*place, "out of memory", *[""] * 5]
    found = row["statistics"]
    is_wrong = not row.get("check", {"ok": True})["ok"]
    return [
        *place,
        *(
            "" if found[name] is None else f"{1e3 * found[name]:.3g}"
            for name in ("p50", "p90", "p99")
        ),
        f"{row['spread']:.0%}",
        str(found["n"]),
        "wrong labels" if is_wrong else f"{row['images_per_s']:.3g}",
    ]


def _ratio(row: Mapping[str, Any], ratios: Mapping[tuple[Any, ...], float]) -> str:
    if row["name"] != OURS:
        return ""
    ratio = ratios.get((row["scenario"], row["stage"], row["images"]))
    return "" if ratio is None else f"{ratio:.3g}"


def _noise(result: Mapping[str, Any], machine: Mapping[str, Any]) -> dict[str, str]:
    times = {
        words_of_row(row): row
        for row in result["rows"]
        if row["samples_s"] and row["scenario"] != STAGES
    }
    found = noise_of(machine, times, stolen_since(machine))
    wrong = [
        words_of_row(row)
        for row in result["rows"]
        if not row.get("check", {"ok": True})["ok"]
    ]
    if wrong:
        found["check"] = f"timed labels differ from those of an untimed run: {wrong[0]}"
    return found


def _save(options: Pipeline, result: dict[str, Any]) -> None:
    save_result(options.save, result)
    if options.csv is not None:
        save_result(options.csv, table_of_values(result["rows"]))
    if options.plot is not None:
        draw_result(result["rows"], options.plot)


def _mebibytes(count: int | None) -> str:
    return "" if count is None else f"{count / 2**20:,.0f}"
