"""The scripts in ``benchmarks``: what they leave out, and the tables they write."""

import argparse
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest


BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def scripts(monkeypatch):
    """Modules by name; a package of the tests has the name of one of them."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def load(name):
        path = BENCHMARKS / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"benchmark_{name}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def test_the_tables_are_those_of_the_results():
    command = [sys.executable, str(BENCHMARKS / "tables.py"), "--check"]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_a_table_without_results_says_so(scripts):
    tables = scripts("tables")

    def table():
        return str(tables.read("never-measured"))

    assert tables._or_absent(table) == (
        "Not measured yet: there is no `benchmarks/results/never-measured.json`."
    )


def test_a_table_of_sizes(scripts, monkeypatch):
    tables = scripts("tables")

    machine = json.loads((BENCHMARKS / "results/solvers.json").read_text())["machine"]
    row = {"solver": "path", "name": "ours", "patches": 64, "error": 1e-7}
    rows = [
        {**row, "classes": 1, "median_s": 0.002, "samples_s": [1, 1]},
        {**row, "classes": 8, "median_s": 12.0, "samples_s": [12.0]},
    ]
    rows[0]["baseline_over_this"], rows[1]["baseline_over_this"] = 250.0, None
    skipped = [{**row, "name": "theirs", "classes": 8, "reason": "would take 99 s"}]
    result = {"machine": machine, "rows": rows, "skipped": skipped}
    monkeypatch.setattr(tables, "read", lambda name: result)
    lines = tables.solvers_table("any").splitlines()
    assert lines[0] == "| 64 patches | 1 class | error | 8 classes | error |"
    assert lines[2] == "| path: ours | 2 ms (x250) | 1e-07 | 12,000 ms\\* | 1e-07 |"
    assert "Left out: path: theirs, 64 patches, 8 classes:" in lines


@pytest.mark.parametrize(
    ("patches", "classes", "reason"),
    [
        (4096, 8, None),
        (8192, 8, None),
        (16384, 8, "would take 16 s, by 4096 patches and 8 classes; limit 10 s"),
        (65536, 8, "may need 103.1 GB, limit 8 GB"),
        (4096, 1, None),
    ],
)
def test_what_would_take_too_long_or_too_much_is_left_out(
    scripts, patches, classes, reason
):
    options = argparse.Namespace(limit=10.0, memory=8.0, save=None)
    sweep = scripts("solvers").Sweep(options)
    known = {"solver": "path", "name": "slow", "patches": 4096, "classes": 8}
    sweep._rows = [{**known, "median_s": 1.0}]
    row = {**known, "patches": patches, "classes": classes}
    assert sweep._too_much(row) == reason
