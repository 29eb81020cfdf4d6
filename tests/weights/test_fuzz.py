"""Randomly damaged files: refused with a code, or read with the result of torch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def fuzz(folder: Path, count: int, seed: int) -> dict[str, int]:
    """Damage files in another process; returns how often each outcome occurred."""
    script = Path(__file__).with_name("fuzzing.py")
    done = subprocess.run(
        [sys.executable, str(script), str(folder), str(count), str(seed)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout)
    assert result["events"] == []
    assert result["megabytes"] < 200
    return result["outcomes"]


def test_damaged_files_are_refused_or_read(tmp_path):
    outcomes = fuzz(tmp_path, count=1500, seed=0)
    assert outcomes.keys() >= {"read", "as torch", "W04", "W05"}
    assert min(outcomes.values()) > 25


@pytest.mark.slow
def test_damaged_files_are_refused_or_read_at_length(tmp_path):
    fuzz(tmp_path, count=100_000, seed=1)
