"""The result of a run of ``dslo bench pipeline``: file, CSV, plots."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dslo_jax.bench.pipeline.scenarios import END_TO_END, OFFLINE, STAGES
from dslo_jax.bench.pipeline.subjects import OURS
from dslo_jax.bench.results import words_of_classes
from dslo_jax.errors import OptionError


SCHEMA = "dslo.bench.pipeline.v2"

_PLACES = (
    *("scenario", "stage", "name", "mode", "precision", "affinity_size", "patches"),
    *("classes", "height", "width", "images"),
)
_STATISTICS = ("n", "min", "p50", "p90", "p99", "mad", "max")
_COLOURS = {OURS: "#0b6e4f", "torch": "#d1791e"}


def words_of_row(row: Mapping[str, Any]) -> str:
    """A row in words: what was measured, with which setting."""
    return (
        f"{row['scenario']}, {row['stage']}: {row['name']}, {words_of_setting(row)}, "
        f"batch {row['images']}"
    )


def words_of_setting(row: Mapping[str, Any]) -> str:
    """The setting of a row in words."""
    classes = words_of_classes(row["classes"])
    return (
        f"{row['mode']}, {row['precision']}, {row['height']} x {row['width']} pixels, "
        f"affinity {row['affinity_size']} px ({row['patches']} patches), {classes}"
    )


def table_of_values(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as CSV: a line each, times in seconds, memory in bytes.

    A place is empty where a value is not known.
    """
    lines = []
    for row in rows:
        line: dict[str, Any] = {name: row[name] for name in _PLACES}
        found = row.get("statistics", {})
        line |= {f"seconds_{name}": found.get(name) for name in _STATISTICS}
        for name in ("images_per_s", "load_s", "compile_s", "first_call_s", "oom"):
            line[name] = row.get(name)
        for name in ("flops", "bytes"):
            counted = row.get(name) or {}
            line |= {f"{name}_{key}": counted.get(key) for key in ("formula", "xla")}
        line["roofline_fraction"] = (row.get("roofline") or {}).get("fraction")
        line["roofline_bound"] = (row.get("roofline") or {}).get("bound")
        memory = row.get("memory") or {}
        for name in ("predicted_bytes", "device_peak_bytes", "host_peak_bytes"):
            line[name] = memory.get(name)
        line["j_per_photo"] = (row.get("energy") or {}).get("j_per_photo")
        line["check_agree_px"] = (row.get("check") or {}).get("agree_px")
        lines.append(line)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]) if lines else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def draw_result(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw photos in a second over the size of a batch, and the stages of one photo.

    Args:
        rows: Rows of a result.
        path: The picture; the suffix chooses its format.

    Raises:
        OptionError: Matplotlib is not installed (``O05``), or knows no such format
            (``O03``).
    """
    require_plots()
    from matplotlib.figure import Figure

    settings = list(dict.fromkeys(map(words_of_setting, rows)))
    figure = Figure(figsize=(11, 3.2 * len(settings)), layout="constrained")
    panels = figure.subplots(len(settings), 2, squeeze=False)
    for (left, right), setting in zip(panels, settings, strict=True):
        mine = [row for row in rows if words_of_setting(row) == setting]
        _draw_rates(left, mine)
        _draw_stages(right, mine)
        left.set_title(setting, fontsize=8, loc="left")
    try:
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    except ValueError as error:
        raise OptionError("O03", f"--plot {str(path)!r}: {error}") from error


def require_plots() -> None:
    """Refuse plots where Matplotlib is missing.

    Raises:
        OptionError: Matplotlib is not installed (``O05``).
    """
    try:
        import matplotlib as mpl  # noqa: F401
    except ImportError as error:
        raise OptionError(
            "O05", '--plot needs Matplotlib; try: pip install "dslo-jax[plot]"'
        ) from error


def _draw_rates(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """Photos in a second over the size of a batch, a line for each pipeline."""
    for name, colour in _COLOURS.items():
        points = [
            (row["images"], row["images_per_s"])
            for row in rows
            if row["scenario"] == OFFLINE
            and row["stage"] == END_TO_END
            and row["name"] == name
            and not row["oom"]
        ]
        if points:
            axes.plot(*zip(*points, strict=True), "o-", color=colour, label=name)
    axes.set(xlabel="batch", ylabel="photos / s", xscale="log", ylim=(0, None))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda value, _: "")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def _draw_stages(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """Medians of the stages for one photo, a bar for each pipeline."""
    staged = [row for row in rows if row["scenario"] == STAGES and row["images"] == 1]
    stages = list(dict.fromkeys(row["stage"] for row in staged))
    names = [name for name in _COLOURS if any(row["name"] == name for row in staged)]
    height = 0.8 / max(1, len(names))
    for number, name in enumerate(names):
        times = {r["stage"]: 1e3 * r["median_s"] for r in staged if r["name"] == name}
        places = [stages.index(stage) + number * height for stage in times]
        axes.barh(places, list(times.values()), height, color=_COLOURS[name])
    axes.set_yticks(range(len(stages)), stages)
    axes.set(xlabel="ms, batch 1", xscale="log")
    axes.invert_yaxis()
    axes.grid(alpha=0.3, axis="x")
