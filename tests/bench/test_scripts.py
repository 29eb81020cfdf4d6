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
    before = tables.solvers_table("any")
    lines = before.splitlines()
    assert lines[0] == "| 64 patches | 1 class | error | 8 classes | error |"
    assert lines[2] == "| path: ours | 2 ms (x250) | 1e-07 | 12,000 ms\\* | 1e-07 |"
    assert "Left out: path: theirs, 64 patches, 8 classes:" in lines
    pair = {"solver": "path", "patches": 64, "classes": 1, "a": "theirs", "b": "ours"}
    equal = {**pair, "interval": [0.97, 1.04], "verdict": "no difference"}
    result["pairs"] = [{**pair, "interval": [2, 3], "verdict": "slower"}]
    assert tables.solvers_table("any") == before
    result["pairs"].append(equal)
    assert (
        "Takes as long as ours, as far as can be told (95 % intervals): "
        "path: theirs, 64 patches, 1 class (0.97 to 1)."
    ) in tables.solvers_table("any").splitlines()
    result["noise"] = {"load": "told anyway", "spread": "...", "quick": "..."}
    assert " (doubts: spread, quick), cpu;" in tables.solvers_table("any")


def test_a_table_of_steps_shows_intervals_where_there_are_any(scripts, monkeypatch):
    tables = scripts("tables")
    result = json.loads((BENCHMARKS / "results/stages.json").read_text())
    monkeypatch.setattr(tables, "read", lambda name: result)
    name = result["rows"][0]["name"]
    result["pairs"] = [{"name": name, "ratio": 8.76, "interval": [8.12, 9.4]}]
    lines = tables.steps_table().splitlines()
    assert " 8.8 (8.1 to 9.4) |" in lines[2]
    assert " to " not in lines[3].split("|")[4]


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
    options = argparse.Namespace(limit=10.0, memory=8.0, save=None, device="cpu")
    sweep = scripts("solvers").Sweep(options)
    known = {"solver": "path", "name": "slow", "patches": 4096, "classes": 8}
    sweep._rows = [{**known, "median_s": 1.0}]
    row = {**known, "patches": patches, "classes": classes}
    assert sweep._too_much(row) == reason


def test_a_record_keeps_pairs_and_doubts(scripts, tmp_path, capsys):
    path = tmp_path / "kept.json"
    record = scripts("harness").Record("any", argparse.Namespace(save=str(path)))
    row = {"spread": 0.5, "is_settled": True, "samples_s": [1.0] * 30}
    record.add({"name": "a"}, "a: 1 s", {"a": row})
    record.pair({"a": "a", "b": "b"}, "a / b: 2")
    record.end()
    kept = json.loads(path.read_text())
    assert kept["rows"] == [{"name": "a"}]
    assert kept["pairs"] == [{"a": "a", "b": "b"}]
    assert kept["noise"]["spread"].endswith("in 1 of 1, up to 50%: a")
    assert "noise: times spread" in capsys.readouterr().out


def test_tables_of_what_was_compiled(scripts, monkeypatch):
    tables = scripts("compiled_tables")
    size = {"patches": 4096, "classes": 8, "batch": 1, "dtype": "float32"}
    row = {
        **{"target": "h100", "devices": 1, "stage": "solver:path", **size},
        **{"failed": None, "calls": 1, "compile_s": 2.0, "flops": 2e9, "bytes": 1e6},
        **{"launches": 70.0, "memory": {"temp": 2**20}},
        "model": {"flops": 1e9, "bytes": None, "temp": 2**21},
        "estimate": {"seconds": 0.0004, "floor_s": 0.0001, "how": ""},
        "findings": [
            {"kind": "array", "what": "copy", "where": "here", "bytes": 2.0**26}
            | {"times": 3.0, "known": False}
        ],
    }
    machine = json.loads((BENCHMARKS / "results/solvers.json").read_text())["machine"]
    result = {"machine": machine, "compilers": {}, "rows": [row]}
    failed = {**row, "stage": "labels", "failed": "RuntimeError: no"}
    results = {
        "compile-h100": result,
        "compile-v5e": {**result, "rows": [{**failed, "target": "v5e"}]},
    }

    def read(name):
        if name not in results:
            raise FileNotFoundError(name)
        return results[name]

    monkeypatch.setattr(tables, "read", read)
    times = tables.compiled_table()
    assert "| 1 photo, 4096 patches, 8 classes, bfloat16 | v5e | h100 |" in times
    assert "| solver:path |  | 0.4 (70) |" in times
    assert "| labels | failed |  |" in times
    details = tables.compiled_details()
    assert "| 2.0 | 2 | 2.00 | 1 |  | 1.0 | 2.0 | 0.1 |" in details
    assert "array: 3 x copy of 64 MiB, here" in details
    assert "| RuntimeError: no |" in details
    results.clear()
    with pytest.raises(FileNotFoundError):
        tables.compiled_table()
