"""A sweep over a data set, resumable: what the journal lacks is measured.

Photos are read in threads ahead of the device. Which of them share a batch depends on
their places in the data set alone, and neither on what the journal holds nor on which
photos can be read. So a run that was interrupted, and a run over some of the batches,
measure what one undisturbed run measures.
"""

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from functools import partial
from itertools import chain, groupby
from typing import NamedTuple

import numpy as np

from dslo_jax.errors import DsloError, SolverError, attempt
from dslo_jax.evaluation.datasets.samples import Sample, SampleSet
from dslo_jax.evaluation.sweeps.cells import Cell
from dslo_jax.evaluation.sweeps.records import sparse
from dslo_jax.evaluation.sweeps.sweep import Measurement, Sweep
from dslo_jax.runs.journal import PHOTO, Journal, Key, Record
from dslo_jax.threads import batched, map_ahead


Watch = Callable[[int, int], None]
"""Called with the photos done so far and the photos in all."""

Inspect = Callable[[Cell, Sample, np.ndarray], Record]
"""Called with every label map before its batch is noted; what it returns joins the
record."""

OnSkip = Callable[[str, DsloError], None]
"""Called with the name of a photo that cannot be read, and why."""


class Spent(NamedTuple):
    """Where the time of a run went.

    Attributes:
        photos: Photos measured by this run, those of the journal left out.
        reading: Seconds that the device waited for photos.
        measuring: Seconds of the sweep, compilation included.
        writing: Seconds of ``inspect`` and of the journal.
    """

    photos: int = 0
    reading: float = 0.0
    measuring: float = 0.0
    writing: float = 0.0


def run(
    sweep: Sweep,
    samples: SampleSet,
    journal: Journal,
    *,
    inspect: Inspect | None = None,
    watch: Watch | None = None,
    on_skip: OnSkip | None = None,
    strict: bool = False,
) -> Spent:
    """Measure what the journal lacks.

    A photo that cannot be read is noted in the journal, and its place in its batch
    stays empty. The next run tries it again, after all others.

    Args:
        sweep: The cells.
        samples: The photos.
        journal: Gets a line per batch, and one per photo that cannot be read.
        inspect: Sees the labels of all cells.
        watch: Told of the progress.
        on_skip: Told of photos that cannot be read.
        strict: Stop at the first photo that cannot be read.

    Returns:
        Where the time went.

    Raises:
        DsloError: A photo cannot be read, when ``strict``.
        OutputError: The journal cannot be written; what it held is kept.
        DeviceError: The device has too little memory.
    """
    return _Run(sweep, samples, journal, inspect, watch, on_skip, strict).finish()


class _Item(NamedTuple):
    """A photo in its place among the others; not read if nothing of it is missing."""

    index: int
    sample: Sample | None


class _Run:
    def __init__(
        self,
        sweep: Sweep,
        samples: SampleSet,
        journal: Journal,
        inspect: Inspect | None,
        watch: Watch | None,
        on_skip: OnSkip | None,
        strict: bool,
    ):
        self._sweep, self._samples, self._journal = sweep, samples, journal
        self._inspect, self._watch, self._on_skip = inspect, watch, on_skip
        self._strict = strict
        self._names = samples.names
        self._done = 0

    def finish(self) -> Spent:
        spent = Spent()
        skipped_before = [
            "error" in self._journal.records.get((PHOTO, name), {})
            for name in self._names
        ]
        first = [i for i, skipped in enumerate(skipped_before) if not skipped]
        again = [i for i, skipped in enumerate(skipped_before) if skipped]
        ready = time.perf_counter()
        with closing(self._items(first)) as items, closing(self._items(again)) as more:
            size = self._sweep.batch_size
            of_places = groupby(items, lambda item: item.index // size)
            batches = (list(batch) for _, batch in of_places)
            for batch in chain(batches, batched(more, size)):
                start = time.perf_counter()
                spent = spent._replace(reading=spent.reading + start - ready)
                spent = self._measure(batch, spent)
                self._advance(len(batch))
                ready = time.perf_counter()
        return spent._replace(reading=spent.reading + time.perf_counter() - ready)

    def _items(self, indices: Sequence[int]) -> Generator[_Item, None, None]:
        """Photos in order, read if something of them is missing."""
        known = {index for index in indices if self._is_known(self._names[index])}
        unknown = [index for index in indices if index not in known]
        ahead = 2 * self._sweep.batch_size
        reading = partial(attempt, self._samples.read)
        with closing(map_ahead(reading, unknown, threads=4, ahead=ahead)) as read:
            for index in indices:
                if index in known:
                    yield _Item(index, None)
                    continue
                sample = next(read)
                if isinstance(sample, DsloError):
                    self._skip(self._names[index], sample)
                else:
                    yield _Item(index, sample)

    def _is_known(self, name: str) -> bool:
        """Whether every cell has measured a photo."""
        records = self._journal.records
        return all((cell.key, name) in records for cell in self._sweep.cells)

    def _measure(self, batch: Sequence[_Item], spent: Spent) -> Spent:
        missing = [
            cell
            for cell in self._sweep.cells
            if any(
                (cell.key, self._names[item.index]) not in self._journal.records
                for item in batch
            )
        ]
        if not missing:
            return spent
        samples = [item.sample or self._samples.read(item.index) for item in batch]
        start = time.perf_counter()
        measured = self._sweep.measure(samples, missing)
        between = time.perf_counter()
        records: dict[Key, Record] = {}
        for cell, found in measured.items():
            records |= self._records(cell, samples, found)
        self._journal.append(records)
        end = time.perf_counter()
        return spent._replace(
            photos=spent.photos + len(batch),
            measuring=spent.measuring + between - start,
            writing=spent.writing + end - between,
        )

    def _records(
        self,
        cell: Cell,
        samples: Sequence[Sample],
        found: list[Measurement] | SolverError,
    ) -> dict[Key, Record]:
        if isinstance(found, SolverError):
            return {(cell.key, s.name): {"error": str(found)} for s in samples}
        records = {}
        for sample, measurement in zip(samples, found, strict=True):
            record = _record(measurement)
            if self._inspect is not None:
                record |= self._inspect(cell, sample, measurement.labels)
            records[cell.key, sample.name] = record
        return records

    def _skip(self, name: str, error: DsloError) -> None:
        if self._strict:
            raise error
        record = {"error": str(error)}
        if self._journal.records.get((PHOTO, name)) != record:
            self._journal.append({(PHOTO, name): record})
        if self._on_skip is not None:
            self._on_skip(name, error)
        self._advance(1)

    def _advance(self, count: int) -> None:
        self._done += count
        if self._watch is not None:
            self._watch(self._done, len(self._names))


def _record(measurement: Measurement) -> Record:
    """A measurement as plain values; of the confusion only what is not zero."""
    record = measurement._asdict() | {"seconds": round(measurement.seconds, 6)}
    if measurement.logits_seconds is None:
        del record["logits_seconds"]
    else:
        record["logits_seconds"] = round(measurement.logits_seconds, 6)
    del record["confusion"], record["labels"]
    if measurement.unsure is None:  # as in journals before there was a threshold
        del record["unsure"]
    return {"counts": sparse(measurement.confusion.counts), **record}
