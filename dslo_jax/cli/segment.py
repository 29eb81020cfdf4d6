"""``dslo segment``: photos to label maps."""

import functools
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from dslo_jax import images, prompts
from dslo_jax.cli.method import DEFAULTS, Method, config_of, method_options
from dslo_jax.cli.terminal import bar, one_line, results, say
from dslo_jax.cli.weights import readable_checkpoint
from dslo_jax.config import SegmenterConfig
from dslo_jax.devices import Precision
from dslo_jax.errors import DsloError, ImageError, OptionError, OutputError
from dslo_jax.images import FoundPhoto, Photo
from dslo_jax.outputs import output_path
from dslo_jax.pairs import find_pair
from dslo_jax.pipeline.stages import Timing
from dslo_jax.segmentation import Segmentation
from dslo_jax.segmenter import Segmenter


_BATCHES_AHEAD = 8


@dataclass(frozen=True)
class Segment:
    """Segment photos into classes named in plain words.

    Args:
        photos: Photos, folders or glob patterns.
        classes: Class names: a comma separates classes, a bar separates synonyms,
            as in "cat, sofa|couch, wall".
        class_file: A file with one class per line, and commas between synonyms;
            instead of classes.
        model: A pair of networks: sd2, dino, dinov2, dinov2-reg or clip, each with
            +clip-b16; sd2+clip-l14; demo (no download, knows only its own drawn
            world); or a folder that holds clip and diffusion.
        clip: Folder, file or repository of a CLIP, instead of the pair's.
        attention: Folder or repository of Stable Diffusion, DINO, DINOv2 or CLIP as
            source of self-attention, instead of the pair's.
        precision: Precision of the networks; auto is float32 on a CPU, bfloat16
            elsewhere.
        device: auto, cpu, gpu or tpu; gpu:1 is the second GPU.
        out: Folder of the results, with one sub-folder per photo.
        batch: Number of photos at once on the device.
        recursive: Also search the sub-folders of a folder.
        offline: Open no network connection.
        config: A TOML file with options of the method, which are listed below; options
            on the command line win over it.
        method: Options of the method; the defaults are those that suit the model.
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
    method: Annotated[
        Method,  # pyright: ignore[reportInvalidTypeForm]
        tyro.conf.arg(name=""),
    ] = DEFAULTS


def run(arguments: list[str], errors: Console) -> int:
    """Run the command and return the exit code."""
    return _segment(_options(arguments), errors)


def _options(arguments: list[str]) -> Segment:
    """Parse the command line, then ``--config``, then the options that suit the model.

    The command line names the model and the file. It is parsed twice: the second time
    with the options of the model and of the file as defaults.
    """
    parse = functools.partial(tyro.cli, Segment, prog="dslo segment", args=arguments)
    first = parse()
    method = find_pair(first.model).config
    if first.config is not None:
        method = SegmenterConfig.from_toml(first.config, base=method)
    return parse(default=Segment(method=method_options(method)))


def _segment(options: Segment, errors: Console) -> int:
    if not options.photos:
        raise OptionError("O05", "no photos; name photos, folders or patterns")
    if options.batch < 1:
        raise OptionError("O01", f"--batch {options.batch}; expected at least 1")
    classes = _classes(options)
    found = images.find_photos(
        options.photos,
        recursive=options.recursive,
        exclude=options.out,
        on_skip=lambda path, reason: say(errors, f"skipped {one_line(path)}: {reason}"),
    )
    _require_writable(options.out)
    runs: list[tuple[Timing, ...]] = []
    failures: list[DsloError] = []
    with _report(len(found), errors) as report:
        segmenter = _load(options, report)
        # Photos of one size share a batch. Only a few batches of photos are read ahead,
        # because all photos may not fit into memory.
        window = options.batch if options.batch == 1 else _BATCHES_AHEAD * options.batch
        for start in range(0, len(found), window):
            readable = _read(found[start : start + window], failures, report)
            segmented = segmenter.batch(
                [photo for _, photo in readable], classes, batch_size=options.batch
            )
            for (place, _), result in zip(readable, segmented, strict=True):
                try:
                    folder = _save(result, output_path(options.out, place.name))
                except ImageError as error:
                    failures.append(error)
                    report.failure(place, error)
                else:
                    runs.append(result.timings)
                    report.photo(place, result, folder)
    _print_times(runs)
    if failures and (runs or len(failures) > 1):
        say(errors, f"{len(failures)} of {len(found)} photos failed, see above")
    if failures:
        return OutputError.exit_code if runs else failures[0].exit_code
    return 0


def _load(options: Segment, report: "_Report") -> Segmenter:
    with readable_checkpoint():
        return Segmenter.from_pretrained(
            options.model,
            clip=options.clip,
            attention=options.attention,
            config=config_of(options.method),
            dtype=options.precision,
            device=options.device,
            offline=options.offline,
            announce=report.stage,
        )


def _require_writable(folder: Path) -> None:
    """Refuse a folder that cannot be written, before minutes of work."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OutputError.cannot_write(folder, error) from error


def _save(result: Segmentation, folder: Path) -> Path:
    try:
        return result.save(folder)
    except OSError as error:
        kept = "results reported above are kept"
        raise OutputError.cannot_write(folder, error, kept) from error


def _classes(options: Segment) -> prompts.ClassList:
    if options.classes is not None and options.class_file is None:
        return prompts.split_classes(options.classes)
    if options.class_file is not None and options.classes is None:
        return prompts.read_class_file(options.class_file)
    raise OptionError("O05", "give either --classes or --class-file")


def _read(
    places: Sequence[FoundPhoto], failures: list[DsloError], report: "_Report"
) -> list[tuple[FoundPhoto, Photo]]:
    """Read photos; one that cannot be read is reported and does not stop the rest."""
    readable = []
    for place in places:
        try:
            readable.append((place, place.read()))
        except DsloError as error:
            failures.append(error)
            report.failure(place, error)
    return readable


class _Report:
    """Progress: a bar on a terminal, plain lines elsewhere."""

    def __init__(self, total: int, console: Console):
        self._total, self._done, self._console = total, 0, console
        self._bar = bar(console)
        self._task = self._bar.add_task("loading checkpoints", total=total)

    @contextmanager
    def shown(self) -> Iterator["_Report"]:
        self._line("loading checkpoints")
        with self._bar:
            yield self

    def stage(self, stage: str, compiles: bool) -> None:
        """Show that a stage begins."""
        if compiles:
            self._line(f"compiling {stage} (once per shape)")
        words = f"compiling {stage} (once per shape)" if compiles else stage
        self._bar.update(self._task, description=words)

    def photo(self, place: FoundPhoto, result: Segmentation, folder: Path) -> None:
        """Print the result of a photo that is saved."""
        self._advance()
        shares = sorted(result.reports, key=lambda report: -report.area)
        words = ", ".join(f"{r.name} {r.area:.1%}" for r in shares if r.area > 0)
        say(
            results(),
            f"{one_line(place.origin)} -> {one_line(folder)}: {words}",
        )
        for note in result.notes:
            say(self._console, f"  note: {note}")

    def failure(self, place: FoundPhoto, error: DsloError) -> None:
        """Print that a photo could not be read, or its results not be saved."""
        self._advance()
        say(self._console, f"error: {one_line(place.origin)}: {error}")

    def _advance(self) -> None:
        self._done += 1
        self._bar.update(self._task, completed=self._done)

    def _line(self, words: str) -> None:
        if not self._console.is_terminal:
            say(self._console, f"[{self._done}/{self._total}] {words}")


def _report(total: int, console: Console):
    return _Report(total, console).shown()


def _print_times(runs: Sequence[tuple[Timing, ...]]) -> None:
    """Print the median seconds per stage of a batch, without compilation."""
    stages: dict[str, list[Timing]] = {}
    for run in dict.fromkeys(runs):  # the photos of a batch share their timings
        for timing in run:
            stages.setdefault(timing.stage, []).append(timing)
    table = Table("stage", "median seconds", "compiling, once", box=None)
    for stage, timings in stages.items():
        once = sum(timing.compile_seconds for timing in timings)
        median = statistics.median(timing.seconds for timing in timings)
        table.add_row(stage, f"{median:.3f}", f"{once:.2f}" if once else "")
    if runs:
        results(soft_wrap=False).print(table)
