"""``python -m dslo_jax.demo``: segment scenes with known labels, offline."""

import contextlib
import re
import shutil
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np
import tyro
from PIL import Image
from rich.console import Console
from rich.status import Status
from rich.table import Table

from dslo_jax import scenes
from dslo_jax.demo.components import KNOWN, Components, points
from dslo_jax.demo.sheet import (
    COLUMNS,
    MODES,
    WORLD,
    Segment,
    Sheet,
    show,
)
from dslo_jax.demo.sheet_html import to_html
from dslo_jax.demo.sheet_png import to_image
from dslo_jax.errors import DsloError, OptionError
from dslo_jax.evaluation.metrics import IGNORE
from dslo_jax.files import atomic_file
from dslo_jax.outputs.page import percent
from dslo_jax.prompts import ClassList, classes_of_options
from dslo_jax.segmentation import Segmentation
from dslo_jax.segmenter import Segmenter


# A beach at dusk; the classes are other names for what it shows.
_OWN_SEED = 3
_OWN_CLASSES = (
    "heavens, peak, ocean, beach, ship, picket fence, hot-air balloon, bird, sunshine"
)
_WRITTEN = "scenes.txt"  # the folders of scenes that a demo has written


@dataclass(frozen=True)
class Demo:
    """Draw scenes, segment them with the bundled networks, and show the results.

    Args:
        seeds: Seeds of the scenes; those below 10000 were not used for training.
        classes: Classes to look for in one more scene. A comma separates classes, a bar
            separates synonyms; may be given several times. Default: what one scene
            shows, by other names.
        out: Folder for the results; open sheet.html there.
    """

    seeds: tuple[int, ...] = (9, 12, 13, 17)
    classes: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    out: Path = Path("out/demo")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit code."""
    options = tyro.cli(Demo, prog="python -m dslo_jax.demo", args=arguments)
    console = Console(highlight=False, soft_wrap=True)
    try:
        _run(options, console)
    except DsloError as error:
        Console(stderr=True, highlight=False).print(f"error: {error}", markup=False)
        return error.exit_code
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted")
        return 130
    return 0


def _run(options: Demo, console: Console) -> None:
    start = time.perf_counter()
    classes = _check(options)
    with console.status("") as status:
        segment, components = _load(status)
        world = tuple(show(seed, WORLD, segment, components) for seed in options.seeds)
        shown = partial(components, rows=(KNOWN,))  # no table needs the others
        sheet = Sheet(world, show(_OWN_SEED, classes, segment, shown))
    seconds = time.perf_counter() - start
    _save(sheet, options.out, seconds)
    console.print(_score_table(sheet), _component_table(sheet), _time_table(sheet))
    console.print(f"{seconds:.0f} seconds. Open {options.out / 'sheet.html'}")
    console.print(_next(options.out, options.seeds[0]), markup=False)


def _load(status: Status) -> tuple[Segment, Components]:
    """Load the bundled networks, once for all modes and rows."""
    status.update("loading")
    segmenter = Segmenter.from_pretrained(
        "demo",
        offline=True,
        announce=lambda stage, compiles: status.update(
            f"{'compiling ' * compiles}{stage}"
        ),
    )

    def segment(mode: str, pixels: np.ndarray, classes: ClassList) -> Segmentation:
        return segmenter(pixels, classes, mode=mode)

    return segment, Components(segmenter.networks, segmenter.config)


def _check(options: Demo) -> ClassList:
    """Check the options before anything is loaded, and return the classes."""
    held_out = scenes.HELD_OUT_SEEDS
    if not options.seeds or not all(seed in held_out for seed in options.seeds):
        raise OptionError(
            "O01",
            f"--seeds {' '.join(map(str, options.seeds))}; expected one or more from "
            f"{held_out.start} to {held_out.stop - 1}, which no network was trained on",
        )
    classes = classes_of_options(options.classes or (_OWN_CLASSES,))
    if len(classes) > IGNORE:
        raise OptionError(
            "O01", f"--classes names {len(classes)}; expected at most {IGNORE}"
        )
    return classes


def _save(sheet: Sheet, folder: Path, seconds: float) -> None:
    """Write the sheet as HTML and PNG, and the photo and all results of each scene."""
    named = {f"scene-{exhibit.seed}": exhibit for exhibit in sheet.world}
    named["own-words"] = sheet.own
    _remove_earlier(folder, named)
    for name, exhibit in named.items():
        with atomic_file(folder / name / "photo.png") as file:
            Image.fromarray(exhibit.pixels).save(file, "PNG")
        for mode, result in exhibit.results.items():
            result.save(folder / name / mode)
    with atomic_file(folder / "sheet.html") as file:
        text = to_html(sheet, _next(folder, sheet.world[0].seed), _footer(seconds))
        file.write(text.encode())
    with atomic_file(folder / "sheet.png") as file:
        to_image(sheet).save(file, "PNG", optimize=True)


def _remove_earlier(folder: Path, named: Collection[str]) -> None:
    """Remove the scenes of an earlier demo that this one does not show.

    Only folders that this list names are removed, because only a demo wrote them.
    """
    written = folder / _WRITTEN
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for name in written.read_text().splitlines():
            if re.fullmatch(r"scene-\d+", name) and name not in named:
                shutil.rmtree(folder / name, ignore_errors=True)
    with atomic_file(written) as file:
        file.write("".join(f"{name}\n" for name in sorted(named)).encode())


def _footer(seconds: float) -> str:
    return (
        f"{seconds:.0f} s in all, compiling and drawing included, on "
        f"{jax.local_devices()[0].device_kind}; dslo-jax {version('dslo-jax')}, jax "
        f"{jax.__version__}, scenes version {scenes.VERSION}."
    )


def _score_table(sheet: Sheet) -> Table:
    table = Table("mIoU", *COLUMNS[2:], box=None)
    for exhibit in sheet.world:
        table.add_row(f"scene {exhibit.seed}", *_percents(exhibit.scores))
    table.add_row("all", *_percents(sheet.scores))
    table.add_row("own words", *_percents(sheet.own.scores))
    return table


def _percents(scores: Mapping[str, float]) -> list[str]:
    return [percent(scores[title]) for title in COLUMNS[2:]]


def _component_table(sheet: Sheet) -> Table:
    """What each component adds, over all scenes."""
    table = Table("row", "mIoU", "points", "compared with", box=None)
    for score in sheet.components:
        table.add_row(score.row, percent(score.score), points(score), score.base)
    return table


def _next(folder: Path, seed: int) -> str:
    """What to try next."""
    photo = folder / f"scene-{seed}" / "photo.png"
    return (
        "Next, your own words for one of these scenes:\n"
        f'  {_command()} segment {photo} --model demo --classes "sky, sea, house" '
        "--out out/words\n"
        "or your own photo, with full-size networks (5.8 GB are downloaded once):\n"
        f'  {_command()} segment PHOTO --classes "cat, sofa|couch, wall" '
        "--out out/photo"
    )


def _command() -> str:
    """How the command dslo is called from here."""
    if shutil.which("dslo"):
        return "dslo"
    beside = Path(sys.executable).parent / "dslo"
    here = Path.cwd()
    return str(beside.relative_to(here) if beside.is_relative_to(here) else beside)


def _time_table(sheet: Sheet) -> Table:
    table = Table("median seconds", *MODES.values(), "compiling, once", box=None)
    for stage, seconds, once in sheet.times:
        columns = [f"{seconds[mode]:.3f}" if mode in seconds else "" for mode in MODES]
        table.add_row(stage, *columns, f"{once:.2f}" if once else "")
    return table


if __name__ == "__main__":
    sys.exit(main())
