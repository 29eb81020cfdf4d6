"""Evaluations that are disturbed in every way; no network, see ``stub_sweep``."""

import errno
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from stub_sweep import (
    CELLS,
    CIRCUMSTANCES,
    CONFIG,
    StubSet,
    StubSweep,
    evaluate_stub,
    open_journal,
)

from dslo_jax import outputs
from dslo_jax.errors import ImageError, OptionError, OutputError
from dslo_jax.evaluation import Confusion, Journal, rescore
from dslo_jax.evaluation.metrics.boundary import BoundaryCounts, boundary_counts
from dslo_jax.evaluation.reports import evaluation_page
from dslo_jax.evaluation.sweeps.manifest import header_of


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Folder of a finished evaluation of 7 photos, and its metrics."""
    out = tmp_path_factory.mktemp("undisturbed")
    return out, evaluate_stub(out, StubSet(7), save_labels=True)


def test_metrics_are_those_of_the_saved_label_maps(undisturbed):
    """An independent sum: over the files, photo by photo."""
    out, content = undisturbed
    found = json.loads(content)
    assert found["schema"] == "dslo.evaluation.v1"
    assert (found["status"], found["expected"], found["scored"]) == ("COMPLETE", 7, 7)
    assert found["skipped"] == []
    assert list(found["results"]) == ["velocity", "path"]
    samples = StubSet(7)
    for mode, result in found["results"].items():
        total, edges = Confusion.empty(3), BoundaryCounts.empty(3)
        for index, name in enumerate(samples.names):
            truth = samples.read(index).truth
            labels = outputs.read_labels(out / "labels" / mode / f"{name}.png")
            photo = Confusion.of(truth, labels, 3)
            total += photo
            edges += boundary_counts(truth, labels, 3)
            assert result["photos"][index]["name"] == name
            assert result["photos"][index]["miou"] == photo.mean_iou
            assert result["photos"][index]["pixel_accuracy"] == photo.pixel_accuracy
        assert result["config"]["mode"] == mode
        assert result["miou"] == total.mean_iou
        assert result["pixel_accuracy"] == total.pixel_accuracy
        assert result["mean_accuracy"] == total.mean_accuracy
        assert result["weighted_iou"] == total.weighted_iou
        assert result["boundary_iou"] == edges.mean_iou
        assert result["iou"] == dict(
            zip(("cat", "dog", "sky"), total.iou.tolist(), strict=True)
        )
        counts = np.zeros((3, 3), int)
        for true, given, count in result["confusion"]:
            counts[true, given] = count
        np.testing.assert_array_equal(counts, total.counts)


def test_times_are_in_a_file_of_their_own(undisturbed):
    out, content = undisturbed
    assert b"seconds" not in content
    timings = json.loads((out / "timings.json").read_text())
    assert len(timings["solver_and_labels"]["path"]["photos"]) == 7
    assert timings["last_run"]["photos"] == 7


def test_reports_for_people(undisturbed):
    out, content = undisturbed
    found = json.loads(content)
    text = (out / "metrics.md").read_text()
    assert "stub: 7 of 7 photos" in text
    assert f"| cat | {100 * found['results']['velocity']['iou']['cat']:.2f}" in text
    page = (out / "index.html").read_text()
    ranked = sorted(found["results"]["velocity"]["photos"], key=lambda p: p["miou"])
    for photo in ranked[:3] + ranked[-3:]:
        assert photo["name"] in page


def test_a_photo_too_few_for_three_worst_and_three_best(tmp_path):
    for count in (1, 4):
        evaluate_stub(tmp_path / str(count), StubSet(count))
        assert (tmp_path / str(count) / "index.html").is_file()


def test_the_journal_does_not_choose_the_batches(undisturbed, tmp_path):
    """Interrupted after any batch, the rest is measured in the batches it would be."""
    _, expected = undisturbed
    whole = [("photo 000", "photo 001"), ("photo 002", "photo 003")]
    whole += [("photo 004", "photo 005"), ("photo 006",)]
    sweep = StubSweep()
    assert evaluate_stub(tmp_path / "whole", StubSet(7), sweep) == expected
    assert sweep.batches[:4] == whole
    for stop in range(1, 4):
        out, done = tmp_path / str(stop), itertools.count(1)

        def interrupt(*_, stop=stop, done=done):
            if next(done) == stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            evaluate_stub(out, StubSet(7), watch=interrupt)
        sweep, samples = StubSweep(), StubSet(7)
        assert evaluate_stub(out, samples, sweep) == expected
        rest = whole[stop:]
        assert sweep.batches[: len(rest)] == rest
        # Nothing is read that has been measured, but for the examples of the page.
        read = samples.read_names[: sum(map(len, rest))]
        assert set(read) == set(itertools.chain(*rest))


# ------------------------------------------------------------------ bad photos


def test_a_photo_that_cannot_be_read_is_left_out_and_told(tmp_path):
    skipped, seen = [], []
    content = evaluate_stub(
        tmp_path,
        StubSet(5, broken=["photo 001"]),
        on_skip=lambda name, error: skipped.append((name, error.code)),
        watch=lambda *each: seen.append(each),
    )
    found = json.loads(content)
    assert skipped == [("photo 001", "I03")]
    assert seen[-1] == (5, 5)
    assert (found["status"], found["scored"]) == ("PARTIAL", 4)
    assert found["skipped"] == [
        {"name": "photo 001", "reason": "[I03] photo 001 is damaged"}
    ]
    assert (
        "photo 001: \\[I03\\] photo 001 is damaged"
        in (tmp_path / "metrics.md").read_text()
    )
    lines = (tmp_path / "journal.jsonl").read_bytes().count(b"\n")
    assert evaluate_stub(tmp_path, StubSet(5, broken=["photo 001"])) == content
    assert (tmp_path / "journal.jsonl").read_bytes().count(b"\n") == lines


def test_a_photo_that_can_be_read_again_joins_at_the_end(tmp_path):
    evaluate_stub(tmp_path, StubSet(5, broken=["photo 001"]))
    sweep = StubSweep()
    found = json.loads(evaluate_stub(tmp_path, StubSet(5), sweep))
    assert found["status"] == "COMPLETE"
    assert sweep.batches[0] == ("photo 001",)
    settled, samples = StubSweep(), StubSet(5)
    evaluate_stub(tmp_path, samples, settled, on_skip=None)
    assert len(settled.batches) == 5  # the examples of the page, and nothing else


def test_strict_stops_at_the_first(tmp_path):
    with pytest.raises(ImageError, match="photo 001 is damaged"):
        evaluate_stub(tmp_path, StubSet(5, broken=["photo 001"]), strict=True)
    assert not (tmp_path / "metrics.json").exists()


def test_a_system_error_while_reading_is_a_photo_that_cannot_be_read(tmp_path):
    class Faulty(StubSet):
        def read(self, index):
            if index == 2:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return super().read(index)

    found = json.loads(evaluate_stub(tmp_path, Faulty(4)))
    assert os.strerror(errno.EIO) in found["skipped"][0]["reason"]


def test_a_fault_of_ours_is_none_of_the_photo(tmp_path):
    class Faulty(StubSet):
        def read(self, index):
            raise KeyError(index)

    with pytest.raises(KeyError):
        evaluate_stub(tmp_path, Faulty(4))


def test_nothing_can_be_read(tmp_path):
    found = json.loads(evaluate_stub(tmp_path, StubSet(2, broken=StubSet(2).names)))
    assert (found["status"], found["scored"]) == ("PARTIAL", 0)
    assert found["results"]["path"]["miou"] is None


# ------------------------------------------------------------------ saved labels


def rescored(out, samples):
    header = header_of(samples, CONFIG, {})
    rescore(samples, CELLS, Journal(out / "journal.jsonl", header), out)
    return (out / "metrics.json").read_bytes()


def test_scoring_saved_labels_gives_the_same(tmp_path):
    samples = StubSet(5, broken=["photo 001"])
    content = evaluate_stub(tmp_path, samples, save_labels=True)
    (tmp_path / "metrics.json").unlink()
    assert rescored(tmp_path, samples) == content


def test_a_label_map_that_is_gone_or_does_not_fit(tmp_path):
    evaluate_stub(tmp_path, StubSet(5), save_labels=True)
    (tmp_path / "labels" / "path" / "photo 001.png").unlink()
    other = np.zeros((3, 3), np.int32)
    outputs.save_labels(tmp_path / "labels" / "path" / "photo 003.png", other, 3)
    found = json.loads(rescored(tmp_path, StubSet(5)))
    assert found["status"] == "PARTIAL"
    reasons = {each["name"]: each["reason"] for each in found["skipped"]}
    assert "[I01]" in reasons["photo 001"]
    assert "[I09]" in reasons["photo 003"]


def test_a_label_map_that_is_gone_is_measured_again(tmp_path):
    content = evaluate_stub(tmp_path, StubSet(5), save_labels=True)
    gone = tmp_path / "labels" / "path" / "photo 001.png"
    before = gone.read_bytes()
    gone.unlink()
    sweep = StubSweep()
    assert evaluate_stub(tmp_path, StubSet(5), sweep, save_labels=True) == content
    assert len(sweep.batches) == 1
    assert gone.read_bytes() == before


# ------------------------------------------------------------------ bad disks


def full_disk(monkeypatch, at, *, half=False):
    """Let the write, flush or rename number ``at`` from here on fail; how many came."""
    steps = itertools.count()
    write, fsync, replace = os.write, os.fsync, Path.replace
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def failing_write(file, content):
        if next(steps) == at:
            if half:
                write(file, content[: len(content) // 2])
            raise full
        return write(file, content[:100])  # a short write, which is no error

    def failing_fsync(file):
        if next(steps) == at:
            raise full
        fsync(file)

    def failing_replace(self, target):
        if next(steps) == at:
            raise full
        return replace(self, target)

    monkeypatch.setattr(os, "write", failing_write)
    monkeypatch.setattr(os, "fsync", failing_fsync)
    monkeypatch.setattr(Path, "replace", failing_replace)


def failure_of(out):
    try:
        evaluate_stub(out, StubSet(3), save_labels=True)
    except OutputError as error:
        return error
    return None


@pytest.mark.slow
def test_a_full_disk_at_any_step_loses_nothing_of_before(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation_page, "render", lambda *_: "page")  # slow to draw
    expected = evaluate_stub(tmp_path / "expected", StubSet(3), save_labels=True)
    for at in itertools.count():
        out = tmp_path / str(at)
        with monkeypatch.context() as patch:
            full_disk(patch, at, half=at % 2 == 0)
            error = failure_of(out)
        if error is None:
            break  # fewer steps than that
        assert "O06" in str(error)
        assert os.strerror(errno.ENOSPC) in str(error)
        noted = 0
        if (out / "journal.jsonl").exists():
            noted = len(open_journal(out, StubSet(3)).records)
        sweep = StubSweep()
        assert evaluate_stub(out, StubSet(3), sweep, save_labels=True) == expected
        assert noted in (0, 4, 6)  # two photos, then one, with two modes
        assert not list(out.rglob(".*.part"))
    assert at > 30


# ------------------------------------------------------------------ other runs


def test_other_circumstances_are_refused_and_all_differences_named(tmp_path):
    evaluate_stub(tmp_path, StubSet(3))
    changed = CIRCUMSTANCES | {"batch_size": 4, "versions": {"jax": "3"}}
    with pytest.raises(OptionError) as caught:
        Journal(tmp_path / "journal.jsonl", header_of(StubSet(4), CONFIG, changed))
    message = str(caught.value)
    assert "batch_size = 2, now it is 4" in message
    assert "versions.jax = '1', now it is '3'" in message
    assert "versions.dslo-jax = '2', now it is not set" in message
    assert "dataset.photos = 3, now it is 4" in message
    assert "names = " in message


def kill(folder, kills, seed):
    script = Path(__file__).with_name("killed_evaluation.py")
    command = [sys.executable, str(script), str(folder), str(kills), str(seed)]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return json.loads(finished.stdout)


def test_a_few_kills_change_no_byte(tmp_path):
    assert kill(tmp_path, 5, 0)["killed"] == 5


@pytest.mark.slow
def test_two_hundred_kills_change_no_byte(tmp_path):
    found = kill(tmp_path, 200, 1)
    assert found["killed"] == 200
    assert found["finished"] > 1
