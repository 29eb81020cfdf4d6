"""An evaluation by several processes, each on its part of the photos, and their sum."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dslo_jax.errors import OptionError
from dslo_jax.evaluation.datasets.samples import Part, Sample, SampleSet
from dslo_jax.evaluation.evaluator import EXAMPLES, JOURNAL, LABELS, write_results
from dslo_jax.evaluation.reports.evaluation_result import (
    evaluation_metrics,
    evaluation_timings,
)
from dslo_jax.evaluation.sweeps.cells import Cell
from dslo_jax.evaluation.sweeps.label_maps import LabelMaps
from dslo_jax.evaluation.sweeps.records import Completeness
from dslo_jax.runs import PHOTO, Journal, Shard, only_run


_OF_SHARD = re.compile(r"journal-(\d+)of(\d+)\.jsonl")


def shard_samples(samples: SampleSet, shard: Shard, batch_size: int) -> Part:
    """The photos of a shard: every ``shard.count``-th batch.

    Args:
        samples: All photos.
        shard: The shard.
        batch_size: Photos at once on the device.
    """
    return Part(samples, shard.part_of(range(len(samples)), batch_size))


def merge(
    samples: SampleSet,
    cells: Mapping[str, Cell],
    header: Mapping[str, Any],
    out: Path,
) -> dict[str, Any]:
    """Add up the counts of all shards, and write the results as one evaluation does.

    The counts are integers in the journals of the shards, so ``metrics.json`` has the
    bytes that an evaluation without shards writes. The journal of the whole is written
    too: the folder is then that of an evaluation without shards.

    Args:
        samples: All photos.
        cells: The cell of each mode.
        header: From ``header_of``, without circumstances.
        out: Folder with the files of all shards.

    Returns:
        The content of metrics.json.

    Raises:
        OptionError: There is no shard, or a shard or a photo of it is missing
            (``O05``); the shards do not belong together (``O04``); or one of them is
            running (``O08``).
        OutputError: A file cannot be written (``O06``).
    """
    shards = _shards(out)
    with _locked(out, shards):
        journals = _journals(out, shards, header)
        for shard, journal in journals.items():
            part = shard_samples(samples, shard, _batch_size(journal, samples))
            _check_finished(shard, journal, part, cells)
        whole = _whole(out, journals)
    metrics = evaluation_metrics(cells, whole.records, samples, whole.header)
    last_run = {"shards": len(shards)}
    timings = evaluation_timings(cells, whole.records, samples, last_run)
    first = next(iter(cells.values()))
    folders = [
        LabelMaps(out / name, cells, len(samples.classes))
        for name in (LABELS, EXAMPLES)
    ]

    def labels_of(sample: Sample) -> np.ndarray:
        saved, examples = folders
        is_saved = saved.path(first, sample.name).is_file()
        return (saved if is_saved else examples).read(first, sample.name)

    write_results(out, metrics, timings, samples, labels_of)
    return metrics


def _shards(out: Path) -> list[Shard]:
    """All shards, each of which has a journal in the folder."""
    files = [path.name for path in out.iterdir()] if out.is_dir() else []
    matches = [match for name in files if (match := _OF_SHARD.fullmatch(name))]
    found = {Shard(int(match[1]), int(match[2])) for match in matches}
    counts = sorted({shard.count for shard in found})
    if not counts:
        raise OptionError(
            "O05",
            f"no journals of shards in {str(out)!r}; measure them with --shard 0/4, "
            "--shard 1/4 and so on, and the same --out",
        )
    if len(counts) > 1:
        raise OptionError(
            "O04",
            f"{str(out)!r} has shards of divisions into {_listed(counts)} parts: "
            f"{_listed(shard.label for shard in sorted(found))}; remove the "
            f"{JOURNAL} files of all divisions but one",
        )
    (count,) = counts
    shards = [Shard(index, count) for index in range(count)]
    missing = [shard for shard in shards if shard not in found]
    if missing:
        raise OptionError(
            "O05",
            f"{str(out)!r} lacks {len(missing)} of {count} shards: "
            f"{_listed(shard.label for shard in missing)}; measure them with --shard, "
            "or copy their files into this folder",
        )
    return shards


@contextmanager
def _locked(out: Path, shards: Sequence[Shard]) -> Iterator[None]:
    """Keep all shards from running: the end of a journal that grows may be torn."""
    with ExitStack() as locks:
        for shard in shards:
            locks.enter_context(only_run(out, shard.suffix))
        yield


def _journals(
    out: Path, shards: Sequence[Shard], header: Mapping[str, Any]
) -> dict[Shard, Journal]:
    """The journals of all shards, which have the same header but for the shard."""
    journals: dict[Shard, Journal] = {}
    for shard in shards:
        same = "as in this command"
        if journals:
            same = f"as in shard {shards[0].label}"
            header = journals[shards[0]].header
        journals[shard] = Journal(
            out / shard.file(JOURNAL),
            {**header, "shard": shard.label},
            remedy=f"{same}; only shards of one evaluation, each of them once, can be "
            "merged: remove this journal and measure the shard again",
        )
    return journals


def _batch_size(journal: Journal, samples: SampleSet) -> int:
    return min(journal.header["batch_size"], len(samples))


def _check_finished(
    shard: Shard, journal: Journal, part: Part, cells: Mapping[str, Cell]
) -> None:
    """Refuse a shard that has not measured, or tried to read, all its photos."""
    keys = [cell.key for cell in cells.values()]
    scored = set(Completeness.of(journal.records, keys, part.names).scored)
    missing = [
        name
        for name in part.names
        if name not in scored and (PHOTO, name) not in journal.records
    ]
    if missing:
        raise OptionError(
            "O05",
            f"shard {shard.label} has not measured {len(missing)} of its {len(part)} "
            f"photos with {' and '.join(cells)} yet, such as {missing[0]!r}; finish "
            f"it with --shard {shard.label}, then merge again",
        )


def _whole(out: Path, journals: Mapping[Shard, Journal]) -> Journal:
    """The journal of all shards, on the disk."""
    header = dict(next(iter(journals.values())).header)
    del header["shard"]
    whole = Journal(out / JOURNAL, header)
    for journal in journals.values():
        if new := {
            key: record
            for key, record in journal.records.items()
            if whole.records.get(key) != record
        }:
            whole.append(new)
    return whole


def _listed(items: Any) -> str:
    return ", ".join(map(str, items))
