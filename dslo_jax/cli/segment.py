"""``dslo segment``: photos to label maps."""

import statistics
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

from dslo_jax import images, outputs
from dslo_jax.cli.method import Background, chosen_classes
from dslo_jax.cli.networks import NetworkOptions, NetworksField, parse_options
from dslo_jax.cli.terminal import (
    bar,
    interruptible,
    one_line,
    results,
    say,
    warn_of_padding,
)
from dslo_jax.cli.values import Names, OptionalCount, OptionalPath, OptionalText
from dslo_jax.cli.weights import circumstances_of, readable_checkpoint
from dslo_jax.errors import DsloError, OptionError, OutputError
from dslo_jax.images import FoundPhoto
from dslo_jax.pipeline import check_background
from dslo_jax.pipeline.stages import Timing
from dslo_jax.runs import PhotoRun, Shard, only_run
from dslo_jax.runs.photos import Event, Failed
from dslo_jax.segmenter import Segmenter


_NAMED = 5  # greatest number of classes without a pixel that a line names


@dataclass(frozen=True)
class Segment:
    """Segment photos into classes named in plain words.

    The results of a photo are in a folder of its name inside --out: overlay.jpg,
    labels.png, maps.npz and segmentation.json.

    Args:
        photos: Photos, folders, archives, or patterns such as "photos/*.jpg".
        classes: Class names: a comma separates classes, a bar separates synonyms,
            as in "cat, sofa|couch, wall".
        class_file: A file with one class per line, and commas between synonyms;
            instead of --classes.
        background: Add a class "background" for everything else, after the other
            classes, with the words of a published method: the 26 of sclip, the 17 of
            proxyclip-coco, or the single word of clearclip.
        out: Folder of the results, with one sub-folder per photo. It holds one list of
            words and one choice of options. The same command continues a run that was
            interrupted.
        batch: Number of photos at once on the device. More are faster on GPUs and TPUs,
            and need more memory.
        devices: How many devices share the photos of a batch, from --device on: a
            number, or all. 2x4 is 8 devices in 2 rows: the rows share the photos, and
            the 4 devices of a row share the classes.
        recursive: Also search the sub-folders of a folder.
        files_from: A file with one photo, folder or pattern per line; - is the standard
            input.
        limit: Greatest number of photos; the first ones are used.
        shard: INDEX/COUNT: only every COUNT-th batch of photos, beginning with batch
            INDEX (from 0); auto asks SLURM, torchrun or another launcher. Several
            processes or machines can share the work and the output folder.
        max_pixels: Greatest number of pixels of a photo; a larger one fails.
        write: Files to write for each photo, with commas between them: labels,
            coloured, overlay, overlay_png, maps, json.
        overwrite: Discard the results of an earlier run in the output folder.
        networks: Networks and options of the method.
    """

    photos: Annotated[
        Names, tyro.conf.Positional, tyro.conf.arg(metavar="PHOTO...")
    ] = ()
    classes: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    class_file: OptionalPath = None
    background: Background = "none"
    out: Path = Path("out")
    batch: int = 1
    devices: str = "1"
    recursive: bool = False
    files_from: OptionalText = None
    limit: OptionalCount = None
    shard: str = "0/1"
    max_pixels: int = images.MAX_PIXELS
    write: str = ",".join(outputs.DEFAULT_FILES)
    overwrite: bool = False
    networks: NetworksField = NetworkOptions()


def run(arguments: list[str], errors: Console) -> int:
    """Run the command and return the exit code."""
    return _segment(parse_options(Segment, "dslo segment", arguments), errors)


def _segment(options: Segment, errors: Console) -> int:
    run = _new_run(options, errors)
    total = len(run.found)
    with (
        only_run(options.out, run.shard.suffix),
        _Report(total, errors) as report,
    ):
        run.check()  # before the networks, which may be downloaded
        segmenter, circumstances = _load(options, report)
        config = segmenter.config.flat
        run = replace(run, header={**circumstances, **run.header, "config": config})
        journal = run.open_journal()
        report.begin(len(run.done(journal)))
        with (
            interruptible(errors, report.progress) as watch,
            closing(run.finish(segmenter, journal)) as events,
        ):
            for event in events:
                report.event(event)
                watch(report.count, total)
    _print_times(report.runs)
    return _told_failures(run.failures(journal), total, report.failures, errors)


def _new_run(options: Segment, errors: Console) -> PhotoRun:
    """The run of the options, with all of its header that is known without networks."""
    classes = chosen_classes(options.classes, options.class_file, options.background)
    config = options.networks.method_config
    check_background(config, classes.background)
    kinds = _kinds(options.write)
    shard = Shard.of(options.shard)
    whole = _find(options, errors)
    batch_size = min(options.batch, max(1, len(whole)))
    # The network gives the layers their full names.
    known = {k: v for k, v in config.flat.items() if k != "affinity_layers"}
    return PhotoRun(
        shard.part_of(whole, batch_size),
        options.out,
        classes,
        {
            "classes": [list(names) for names in classes.synonyms],
            "background": classes.background,
            "config": known,
            "write": kinds,
            "max_pixels": options.max_pixels,
            "batch_size": options.batch,
        },
        shard=shard,
        batch_size=batch_size,
        max_pixels=options.max_pixels,
        write=kinds,
        overwrite=options.overwrite,
    )


def _told_failures(
    failures: Mapping[str, str],
    total: int,
    told: Sequence[DsloError],
    errors: Console,
) -> int:
    """Tell how many photos failed, and return the exit code."""
    if not failures:
        return 0
    if total > 1:
        say(errors, f"{len(failures)} of {total} photos failed, see above")
    if len(failures) == total and told:
        return told[0].exit_code
    return OutputError.exit_code


def _find(options: Segment, errors: Console) -> list[FoundPhoto]:
    """Find the photos of all shards."""
    names = list(options.photos)
    if options.files_from is not None:
        names += images.read_name_list(options.files_from)
    if not names:
        raise OptionError("O05", "no photos; name photos, folders or patterns")
    for name in ("batch", "limit", "max_pixels"):
        value = getattr(options, name)
        if value is not None and value < 1:
            flag = name.replace("_", "-")
            raise OptionError("O01", f"--{flag} {value}; expected at least 1")
    found = images.find_photos(
        names,
        recursive=options.recursive,
        exclude=options.out,
        on_skip=lambda path, reason: say(errors, f"skipped {one_line(path)}: {reason}"),
    )
    return found[: options.limit]


def _load(options: Segment, report: "_Report") -> tuple[Segmenter, dict[str, Any]]:
    """Load the networks; return what the results depend on besides the options."""
    report.loading()
    networks = options.networks
    segmenter = networks.load(devices=options.devices, announce=report.stage)
    with readable_checkpoint():
        circumstances = circumstances_of(
            networks.pair,
            batch_size=options.batch,
            precision=networks.precision,
            device=networks.device,
            with_attention=segmenter.config.discrepancy.needs_affinity,
            with_proxy=segmenter.config.clip.needs_proxy,
        )
    warn_of_padding(options.batch, segmenter.networks.placement.parts)
    return segmenter, circumstances


class _Report:
    """Progress: a bar on a terminal, plain lines elsewhere."""

    def __init__(self, total: int, console: Console):
        self._total, self._console = total, console
        self._bar = bar(console)
        self._task = self._bar.add_task("loading checkpoints", total=total)
        self.count = 0
        self.runs: list[tuple[Timing, ...]] = []
        self.failures: list[DsloError] = []

    def __enter__(self) -> "_Report":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def loading(self) -> None:
        """Show that the networks are loaded, or downloaded before."""
        self._line("loading checkpoints")

    def stage(self, stage: str, compiles: bool) -> None:
        """Show that a stage begins."""
        words = f"compiling {stage} (once per shape)" if compiles else stage
        if compiles:
            self._line(words)
        self._bar.update(self._task, description=words)

    def begin(self, known: int) -> None:
        """Show how many photos an earlier run has finished."""
        if known:
            words = f"{known} of {self._total} photos are done by an earlier run"
            say(self._console, f"{words}; --overwrite does them again")
        self.count = known
        self.progress(known, self._total)

    def progress(self, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` photos are done."""
        self._bar.update(self._task, completed=done)

    def event(self, event: Event) -> None:
        """Print what became of a photo."""
        self.count += 1
        if isinstance(event, Failed):
            self.failures.append(event.error)
            say(self._console, f"error: {one_line(event.place.origin)}: {event.error}")
            return
        self.runs.append(event.result.timings)
        shares = sorted(event.result.reports, key=lambda report: -report.area)
        words = ", ".join(f"{r.name} {r.area:.1%}" for r in shares if r.area > 0)
        lost = [r.name for r in shares if r.area == 0]
        if lost:
            few = len(lost) <= _NAMED
            words += f"; not found: {', '.join(lost) if few else f'{len(lost)} others'}"
        where = f"{one_line(event.place.origin)} -> {one_line(event.folder)}"
        say(results(), f"{where}: {words}")
        for note in event.result.notes:
            say(self._console, f"  note: {note}")

    def _line(self, words: str) -> None:
        if not self._console.is_terminal:
            say(self._console, f"[{self.count}/{self._total}] {words}")


def _kinds(write: str) -> tuple[str, ...]:
    """The kinds of files of ``--write``.

    Raises:
        OptionError: A kind is unknown, or there is none (``O03``).
    """
    return tuple(outputs.chosen_files([kind.strip() for kind in write.split(",")]))


def _print_times(runs: Sequence[tuple[Timing, ...]]) -> None:
    """Print the median seconds per stage, without compilation.

    The stages of the networks and of the solver are those of the whole batch.
    """
    stages: dict[str, list[Timing]] = {}
    for run in runs:
        for timing in run:
            stages.setdefault(timing.stage, []).append(timing)
    table = Table("stage", "median seconds", "compiling, once", box=None)
    for stage, timings in stages.items():
        once = sum(timing.compile_seconds for timing in timings)
        median = statistics.median(timing.seconds for timing in timings)
        table.add_row(stage, f"{median:.3f}", f"{once:.2f}" if once else "")
    if runs:
        results(soft_wrap=False).print(table)
