"""The command ``dslo``: the one place that prints and sets exit codes."""

import functools
import statistics
import sys
import tempfile
import traceback
import unicodedata
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
from dslo_jax.errors import (
    CheckpointError,
    DeviceError,
    DsloError,
    ImageError,
    OptionError,
)
from dslo_jax.images import FoundPhoto, Photo
from dslo_jax.models import hub
from dslo_jax.outputs import output_path
from dslo_jax.pairs import find_pair
from dslo_jax.segmentation import Segmentation
from dslo_jax.segmenter import Segmenter
from dslo_jax.stages import Timing


PARTIAL, INTERRUPTED, BUG = 6, 130, 1
_BATCHES_AHEAD = 8
_BIDI = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


class OutputError(DsloError):
    """Results that the disk refuses (``O06``)."""

    exit_code = PARTIAL


@dataclass(frozen=True)
class Segment:
    """Segment photos into classes named in plain words.

    Args:
        photos: Photos, folders or glob patterns.
        classes: Class names: a comma separates classes, a bar separates synonyms,
            as in "cat, sofa|couch, wall".
        class_file: A file with one class a line instead, synonyms after commas.
        model: A pair of networks: sd2+clip-b16, sd2+clip-l14, demo (no download, knows
            its own drawn world alone), or a folder that holds clip and diffusion.
        clip: A CLIP folder or repository instead of the pair's.
        attention: A Stable Diffusion folder or repository instead of the pair's.
        precision: Of the networks; auto is float32 on a CPU, bfloat16 elsewhere.
        device: auto, cpu, gpu or tpu; gpu:1 is the second.
        out: Folder for the results, one sub-folder per photo.
        batch: Photos at once on the device.
        recursive: Look into the sub-folders of a folder.
        offline: Never ask a hub.
        config: A TOML file with any of the options of the method below; options on
            the command line win over it.
        method: Every choice of the method; where nothing else is said, the one that
            suits the model.
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
    checkpoint, 5 a device that is missing or out of memory, 6 some photos failed or
    results could not be written, 130 interrupted.
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
        _say(errors, f"error: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        _say(errors, "interrupted")
        return INTERRUPTED
    except Exception as error:
        if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
            _say(errors, f"error: {_out_of_memory(error)}")
            return DeviceError.exit_code
        _say(errors, traceback.format_exc())
        _say(errors, "This is a fault of dslo-jax; please report the lines above.")
        return BUG


def _say(console: Console, words: str) -> None:
    """Print words; what they quote from file names and photos steers no terminal."""
    safe = "\n".join(map(_escaped, words.split("\n")))
    encoding = console.encoding
    safe = safe.encode(encoding, "backslashreplace").decode(encoding)
    console.print(safe, markup=False)


def _escaped(text: str) -> str:
    """Control characters, halves of characters and changes of direction, spelled out.

    Invisible characters that words and emoji need (joiners) stay.
    """
    return "".join(
        ascii(char)[1:-1]
        if unicodedata.category(char) in ("Cc", "Cs")
        or unicodedata.bidirectional(char) in _BIDI
        else char
        for char in text
    )


def _out_of_memory(error: Exception) -> DeviceError:
    reason = str(error).splitlines()[0] if str(error) else "no more memory"
    return DeviceError(
        "D01",
        f"out of memory ({reason}); try --batch 1, fewer classes, a smaller "
        "--affinity-size or --short-side, or --precision bfloat16",
    )


def _run(command: str, arguments: list[str], errors: Console) -> int:
    if command == "weights":
        return _weights(tyro.cli(Weights, prog="dslo weights", args=arguments))
    return _segment(_segment_options(arguments), errors)


def _segment_options(arguments: list[str]) -> Segment:
    """Options of the method: the command line's, else ``--config``'s, else the model's.

    Which model and which file is known only once the command line was read, so it is
    read again with what they say in place of the defaults.
    """
    parse = functools.partial(tyro.cli, Segment, prog="dslo segment", args=arguments)
    first = parse()
    method = find_pair(first.model).config
    if first.config is not None:
        method = SegmenterConfig.from_toml(first.config, base=method)
    return parse(default=Segment(method=method))


def _weights(options: Weights) -> int:
    for name in options.names:
        kind = hub.kind_of(name) or options.kind
        with _readable_checkpoint():
            folder = hub.resolve(name, kind, offline=options.offline)
        _say(Console(highlight=False, soft_wrap=True), f"{name} {folder}")
    return 0


def _segment(options: Segment, errors: Console) -> int:
    if not options.photos:
        raise OptionError("O05", "no photos; name photos, folders or patterns")
    if options.batch < 1:
        raise OptionError("O01", f"--batch {options.batch}; expected at least 1")
    classes = _classes(options)
    found = images.find_photos(
        options.photos,
        recursive=options.recursive,
        on_skip=lambda path, reason: _say(errors, f"skipped {_name(path)}: {reason}"),
    )
    _require_writable(options.out)
    runs: list[tuple[Timing, ...]] = []
    failures: list[DsloError] = []
    with _report(len(found), errors) as report:
        segmenter = _load(options, report)
        # Photos of one size share a batch: look ahead for some, and not for all.
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
        _say(errors, f"{len(failures)} of {len(found)} photos failed, see above")
    if failures:
        return PARTIAL if runs else failures[0].exit_code
    return 0


def _load(options: Segment, report: "_Report") -> Segmenter:
    with _readable_checkpoint():
        return Segmenter.from_pretrained(
            options.model,
            clip=options.clip,
            attention=options.attention,
            config=options.method,
            dtype=options.precision,
            device=options.device,
            offline=options.offline,
            announce=report.stage,
        )


@contextmanager
def _readable_checkpoint() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            "W01", f"a checkpoint cannot be read: {error}; check its permissions"
        ) from error


def _require_writable(folder: Path) -> None:
    """Find out before minutes of work that nothing could be saved."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise _cannot_write(folder, error) from error


def _save(result: Segmentation, folder: Path) -> Path:
    try:
        return result.save(folder)
    except OSError as error:
        kept = "; results reported above are kept"
        raise _cannot_write(folder, error, kept) from error


def _cannot_write(folder: Path, error: OSError, kept: str = "") -> OutputError:
    return OutputError(
        "O06",
        f"cannot write {str(folder)!r}: {error.strerror or error}{kept}; make room "
        "there, or choose another folder with --out",
    )


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
        _say(
            Console(highlight=False, soft_wrap=True),
            f"{_name(place.path)} -> {_name(folder)}: {words}",
        )
        for note in result.notes:
            _say(self._console, f"  note: {note}")

    def failure(self, place: FoundPhoto, error: DsloError) -> None:
        """A photo could not be read, or its results have no place."""
        self._advance()
        _say(self._console, f"error: {_name(place.path)}: {error}")

    def _advance(self) -> None:
        self._done += 1
        self._bar.update(self._task, completed=self._done)

    def _line(self, words: str) -> None:
        if not self._console.is_terminal:
            _say(self._console, f"[{self._done}/{self._total}] {words}")


def _name(path: Path) -> str:
    """A path on one line, whatever its name holds."""
    return _escaped(str(path))


def _report(total: int, console: Console):
    return _Report(total, console).shown()


def _print_times(runs: Sequence[tuple[Timing, ...]]) -> None:
    """Median seconds per stage of a batch, compilation apart."""
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
        Console(highlight=False).print(table)


if __name__ == "__main__":
    sys.exit(main())
