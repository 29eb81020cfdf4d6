"""``python -m dslo_jax.demo``: segment scenes with known labels, offline."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import jax
import tyro
from PIL import Image
from rich.console import Console
from rich.status import Status
from rich.table import Table

from dslo_jax import scenes
from dslo_jax.demo.sheet import MODES, WORLD, Exhibit, Segment, Sheet, show
from dslo_jax.demo.sheet_html import to_html
from dslo_jax.demo.sheet_png import to_image
from dslo_jax.errors import DsloError, OptionError
from dslo_jax.evaluation.metrics import IGNORE
from dslo_jax.files import atomic_file
from dslo_jax.outputs.page import percent
from dslo_jax.prompts import ClassList, classes_of_options
from dslo_jax.segmenter import Segmenter


# A beach at dusk; the classes are other names for what it shows.
_OWN_SEED = 3
_OWN_CLASSES = (
    "heavens, peak, ocean, beach, ship, picket fence, hot-air balloon, bird, sunshine"
)


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
    return 0


def _run(options: Demo, console: Console) -> None:
    start = time.perf_counter()
    classes = _check(options)
    with console.status("") as status:
        segment = _load(status)
        world = tuple(show(seed, WORLD, segment) for seed in options.seeds)
        sheet = Sheet(world, show(_OWN_SEED, classes, segment))
    seconds = time.perf_counter() - start
    _save(sheet, options.out, seconds)
    console.print(_score_table(sheet), _time_table(sheet))
    console.print(f"{seconds:.0f} seconds. Open {options.out / 'sheet.html'}")


def _load(status: Status) -> Segment:
    """Load the bundled networks, once for all modes."""
    status.update("loading")
    segmenter = Segmenter.from_pretrained(
        "demo",
        offline=True,
        announce=lambda stage, compiles: status.update(
            f"{'compiling ' * compiles}{stage}"
        ),
    )
    return lambda mode, pixels, classes: segmenter(pixels, classes, mode=mode)


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
    named = [(f"scene-{exhibit.seed}", exhibit) for exhibit in sheet.world]
    for name, exhibit in [*named, ("own-words", sheet.own)]:
        with atomic_file(folder / name / "photo.png") as file:
            Image.fromarray(exhibit.pixels).save(file, "PNG")
        for mode, result in exhibit.results.items():
            result.save(folder / name / mode)
    with atomic_file(folder / "sheet.html") as file:
        file.write(to_html(sheet, _footer(seconds)).encode())
    with atomic_file(folder / "sheet.png") as file:
        to_image(sheet).save(file, "PNG", optimize=True)


def _footer(seconds: float) -> str:
    return (
        f"{seconds:.0f} s in all, compiling and drawing included, on "
        f"{jax.local_devices()[0].device_kind}; dslo-jax {version('dslo-jax')}, jax "
        f"{jax.__version__}, scenes version {scenes.VERSION}."
    )


def _score_table(sheet: Sheet) -> Table:
    table = Table("mIoU", *MODES.values(), box=None)
    for exhibit in sheet.world:
        table.add_row(f"scene {exhibit.seed}", *_scores(exhibit))
    table.add_row("all", *map(percent, sheet.scores.values()))
    table.add_row("own words", *_scores(sheet.own))
    return table


def _scores(exhibit: Exhibit) -> list[str]:
    return [percent(exhibit.confusion(mode).mean_iou) for mode in MODES]


def _time_table(sheet: Sheet) -> Table:
    table = Table("median seconds", *MODES.values(), "compiling, once", box=None)
    for stage, seconds, once in sheet.times:
        columns = [f"{seconds[mode]:.3f}" if mode in seconds else "" for mode in MODES]
        table.add_row(stage, *columns, f"{once:.2f}" if once else "")
    return table


if __name__ == "__main__":
    sys.exit(main())
