"""The scenarios of the whole pipeline, with pipelines that only pretend."""

import csv
import io

import numpy as np
import pytest

from dslo_jax.bench.pipeline.photos import choose_classes, draw_photos
from dslo_jax.bench.pipeline.result import table_of_values
from dslo_jax.bench.pipeline.scenarios import (
    BATCHES,
    OFFLINE,
    SINGLE,
    Check,
    agreement_of,
    end_to_end,
    expected_labels,
    pairs_of,
    stage_times,
)
from dslo_jax.bench.pipeline.subjects import OURS, TORCH, Subject
from dslo_jax.bench.timing import Effort
from dslo_jax.errors import OptionError


EFFORT = Effort(repeats=6, seconds=0)
POOL = [np.full((4, 4, 3), number, np.uint8) for number in range(5)]


def subject(name, clock, seconds, *, wrong=()):
    """A pipeline that takes some seconds for a photo, and labels it by its colour."""

    def segment(photos, batch):
        clock.work(seconds * len(photos))
        labels = [photo[:, :, 0].astype(np.int32) for photo in photos]
        return [each + (int(each[0, 0]) in wrong) for each in labels]

    def stages(photos):
        clock.work(seconds * len(photos))
        parts = {"clip": 0.25 * seconds, "unet": 0.75 * seconds}
        return {stage: each * len(photos) for stage, each in parts.items()}

    return Subject(name, segment, stages)


def expected(subjects):
    return {each.name: expected_labels(each, POOL) for each in subjects}


def test_one_photo_at_a_time_gives_latency_and_offline_gives_a_rate(clock):
    ours = subject(OURS, clock, 0.5)
    known = expected([ours])
    (single,) = end_to_end([ours], POOL, known, scenario=SINGLE, batch=1, effort=EFFORT)
    assert single["statistics"]["p50"] == 0.5
    assert single["statistics"]["p99"] is None
    assert single["images_per_s"] == 2.0
    assert single["photos_per_call"] == 1
    (many,) = end_to_end([ours], POOL, known, scenario=OFFLINE, batch=2, effort=EFFORT)
    assert many["photos_per_call"] == 2 * BATCHES == 6
    assert many["median_s"] == 3.0
    assert many["images_per_s"] == 2.0
    assert many["check"]["ok"]
    assert many["check"]["photos"] == 6 * (6 + 1)  # and the first call


def test_a_pipeline_whose_timed_labels_differ_is_found_out(clock):
    ours = subject(OURS, clock, 0.5)
    known = expected([ours])
    cheating = subject(OURS, clock, 0.1, wrong={3})
    (row,) = end_to_end(
        [cheating], POOL, known, scenario=SINGLE, batch=1, effort=EFFORT
    )
    assert row["check"]["agree_px"] == 0.0
    assert not row["check"]["ok"]


def test_what_was_never_compared_is_not_right():
    labels = np.zeros((2, 2), int)
    check = Check({0: labels})
    check.add([4], [labels])
    assert not check.plain["ok"]


def test_two_pipelines_by_turns_are_compared(clock):
    both = [subject(OURS, clock, 0.5), subject(TORCH, clock, 1.0, wrong={4})]
    known = expected(both)
    rows = end_to_end(both, POOL, known, scenario=SINGLE, batch=1, effort=EFFORT)
    rows += stage_times(both, POOL, batch=2, effort=EFFORT)
    pairs = pairs_of(rows, agreement_of(known))
    assert [(p["scenario"], p["stage"], p["images"]) for p in pairs] == [
        (SINGLE, "end to end", 1),
        ("stages", "clip", 2),
        ("stages", "unet", 2),
    ]
    for pair in pairs:
        assert (pair["a"], pair["b"]) == (TORCH, OURS)
        assert pair["ratio"] == pytest.approx(2.0)
        assert pair["interval"] == pytest.approx([2.0, 2.0])
        assert pair["labels_agree_px"] == pytest.approx(0.8)
    unet = next(r for r in rows if r["stage"] == "unet" and r["name"] == OURS)
    assert unet["median_s"] == 0.75


def test_rows_become_lines_of_csv_and_what_is_not_known_stays_empty(clock):
    ours = subject(OURS, clock, 0.5)
    setting = {"mode": "path", "precision": "float32", "affinity_size": 64}
    setting |= {"patches": 64, "classes": 3, "height": 4, "width": 4}
    rows = end_to_end(
        [ours], POOL, expected([ours]), scenario=SINGLE, batch=1, effort=EFFORT
    )
    rows.append(
        {"scenario": OFFLINE, "stage": "end to end", "name": OURS, "images": 2}
        | {"samples_s": [], "images_per_s": None, "oom": True}
    )
    lines = list(
        csv.DictReader(io.StringIO(table_of_values([setting | r for r in rows])))
    )
    assert lines[0]["seconds_p50"] == "0.5"
    assert lines[0]["seconds_p99"] == lines[0]["roofline_bound"] == ""
    assert lines[1]["oom"] == "True"
    assert lines[1]["images_per_s"] == ""


def test_drawn_photos_are_distinct_and_classes_too():
    photos = draw_photos(9, (32, 48))
    assert {photo.shape for photo in photos} == {(32, 48, 3)}
    assert len({photo.tobytes() for photo in photos}) == 9
    assert len(set(choose_classes(171).titles)) == 171
    with pytest.raises(OptionError, match="expected 1 to 200"):
        choose_classes(201)
