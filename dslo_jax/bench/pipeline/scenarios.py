"""The scenarios: photos one at a time, photos in batches, and stage by stage."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Integer

from dslo_jax.bench.compare import paired_ratio
from dslo_jax.bench.memory import host_peak, reset_host_peak
from dslo_jax.bench.pipeline.subjects import OURS, Labels, Photos, Subject
from dslo_jax.bench.timing import Effort, Measurement, measure


SINGLE, OFFLINE, STAGES, FILES = "SingleStream", "Offline", "stages", "files"
SCENARIOS = (SINGLE, OFFLINE, STAGES, FILES)
END_TO_END = "end to end"

BATCHES = 3
"""Batches of a call of the scenario Offline: while the labels of one are made, the
networks run on the next."""

AGREE = 0.99
"""Least share of the pixels of a timed result that must equal those of an untimed run.
Batches of other sizes may run other programs, which round differently."""

_SUBJECT = ("scenario", "stage", "images")


class Setting(NamedTuple):
    """Everything that is swept but the size of a batch.

    Attributes:
        mode: Name of the discrepancy.
        precision: Precision of the networks.
        affinity_size: Side of the photo for the source of affinities, in pixels.
        patches: Number of patches of its grid.
        classes: Number of classes.
        height: Rows of a photo in pixels; of the first one, if they differ.
        width: Columns of a photo in pixels.
    """

    mode: str
    precision: str
    affinity_size: int
    patches: int
    classes: int
    height: int
    width: int


class Check:
    """Compares timed results with those of an untimed run.

    Args:
        expected: Labels of some photos, by their number in the pool.
    """

    def __init__(self, expected: Mapping[int, Integer[np.ndarray, "_ _"]]):
        self._expected = expected
        self._worst, self._photos = 1.0, 0

    def add(self, numbers: Sequence[int], labels: Labels) -> None:
        """Compare the results of a call."""
        for number, found in zip(numbers, labels, strict=True):
            if number in self._expected:
                share = float(np.mean(found == self._expected[number]))
                self._worst = min(self._worst, share)
                self._photos += 1

    @property
    def plain(self) -> dict[str, Any]:
        """The outcome as plain values, for result files."""
        return {
            "reference": "untimed run of the same pipeline, one photo at a time",
            "photos": self._photos,
            "agree_px": self._worst,
            "ok": self._photos > 0 and self._worst >= AGREE,
        }


def expected_labels(
    subject: Subject, photos: Photos
) -> dict[int, Integer[np.ndarray, "_ _"]]:
    """Labels by the numbers of the photos: untimed, one photo at a time."""
    return {number: subject.segment([p], 1)[0] for number, p in enumerate(photos)}


def end_to_end(
    subjects: Sequence[Subject],
    pool: Photos,
    expected: Mapping[str, Mapping[int, np.ndarray]],
    *,
    scenario: str,
    batch: int,
    effort: Effort,
) -> list[dict[str, Any]]:
    """Time from photos on the host to labels on the host, the subjects by turns.

    Each call gets the next photos of the pool.

    Args:
        subjects: The pipelines, which have compiled their programs.
        pool: Distinct photos.
        expected: From ``expected_labels``, by the name of the subject.
        scenario: ``SINGLE`` or ``OFFLINE``.
        batch: Photos at once on the device.
        effort: How long the calls are timed.

    Returns:
        A row for each subject.
    """
    checks = {each.name: Check(expected[each.name]) for each in subjects}
    photos = batch if scenario == SINGLE else batch * BATCHES

    def caller(subject: Subject) -> Callable[[], tuple[list[int], Labels]]:
        numbers = itertools.cycle(range(len(pool)))

        def call() -> tuple[list[int], Labels]:
            chosen = list(itertools.islice(numbers, photos))
            return chosen, subject.segment([pool[each] for each in chosen], batch)

        return call

    is_fresh = reset_host_peak()
    found = measure(
        {each.name: caller(each) for each in subjects},
        effort,
        lambda name, result: checks[name].add(*result),
    )
    memory = {"host_peak_bytes": host_peak() if is_fresh else None}
    return [
        {
            "scenario": scenario,
            "stage": END_TO_END,
            "name": name,
            "images": batch,
            "photos_per_call": photos,
            "distinct_photos": len(pool),
            **each.row,
            "images_per_s": photos * len(each.samples_s) / sum(each.samples_s),
            "check": checks[name].plain,
            "memory": {**memory, "alone": len(subjects) == 1},
            "oom": False,
        }
        for name, each in found.items()
    ]


def stage_times(
    subjects: Sequence[Subject], pool: Photos, *, batch: int, effort: Effort
) -> list[dict[str, Any]]:
    """Time every stage of a batch, waiting after each, the subjects by turns.

    Returns:
        A row for each subject and stage.
    """
    samples: dict[str, list[dict[str, float]]] = {each.name: [] for each in subjects}

    def caller(subject: Subject) -> Callable[[], dict[str, float]]:
        numbers = itertools.cycle(range(len(pool)))
        return lambda: subject.stages(
            [pool[each] for each in itertools.islice(numbers, batch)]
        )

    found = measure(
        {each.name: caller(each) for each in subjects},
        effort,
        lambda name, seconds: samples[name].append(seconds),
    )
    return [
        row
        for name, each in found.items()
        for row in _stage_rows(name, batch, each, samples[name])
    ]


def _stage_rows(
    name: str, batch: int, found: Measurement, samples: Sequence[Mapping[str, float]]
) -> list[dict[str, Any]]:
    # The first call does not count, unless it is the only one.
    counted = samples[1:] or samples
    rows = []
    for stage in dict.fromkeys(stage for each in counted for stage in each):
        times = [each.get(stage, 0.0) for each in counted]
        if not any(times):
            continue
        part = found._replace(samples_s=times, first_call_s=samples[0].get(stage, 0.0))
        rows.append(
            {
                "scenario": STAGES,
                "stage": stage,
                "name": name,
                "images": batch,
                **part.row,
                "oom": False,
            }
        )
    return rows


def pairs_of(
    rows: Sequence[Mapping[str, Any]], agreement: float | None
) -> list[dict[str, Any]]:
    """Compare each row with ours of the same scenario, stage and batch.

    Args:
        rows: Rows of one setting.
        agreement: Share of the pixels with equal labels, of both pipelines.

    Returns:
        For each pair the ratio of the times, other / ours, with its interval.
    """
    ours = {_subject_of(row): row for row in rows if row["name"] == OURS}
    pairs = []
    for row in rows:
        mine = ours.get(_subject_of(row))
        if row["name"] == OURS or mine is None or row["oom"] or mine["oom"]:
            continue
        if not all(map(all, (row["samples_s"], mine["samples_s"]))):
            continue  # a stage that took no time that can be measured
        pairs.append(
            {
                **{key: row[key] for key in _SUBJECT},
                "a": row["name"],
                "b": OURS,
                **paired_ratio(row["samples_s"], mine["samples_s"]).plain(),
                "labels_agree_px": agreement,
            }
        )
    return pairs


def _subject_of(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[key] for key in _SUBJECT)


def agreement_of(
    expected: Mapping[str, Mapping[int, np.ndarray]],
) -> float | None:
    """Share of the pixels in which two pipelines agree, over all photos compared."""
    if len(expected) < 2:
        return None
    one, other = (each for each in expected.values())
    return float(np.mean([np.mean(one[number] == other[number]) for number in one]))
