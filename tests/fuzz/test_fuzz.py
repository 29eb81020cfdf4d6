"""Damaged inputs of every reader: read, or refused with a code of the documents."""

import json
import os
import random
import subprocess
import sys

import pytest

from dslo_jax.errors import DsloError, OptionError
from fuzz import mutation
from fuzz.__main__ import TARGETS, fuzz
from fuzz.target import Base, Target
from fuzz.watch import Watch


def run(folder, *targets, inputs, seed):
    """Run targets in a process of their own; what they find must be sound."""
    options = f"--inputs={inputs}", f"--seed={seed}", f"--folder={folder}"
    done = subprocess.run(
        [sys.executable, "-m", "fuzz", *targets, *options],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for row in json.loads(done.stdout):
        assert row["faults"] == [], row["target"]
        assert row["events"] == [], row["target"]
        assert row["written"] == [], row["target"]
        assert all(row["mended"].values()), row
        assert row["peak_bytes"] < 200_000_000, row["target"]
        read = sum(n for what, n in row["outcomes"].items() if what.startswith("read"))
        assert read > inputs / 20, row
        assert len(row["outcomes"]) > 1, row


@pytest.mark.parametrize(
    "targets",
    [TARGETS[:3], TARGETS[3:5], TARGETS[5:9], TARGETS[9:]],
    ids=lambda targets: targets[0],
)
def test_damaged_inputs_are_read_or_refused(tmp_path, targets):
    run(tmp_path, *targets, inputs=300, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_damaged_inputs_are_read_or_refused_at_length(tmp_path, target):
    run(tmp_path, target, inputs=20_000, seed=2)


@pytest.fixture
def watched(tmp_path):
    """Runs a reader over 60 inputs of a target."""
    here = tmp_path / "inside"
    here.mkdir()

    def run(read):
        target = Target({"a": Base(b'{"a": [1, 2]}', is_json=True)}, read, (b"token",))
        found = fuzz(target, 60, 0, here, Watch(here))
        assert found["inputs"] == 60
        return found

    return run


def test_other_exceptions_codes_and_results_are_faults(watched):
    def read(content, folder):
        if content == b'{"a": [1, 2]}':
            return
        if len(content) % 2:
            raise OptionError("O04", "refused as it should be")
        raise DsloError("X99", "a code that no document knows") from KeyError("x")

    found = watched(read)
    assert set(found["outcomes"]) >= {"O04", "fault"}
    (fault,) = found["faults"]
    assert fault["times"] == found["outcomes"]["fault"]
    assert "X99 is not in docs/errors.md" in fault["error"]


def test_what_no_reader_may_do_is_noticed(watched, tmp_path):
    def read(content, folder):
        (folder / "input").write_bytes(content)
        if len(content) % 3 == 0:
            (tmp_path / "outside").write_bytes(content)
        if len(content) % 3 == 1:
            eval("1 + 1")

    events = watched(read)["events"]
    assert {event.split()[0] for event in events} == {"open", "compile", "exec"}
    assert not [event for event in events if "inside" in event]


def test_what_never_ends_is_a_fault(watched, monkeypatch):
    monkeypatch.setattr("fuzz.watch.SECONDS", 0.05)

    def read(content, folder):
        while content.endswith(b"]"):
            pass

    assert "TooSlow" in watched(read)["faults"][0]["error"]


def test_an_input_is_made_of_its_number_alone():
    target = Target({"a": Base(bytes(range(99))), "b": Base(b"[1]", is_json=True)}, id)
    numbers = list(range(200))
    first = {n: mutation.input_of(target, 0, n) for n in numbers}
    random.Random(0).shuffle(numbers)
    assert {n: mutation.input_of(target, 0, n) for n in numbers} == first
    assert len(set(first.values())) > 150  # a short one may come again
    assert mutation.input_of(target, 1, 0) != first[0]
