"""The command ``dslo``: the one place that prints and sets exit codes."""

import statistics
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from dslo_jax import images, prompts
from dslo_jax.config import SegmenterConfig
from dslo_jax.devices import Precision
from dslo_jax.errors import DsloError, OptionError
from dslo_jax.images import FoundPhoto, Photo
from dslo_jax.models import hub
from dslo_jax.outputs import output_path
from dslo_jax.segmentation import Segmentation
from dslo_jax.segmenter import Segmenter


PARTIAL, INTERRUPTED, BUG = 6, 130, 1


@dataclass(frozen=True)
class Segment:
    """Segment photos into classes named in plain words.

    Args:
        photos: Photos, folders or glob patterns.
        classes: Class names: a comma separates classes, a bar separates synonyms,
            as in "cat, sofa|couch, wall".
        class_file: A file with one class a line instead, synonyms after commas.
        model: A preset, or a folder with the sub-folders clip and diffusion.
        clip: A CLIP folder or repository instead of the preset's.
        attention: A Stable Diffusion folder or repository instead of the preset's.
        precision: Of the networks; auto is float32 on a CPU, bfloat16 elsewhere.
        device: auto, cpu, gpu or tpu; gpu:1 is the second.
        out: Folder for the results, one sub-folder per photo.
        batch: Photos at once on the device.
        recursive: Look into the sub-folders of a folder.
        offline: Never ask a hub.
        config: A TOML file with any of the options of the method below; options on
            the command line win.
        method: Every choice of the method.
    """

    photos: tyro.conf.Positional[tuple[str, ...]] = ()
    classes: str | None = None
    class_file: Path | None = None
    model: str = "sd2+clip-b16"
    clip: str | None = None
    attention: str | None = None
    precision: Precision = "auto"
    device: str = "auto"
    out: Path = Path("out")
    batch: int = 1
    recursive: bool = False
    offline: bool = False
    config: Path | None = None
    method: Annotated[SegmenterConfig, tyro.conf.arg(name="")] = field(
        default_factory=SegmenterConfig
    )


@dataclass(frozen=True)
class Weights:
    """Download checkpoints, and say where they are.

    Args:
        names: Presets, or repositories with their kind: clip-b16, sd2-base.
        kind: What a repository that is no preset holds.
        offline: Only look, never ask a hub.
    """

    names: tyro.conf.Positional[tuple[str, ...]]
    kind: Literal["clip", "diffusion"] = "clip"
    offline: bool = False


COMMANDS = {"segment": Segment, "weights": Weights}
_USAGE = """usage: dslo COMMAND ...

  dslo segment PHOTO... --classes "cat, sofa|couch, wall"   photos to label maps
  dslo weights NAME...                                      download checkpoints

dslo COMMAND --help says more."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``dslo``; returns the exit code.

    0 done, 1 our mistake, 2 a bad option, 3 a bad photo or class list, 4 a bad
    checkpoint, 5 a missing device, 6 some photos failed, 130 interrupted.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    if not arguments or arguments[0] not in COMMANDS:
        wants_help = bool(arguments) and arguments[0] in ("-h", "--help")
        (Console(highlight=False) if wants_help else errors).print(_USAGE, markup=False)
        return 0 if wants_help else OptionError.exit_code
    try:
        return _run(arguments[0], arguments[1:], errors)
    except SystemExit as stop:  # the option parser has said what is wrong
        return stop.code if isinstance(stop.code, int) else OptionError.exit_code
    except DsloError as error:
        errors.print(f"error: {error}", markup=False)
        return error.exit_code
    except KeyboardInterrupt:
        errors.print("interrupted")
        return INTERRUPTED
    except Exception:
        errors.print(traceback.format_exc(), markup=False)
        errors.print("This is a fault of dslo-jax; please report the lines above.")
        return BUG


def _run(command: str, arguments: list[str], errors: Console) -> int:
    if command == "weights":
        return _weights(tyro.cli(Weights, prog="dslo weights", args=arguments))
    default = Segment(method=_config_file(arguments))
    options = tyro.cli(Segment, prog="dslo segment", args=arguments, default=default)
    return _segment(options, errors)


def _config_file(arguments: list[str]) -> SegmenterConfig:
    """The configuration that options on the command line then override."""
    for position, argument in enumerate(arguments):
        name, _, value = argument.partition("=")
        if name == "--config":
            following = arguments[position + 1 : position + 2]
            path = value or (following[0] if following else "")
            return SegmenterConfig.from_toml(Path(path))
    return SegmenterConfig()


def _weights(options: Weights) -> int:
    for name in options.names:
        kind = hub.kind_of(name) or options.kind
        folder = hub.resolve(name, kind, offline=options.offline)
        Console(highlight=False, soft_wrap=True).print(f"{name} {folder}", markup=False)
    return 0


def _segment(options: Segment, errors: Console) -> int:
    if not options.photos:
        raise OptionError("O05", "no photos; name photos, folders or patterns")
    if options.batch < 1:
        raise OptionError("O01", f"--batch {options.batch}; expected at least 1")
    classes = _classes(options)
    found = images.find_photos(options.photos, recursive=options.recursive)
    results: list[Segmentation] = []
    failures: list[DsloError] = []
    with _report(len(found), errors) as report:
        segmenter = Segmenter.from_pretrained(
            options.model,
            clip=options.clip,
            attention=options.attention,
            config=options.method,
            dtype=options.precision,
            device=options.device,
            offline=options.offline,
            announce=report.stage,
        )
        for start in range(0, len(found), options.batch):
            readable = _read(found[start : start + options.batch], failures, report)
            segmented = segmenter.batch(
                [photo for _, photo in readable], classes, batch_size=options.batch
            )
            for (place, _), result in zip(readable, segmented, strict=True):
                folder = output_path(options.out, place.name)
                report.photo(place, result, result.save(folder))
            results += segmented
    _print_times(results)
    if failures and (results or len(failures) > 1):
        errors.print(f"{len(failures)} of {len(found)} photos failed, see above")
    if failures:
        return PARTIAL if results else failures[0].exit_code
    return 0


def _classes(options: Segment) -> prompts.ClassList:
    if (options.classes is None) == (options.class_file is None):
        raise OptionError("O05", "give either --classes or --class-file")
    if options.classes is not None:
        return prompts.split_classes(options.classes)
    return prompts.read_class_file(options.class_file)


def _read(
    places: Sequence[FoundPhoto], failures: list[DsloError], report: "_Report"
) -> list[tuple[FoundPhoto, Photo]]:
    """Read photos; one that cannot be read is reported and does not stop the rest."""
    readable = []
    for place in places:
        try:
            readable.append((place, images.read_photo(place.path)))
        except DsloError as error:
            failures.append(error)
            report.failure(place, error)
    return readable


class _Report:
    """Progress: a bar on a terminal, plain lines elsewhere."""

    def __init__(self, total: int, console: Console):
        self._total, self._done, self._console = total, 0, console
        self._bar = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("loading checkpoints", total=total)

    @contextmanager
    def shown(self) -> Iterator["_Report"]:
        self._line("loading checkpoints")
        with self._bar:
            yield self

    def stage(self, stage: str, compiles: bool) -> None:
        """A stage begins."""
        if compiles:
            self._line(f"compiling {stage} (once per shape)")
        words = f"compiling {stage} (once per shape)" if compiles else stage
        self._bar.update(self._task, description=words)

    def photo(self, place: FoundPhoto, result: Segmentation, folder: Path) -> None:
        """A photo is done and saved."""
        self._advance()
        shares = sorted(result.reports, key=lambda report: -report.area)
        words = ", ".join(f"{r.name} {r.area:.1%}" for r in shares if r.area > 0)
        Console(highlight=False, soft_wrap=True).print(
            f"{place.path} -> {folder}: {words}", markup=False
        )
        for note in result.notes:
            self._console.print(f"  note: {note}", markup=False)

    def failure(self, place: FoundPhoto, error: DsloError) -> None:
        """A photo could not be read."""
        self._advance()
        self._console.print(f"error: {place.path}: {error}", markup=False)

    def _advance(self) -> None:
        self._done += 1
        self._bar.update(self._task, completed=self._done)

    def _line(self, words: str) -> None:
        if not self._console.is_terminal:
            self._console.print(f"[{self._done}/{self._total}] {words}", markup=False)


def _report(total: int, console: Console):
    return _Report(total, console).shown()


def _print_times(results: Sequence[Segmentation]) -> None:
    """Median seconds per stage over all photos, compilation apart."""
    stages: dict[str, list[float]] = {}
    compiling: dict[str, float] = {}
    for result in results:
        for timing in result.timings:
            stages.setdefault(timing.stage, []).append(timing.seconds)
            compiling[timing.stage] = (
                compiling.get(timing.stage, 0.0) + timing.compile_seconds
            )
    table = Table("stage", "median seconds", "compiling, once", box=None)
    for stage, seconds in stages.items():
        once = f"{compiling[stage]:.2f}" if compiling[stage] else ""
        table.add_row(stage, f"{statistics.median(seconds):.3f}", once)
    if results:
        Console(highlight=False).print(table)


if __name__ == "__main__":
    sys.exit(main())
