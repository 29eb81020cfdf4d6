"""An evaluation: a sweep with one cell for each mode, and its result files."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dslo_jax.config import SegmenterConfig
from dslo_jax.errors import DsloError, OutputError
from dslo_jax.evaluation.datasets.samples import Sample, SampleSet
from dslo_jax.evaluation.reports import evaluation_markdown, evaluation_page
from dslo_jax.evaluation.reports.evaluation_page import Example
from dslo_jax.evaluation.reports.evaluation_result import (
    evaluation_metrics,
    evaluation_timings,
)
from dslo_jax.evaluation.sweeps.cells import Cell
from dslo_jax.evaluation.sweeps.label_maps import LabelMaps
from dslo_jax.evaluation.sweeps.records import boundaries
from dslo_jax.evaluation.sweeps.run import OnSkip, Watch, run
from dslo_jax.evaluation.sweeps.sweep import Sweep
from dslo_jax.files import write_json, write_text
from dslo_jax.runs import WHOLE, Shard
from dslo_jax.runs.journal import Journal, Record


JOURNAL, LABELS, EXAMPLES = "journal.jsonl", "labels", "examples"
"""Names in the folder of an evaluation. The folder of examples has the label maps of
photos that the page may show, from shards that do not save all label maps."""

_EXAMPLES = 3  # number of worst photos, and of best photos

LabelsOf = Callable[[Sample], np.ndarray | None]


def cells_of(config: SegmenterConfig, modes: tuple[str, ...]) -> dict[str, Cell]:
    """One cell per mode."""
    return {mode: Cell(config.with_options(mode=mode)) for mode in modes}


def evaluate(
    sweep: Sweep,
    samples: SampleSet,
    cells: Mapping[str, Cell],
    journal: Journal,
    out: Path,
    *,
    shard: Shard = WHOLE,
    save_labels: bool = False,
    watch: Watch | None = None,
    on_skip: OnSkip | None = None,
    strict: bool = False,
) -> dict[str, Any]:
    """Measure the cells that are not in the journal, and write the results.

    If this is interrupted and called again, any number of times, ``metrics.json`` has
    the same bytes. Times are in ``timings.json``. A shard writes both under names of
    its own, and the label maps that the page of all shards may show.

    Args:
        sweep: Sweep with these cells.
        samples: The photos; of a shard, those from ``shard_samples``.
        cells: The cell of each mode.
        journal: Journal of this evaluation, with a header from ``header_of``.
        out: Folder of metrics.json, metrics.md, index.html and timings.json.
        shard: The part of the photos that is measured.
        save_labels: Whether to save every label map as a PNG in ``out / "labels"``.
        watch: Called with the progress.
        on_skip: Called with photos that cannot be read.
        strict: Whether to stop at the first photo that cannot be read.

    Returns:
        The content of metrics.json.

    Raises:
        OutputError: A file cannot be written; the journal is kept.
        DsloError: A photo cannot be read, and ``strict`` is true.
    """
    num_classes = len(samples.classes)
    maps = LabelMaps(out / LABELS, cells, num_classes)
    if save_labels:
        maps.forget_missing(journal)

    def inspect(cell: Cell, sample: Sample, labels: np.ndarray) -> Record:
        if save_labels:
            maps.save(cell, sample.name, labels)
        return boundaries(sample, labels, num_classes)

    def labels_of(sample: Sample) -> np.ndarray | None:
        if save_labels:
            return maps.read(first, sample.name)
        found = sweep.measure([sample], [first])[first]
        return None if isinstance(found, DsloError) else found[0].labels

    first = next(iter(cells.values()))
    start = time.perf_counter()
    spent = run(
        sweep,
        samples,
        journal,
        inspect=inspect,
        watch=watch,
        on_skip=on_skip,
        strict=strict,
    )
    last_run = spent._asdict() | {"seconds": time.perf_counter() - start}
    metrics = evaluation_metrics(cells, journal.records, samples, journal.header)
    timings = evaluation_timings(cells, journal.records, samples, last_run)
    if shard == WHOLE:
        write_results(out, metrics, timings, samples, labels_of)
        return metrics
    _write_scores(out, metrics, timings, shard)
    if not save_labels:
        examples = LabelMaps(out / EXAMPLES, cells, num_classes)
        for sample, labels, _ in _examples(metrics, samples, labels_of):
            examples.save(first, sample.name, labels)
    return metrics


def rescore(
    samples: SampleSet,
    cells: Mapping[str, Cell],
    journal: Journal,
    out: Path,
    *,
    watch: Watch | None = None,
    on_skip: OnSkip | None = None,
) -> dict[str, Any]:
    """Score the label maps that an evaluation has saved, without networks.

    The result is that of the evaluation if label maps and true labels are the same.
    Numbers about the solver, such as dropped classes, are taken from the journal.

    Args:
        samples: The photos with their true labels.
        cells: The cell of each mode.
        journal: Journal of the evaluation.
        out: Folder of the evaluation; as for ``evaluate``.
        watch: As for ``evaluate``.
        on_skip: Called with photos whose true labels or label maps cannot be read.

    Returns:
        The content of metrics.json.

    Raises:
        OutputError: A file cannot be written.
    """
    maps = LabelMaps(out / LABELS, cells, len(samples.classes))
    first = next(iter(cells.values()))
    start = time.perf_counter()
    records = maps.rescore(samples, journal, watch=watch, on_skip=on_skip)
    last_run = {"photos": len(samples), "seconds": time.perf_counter() - start}
    metrics = evaluation_metrics(cells, records, samples, journal.header)
    timings = evaluation_timings(cells, records, samples, last_run)
    labels_of = partial(_saved, maps, first)
    write_results(out, metrics, timings, samples, labels_of)
    return metrics


def _saved(maps: LabelMaps, cell: Cell, sample: Sample) -> np.ndarray:
    return maps.read(cell, sample.name)


def write_results(
    out: Path,
    metrics: dict[str, Any],
    timings: Mapping[str, Any],
    samples: SampleSet,
    labels_of: LabelsOf,
) -> None:
    """Write the results; the page is last, because its examples are read again.

    Args:
        out: The folder.
        metrics: From ``evaluation_metrics``.
        timings: From ``evaluation_timings``.
        samples: The photos.
        labels_of: Gives the labels of a photo by the first mode; ``None``, or a
            ``DsloError``, if there are none.

    Raises:
        OutputError: A file cannot be written (``O06``).
    """
    _write_scores(out, metrics, timings)
    with _writable(out):
        write_text(out / "metrics.md", evaluation_markdown.render(metrics))
        examples = [
            Example(
                sample.name, sample.photo.pixels, sample.truth, labels, photo["miou"]
            )
            for sample, labels, photo in _examples(metrics, samples, labels_of)
        ]
        write_text(out / "index.html", evaluation_page.render(metrics, examples))


def _write_scores(
    out: Path,
    metrics: dict[str, Any],
    timings: Mapping[str, Any],
    shard: Shard = WHOLE,
) -> None:
    with _writable(out):
        write_json(out / shard.file("metrics.json"), metrics, indent=1)
        write_json(out / shard.file("timings.json"), timings, indent=1)


@contextmanager
def _writable(out: Path) -> Iterator[None]:
    """Turn an error of the system into an ``OutputError``."""
    try:
        yield
    except OSError as error:
        kept = "the journal is kept: the same command continues from it"
        raise OutputError.cannot_write(out, error, kept) from error


def _examples(
    metrics: Mapping[str, Any], samples: SampleSet, labels_of: LabelsOf
) -> Iterator[tuple[Sample, np.ndarray, Record]]:
    """The worst and the best photos of the first mode, as far as they can be read.

    The worst of all photos are among the worst of each shard, and so are the best.
    """
    photos = next(iter(metrics["results"].values()))["photos"]
    ranked = sorted(
        (photo for photo in photos if photo["miou"] is not None),
        key=lambda photo: photo["miou"],
    )
    worst, rest = ranked[:_EXAMPLES], ranked[_EXAMPLES:]
    index_of = {name: index for index, name in enumerate(samples.names)}
    for photo in [*worst, *rest[-_EXAMPLES:]]:
        try:
            sample = samples.read(index_of[photo["name"]])
            labels = labels_of(sample)
        except DsloError:
            continue
        if labels is not None:
            yield sample, labels, photo
