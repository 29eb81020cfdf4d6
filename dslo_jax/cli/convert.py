"""``dslo convert``: convert published labels to the layout that ``dslo eval`` reads."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from dslo_jax.cli.terminal import Measuring, one_line, results, say
from dslo_jax.evaluation.datasets import convert, find_benchmark


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Convert the published labels of a benchmark, once.

    VOC and ADE20K need no conversion. Published files are not changed, converted labels
    that exist already are kept, and the same command continues an interrupted
    conversion.

    Args:
        dataset: coco_object, coco_stuff, cityscapes, or context60 and context59, which
            share their labels.
        root: Folder of the data set, as for dslo eval; the labels are written into it.
    """

    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    root: Path


def run(arguments: list[str], errors: Console) -> int:
    """Run the command and return the exit code."""
    options = tyro.cli(Convert, prog="dslo convert", args=arguments)
    expected = find_benchmark(options.dataset).layout.num_photos
    say(errors, f"converting the labels of {options.dataset}")
    with Measuring(errors, expected, 0, dict, "label files") as shown:
        done = convert(options.dataset, options.root, watch=shown)
    say(
        results(),
        f"{one_line(done.folder)}: {done.written} label files written, "
        f"{done.kept} were there already",
    )
    return 0
