"""``python -m dslo_jax.evaluation.efficiency``: computation and time of each stage.

This is the efficiency table of the paper (Sec. 8) for your networks on your machine.

The table has FLOPs by the formulas of ``dslo_jax.cost``, and by the compiler for the
programs that ran. The compiler counts all additions and multiplications, but the body
of a loop only once. Another column therefore has our formulas with the body of each
loop counted once, which must agree with the compiler. Parameters are counted in the
networks, and times are those of the segmenter.
"""

import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import tyro
from flax import nnx
from rich.console import Console

from dslo_jax import scenes
from dslo_jax.bench.pipeline.work import source_of, work_of_stages
from dslo_jax.cost import Work
from dslo_jax.errors import DsloError
from dslo_jax.evaluation.reports.paper import paper_tables
from dslo_jax.pipeline.stages import watch
from dslo_jax.prompts import classes_of_options, parse_classes
from dslo_jax.segmenter import Classes, Segmenter


SCHEMA = "dslo.efficiency.v1"
_REPEATS = 3
_SCENE = 12
_ORDER = ("text", "clip", "vae", "unet", "vit", "aggregation")
_ORDER += ("logits", "solver", "labels")


def measure(segmenter: Segmenter, photo: Any, classes: Classes) -> dict[str, Any]:
    """Segment a photo, and measure the computation and time of each stage.

    Args:
        segmenter: A segmenter; classes that it has segmented before need no text stage.
        photo: As for the segmenter.
        classes: As for the segmenter.

    Returns:
        Plain values: the circumstances and ``components``. Each component has by
        formula ``flops`` and ``flops_once`` (see ``cost.Work``), ``compiler_flops``,
        ``parameters``, and ``seconds`` (median of three runs; one run for the text). A
        value is ``None`` where there is none.
    """
    with watch() as calls:
        result = segmenter(photo, classes, time_stages=True)
    segment = partial(segmenter, photo, classes, time_stages=True)
    runs = [segment().timings for _ in range(_REPEATS)]
    seconds = {timing.stage: timing.seconds for timing in result.timings}
    for stage in {timing.stage for timings in runs for timing in timings}:
        seconds[stage] = statistics.median(
            timing.seconds
            for timings in runs
            for timing in timings
            if timing.stage == stage
        )
    counted: dict[str, float] = {}
    for call in calls:
        counted[call.stage] = counted.get(call.stage, 0.0) + call.flops
    steps = [report.num_steps for report in result.reports if not report.rejected]
    work = work_of_stages(
        segmenter.networks, result.config, calls, [steps], result.labels.size
    )
    parameters = _parameters(segmenter)
    stages = dict.fromkeys([*_ORDER, *seconds])
    return {
        "schema": SCHEMA,
        "device": jax.local_devices()[0].device_kind,
        "photo": list(result.labels.shape),
        "classes": len(result.classes),
        "active": sum(not report.rejected for report in result.reports),
        "mode": result.config.solver.mode,
        "components": [
            {
                "name": stage,
                **_numbers(work.get(stage)),
                "compiler_flops": counted.get(stage),
                "parameters": parameters.get(stage),
                "seconds": seconds.get(stage),
            }
            for stage in stages
            if stage in work or stage in seconds
        ],
    }


def table(found: Mapping[str, Any]) -> str:
    """The components as a Markdown table, and the table of the paper.

    Args:
        found: From ``measure``.
    """
    height, width = found["photo"]
    lines = [
        f"One photo of {height} x {width} pixels, {found['classes']} classes "
        f"({found['active']} after early rejection), mode {found['mode']}, "
        f"{found['device']}.",
        "",
        "| component | GFLOPs, formula | loop bodies once | compiler | parameters (M) "
        "| ms |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    fields = ("flops", "flops_once", "compiler_flops", "parameters", "seconds")
    units = (1e9, 1e9, 1e9, 1e6, 1e-3)
    totals: dict[str, Any] = {"name": "total without text"}
    for field in fields:
        numbers = [
            each[field] for each in found["components"] if each["name"] != "text"
        ]
        totals[field] = sum(number for number in numbers if number is not None)
    totals["flops_once"] = None  # not known for all components
    for each in (*found["components"], totals):
        cells = [
            "" if each[field] is None else f"{each[field] / unit:.3f}"
            for field, unit in zip(fields, units, strict=True)
        ]
        lines.append(f"| {each['name']} | {' | '.join(cells)} |")
    return "\n".join(
        [
            *lines,
            "",
            "Text is encoded once for a list of classes, not for every photo. The "
            "program of unet includes the aggregation, and so do its time and the "
            "count of the compiler. Labels are counted as if every pixel were "
            "computed, although none is where the maps alone decide. The compiler "
            "counts all additions and multiplications, but the body of a loop once; "
            "the formulas of networks count only those of products.",
            "",
            *_quoted("efficiency"),
            "",
            *_quoted("seconds"),
            "",
        ]
    )


def _quoted(name: str) -> list[str]:
    """A table of the paper, with its source."""
    quoted = paper_tables()[name]
    lines = [
        f"The paper's own figures ({quoted.citation}). {quoted.caption}:",
        "",
        f"| | {' | '.join(quoted.columns)} |",
        "|---" + "|---:" * len(quoted.columns) + "|",
    ]
    for row in quoted.rows:
        figures = [f"{row.figures[column]:g}" for column in quoted.columns]
        lines.append(f"| {row.label} | {' | '.join(figures)} |")
    return lines


def _numbers(work: Work | None) -> dict[str, int | None]:
    """FLOPs of a component; ``None`` where they are not known."""
    if work is None:
        return {"flops": None, "flops_once": None}
    return {"flops": work.flops, "flops_once": work.once or None}


def _parameters(segmenter: Segmenter) -> dict[str, int]:
    """Number of parameters of each component."""
    attention = segmenter.config.clip.attention
    source = segmenter.networks.source_of_logits(attention)
    modules = dict(source.module.networks())
    affinity = source_of(segmenter.networks, segmenter.config)
    modules |= affinity.networks() if affinity else {}
    return {
        name: sum(
            leaf.size
            for part in parts
            for leaf in jax.tree.leaves(nnx.state(part, nnx.Param))
        )
        for name, parts in modules.items()
    }


@dataclass(frozen=True)
class Efficiency:
    """Measure the computation and time of each stage for one photo.

    Args:
        model: A pair of networks, as for ``dslo segment``.
        mode: Discrepancy that is turned into labels.
        photo: A photo; default: a drawn scene.
        classes: Classes to look for. A comma separates classes, a bar separates
            synonyms; may be given several times. Default: the classes of the drawn
            scenes.
    """

    model: str = "demo"
    mode: str = "velocity"
    photo: Path | None = None
    classes: tyro.conf.UseAppendAction[tuple[str, ...]] = ()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    prog = "python -m dslo_jax.evaluation.efficiency"
    options = tyro.cli(Efficiency, prog=prog, args=arguments)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    try:
        segmenter = Segmenter.from_pretrained(options.model, mode=options.mode)
        side = segmenter.config.affinity.size
        photo = options.photo or scenes.draw_scene(_SCENE, size=(side, side)).pixels
        if options.classes:
            classes = classes_of_options(options.classes)
        else:
            classes = parse_classes([each.names for each in scenes.CLASSES])
        console.print(table(measure(segmenter, photo, classes)))
    except DsloError as error:
        Console(stderr=True, highlight=False, markup=False).print(f"error: {error}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
