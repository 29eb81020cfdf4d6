"""An evaluation: a sweep with one cell per mode, and the files that come of it."""

import time
from collections.abc import Callable, Iterator, Mapping
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
from dslo_jax.evaluation.sweeps.journal import Journal, Record
from dslo_jax.evaluation.sweeps.label_maps import LabelMaps
from dslo_jax.evaluation.sweeps.records import boundaries
from dslo_jax.evaluation.sweeps.run import OnSkip, Watch, run
from dslo_jax.evaluation.sweeps.sweep import Sweep
from dslo_jax.files import write_json, write_text


JOURNAL, LABELS = "journal.jsonl", "labels"
"""Names inside the folder of an evaluation."""

_EXAMPLES = 3  # at either end: the worst and the best

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
    save_labels: bool = False,
    watch: Watch | None = None,
    on_skip: OnSkip | None = None,
    strict: bool = False,
) -> dict[str, Any]:
    """Measure what is missing, and write the result.

    However often this is interrupted and called again, it ends in the same bytes of
    ``metrics.json``; times are in ``timings.json``.

    Args:
        sweep: Of these cells.
        samples: The photos.
        cells: What to measure, by mode.
        journal: Of this evaluation, with a header from ``header_of``.
        out: Gets metrics.json, metrics.md, index.html and timings.json.
        save_labels: Also save every label map, as a PNG below ``out / "labels"``.
        watch: Told of the progress.
        on_skip: Told of photos that cannot be read.
        strict: Stop at the first photo that cannot be read.

    Returns:
        The content of metrics.json.

    Raises:
        OutputError: The disk refuses; what was measured is kept.
        DsloError: A photo cannot be read, when ``strict``.
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
    timings = evaluation_timings(cells, journal.records, samples)
    _write(out, metrics, timings | {"last_run": last_run}, samples, labels_of)
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
    """Score the label maps that an evaluation has saved; no network is needed.

    The result is that of the evaluation, as long as label maps and truth are the same.
    What the solver did, such as dropping a class, is taken from the journal.

    Args:
        samples: The photos with their truth.
        cells: What was measured, by mode.
        journal: Of the evaluation.
        out: Its folder; as for ``evaluate``.
        watch: As for ``evaluate``.
        on_skip: Told of photos whose truth or label maps cannot be read.

    Returns:
        The content of metrics.json.

    Raises:
        OutputError: The disk refuses.
    """
    maps = LabelMaps(out / LABELS, cells, len(samples.classes))
    first = next(iter(cells.values()))
    start = time.perf_counter()
    records = maps.rescore(samples, journal, watch=watch, on_skip=on_skip)
    last_run = {"photos": len(samples), "seconds": time.perf_counter() - start}
    metrics = evaluation_metrics(cells, records, samples, journal.header)
    timings = evaluation_timings(cells, records, samples)
    _write(
        out,
        metrics,
        timings | {"last_run": last_run},
        samples,
        lambda sample: maps.read(first, sample.name),
    )
    return metrics


def _write(
    out: Path,
    metrics: dict[str, Any],
    timings: Mapping[str, Any],
    samples: SampleSet,
    labels_of: LabelsOf,
) -> None:
    """Write the result; the page last, as its examples are read again."""
    try:
        write_json(out / "metrics.json", metrics, indent=1)
        write_json(out / "timings.json", timings, indent=1)
        write_text(out / "metrics.md", evaluation_markdown.render(metrics))
        examples = list(_examples(metrics, samples, labels_of))
        write_text(out / "index.html", evaluation_page.render(metrics, examples))
    except OSError as error:
        kept = "the journal is kept: the same command continues from it"
        raise OutputError.cannot_write(out, error, kept) from error


def _examples(
    metrics: Mapping[str, Any], samples: SampleSet, labels_of: LabelsOf
) -> Iterator[Example]:
    """The worst photos of the first mode, then the best; those that can be read."""
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
            yield Example(
                sample.name, sample.photo.pixels, sample.truth, labels, photo["miou"]
            )
