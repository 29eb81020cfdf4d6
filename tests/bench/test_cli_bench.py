"""``dslo bench`` at sizes that take no time."""

import json
from dataclasses import dataclass
from typing import ClassVar

import pytest

from dslo_jax import cli
from dslo_jax.bench import timing
from dslo_jax.bench.peaks import Bandwidth, Peaks
from dslo_jax.bench.results import read_result
from dslo_jax.solvers import Discrepancy, OptimalPath, Solution, registry


SMALL = ("--patches", "256", "--classes", "2", "--repeats", "2", "--seconds", "0")
PEAKS = Peaks(1e11, 2048, 1e9, (Bandwidth(2**20, 5e10, "add"),))


@pytest.fixture
def bench(capsys):
    def bench(*words):
        code = cli.main(["bench", *map(str, words)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return bench


@pytest.fixture
def run(bench, monkeypatch):
    monkeypatch.setattr(cli.bench, "measure_peaks", lambda device: PEAKS)
    monkeypatch.setattr(timing, "_WARM_UP_S", 0.05)
    return lambda *words: bench("solvers", *words)


@pytest.fixture
def add_discrepancy(monkeypatch):
    def add(name, kind):
        known = {**registry.DISCREPANCIES, name: kind}
        monkeypatch.setattr(registry, "DISCREPANCIES", known)

    return add


@dataclass(frozen=True)
class Spread(Discrepancy):
    """A discrepancy that nobody here knows."""

    name: ClassVar[str] = "spread"

    def solve(self, source, affinity=None):
        return Solution.exact(source @ affinity)


@pytest.fixture
def result(tmp_path):
    """A file with one sample time for each solver."""

    def result(name, *, jax="1", **seconds):
        size = {"patches": 64, "classes": 8, "images": 1, "dtype": "float32"}
        rows = [
            {"solver": solver, "name": "dslo-jax", **size, "error": 1e-7}
            | {"samples_s": [time * (1 + 0.01 * (k % 3)) for k in range(30)]}
            for solver, time in seconds.items()
        ]
        machine = {"started_utc": "now", "commit": "abc", "versions": {"jax": jax}}
        content = {"schema": "dslo.bench.solvers.v2", "machine": machine, "rows": rows}
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(content))
        return path

    return result


def test_measures_and_saves(run, tmp_path):
    path = tmp_path / "found.json"
    code, out, err = run(*SMALL, "--save", path)
    assert code == 0
    assert "256 patches, 2 classes, float32" in out
    assert "measuring 256 patches" in err
    found = json.loads(path.read_text())
    assert found["schema"] == "dslo.bench.solvers.v2"
    assert found["peaks"] == PEAKS.plain()
    assert (
        "fewer than 30 samples, not for publication: all 3" in found["noise"]["quick"]
    )
    assert "noise: fewer than 30 samples" in out
    assert max(map(len, out.splitlines())) <= 100
    assert found["machine"]["device"]["platform"] == "cpu"
    rows = {row["solver"]: row for row in found["rows"]}
    assert list(rows) == ["path", "velocity", "kl"]
    for solver, row in rows.items():
        assert len(row["samples_s"]) == row["statistics"]["n"] == 2
        assert row["warm_ups"] >= 1
        roofline = row["roofline"]
        assert roofline["fraction"] * row["median_s"] == pytest.approx(
            roofline["seconds_at_peak"]
        )
        assert roofline["compiler"]["bytes"] > 0
        assert row["compile_s"] > 0
        assert row["error"] < 3e-5
        assert solver in out
    assert rows["path"]["num_steps"] >= 2
    assert rows["path"]["converged"] == 1
    memory = rows["path"]["memory"]
    assert memory["predicted_bytes"] / memory["compiler_bytes"] < 2
    assert rows["kl"]["num_steps"] is None


def test_a_new_entry_of_the_registry_is_measured(run, add_discrepancy, tmp_path):
    """With all that is known of any discrepancy; of the rest the place is empty."""
    path = tmp_path / "found.json"
    words = ("--solvers", "spread", *SMALL, "--save", path)
    code, _, err = run(*words)
    assert code == 2
    assert "spread" in err
    add_discrepancy("spread", Spread)
    code, out, err = run(*words)
    assert code == 0
    assert "unsolved" not in out + err
    (row,) = json.loads(path.read_text())["rows"]
    assert row["solver"] == "spread"
    assert row["statistics"]["n"] == 2
    assert row["converged"] == 1
    assert row["memory"]["compiler_bytes"] is not None
    for unknown in ("error", "roofline", "num_steps"):
        assert row[unknown] is None
    (line,) = (line for line in out.splitlines() if line.startswith("spread"))
    assert "None" not in line
    assert read_result(path).entries


def test_every_discrepancy_has_a_row(run, tmp_path):
    path = tmp_path / "found.json"
    names = tuple(registry.DISCREPANCIES)
    words = ("--patches", "64", "--classes", "2", "--repeats", "1", "--seconds", "0")
    code, _, _ = run("--solvers", *names, *words, "--save", path)
    assert code == 0
    rows = {row["solver"]: row for row in json.loads(path.read_text())["rows"]}
    assert tuple(rows) == names
    # Label propagation promises 1e-5 of the mass; its entries differ by more.
    assert all(row["error"] < 2e-4 for row in rows.values())
    counted = {name for name, row in rows.items() if row["roofline"]}
    assert counted == {"path", "velocity", "kl"}


def test_images_share_a_program_and_attention_knows_no_classes(run, tmp_path):
    path = tmp_path / "found.json"
    words = ("--solvers", "upsampling", "self-attention", "--images", "2")
    words += ("--patches", "64", "--classes", "2", "3", "--repeats", "1")
    words += ("--seconds", "0")
    code, out, _ = run(*words, "--dtype", "bfloat16", "--save", path)
    assert code == 0
    assert "2 images, 64 patches, 3 classes, bfloat16" in out
    rows = json.loads(path.read_text())["rows"]
    assert [(row["solver"], row["classes"]) for row in rows] == [
        ("upsampling", 2),
        ("self-attention", None),
        ("upsampling", 3),
    ]
    assert rows[0]["error"] < 3e-6
    assert 1e-4 < rows[1]["error"] < 0.02  # bfloat16


@pytest.mark.parametrize(
    "words",
    [
        ("--patches", "1000"),
        ("--classes", "0"),
        ("--images", "0"),
        ("--patches",),
        ("--seconds", "-1"),
        ("--seconds", "nan"),
    ],
)
def test_bad_sizes_are_refused(run, words):
    code, _, err = run(*words)
    assert code == 2
    assert "O01" in err


def test_an_absent_device_is_told(run):
    code, _, err = run("--device", "cpu:99", *SMALL)
    assert code == 5
    assert "D02" in err


def test_a_file_that_cannot_be_written_is_told_before_anything_is_measured(
    run, tmp_path
):
    (tmp_path / "file").touch()
    code, _, err = run(*SMALL, "--save", tmp_path / "file" / "found.json")
    assert code == 6
    assert "--save" in err
    assert "measuring" not in err


def test_a_class_that_is_not_solved_is_not_passed_over(run, add_discrepancy):
    @dataclass(frozen=True)
    class Hasty(OptimalPath):
        max_steps: int = 1

    add_discrepancy("path", Hasty)
    words = ("--solvers", "path", "--repeats", "1", "--seconds", "0")
    code, out, err = run(*words, "--patches", "64", "--classes", "8")
    assert code == 0
    assert "unsolved" in out
    assert "unsolved" in err


def test_two_results_side_by_side(bench, result):
    a = result("a", path=0.010, velocity=0.1, kl=0.001)
    b = result("b", jax="2", path=0.020, velocity=0.1, upsampling=0.003)
    code, out, _ = bench("compare", a, b)
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert " ".join(lines["path"].split()) == (
        "path 10.1 20.2 2 1.98 to 2.02 slower 1e-07 1e-07"
    )
    assert "no difference" in lines["velocity"]
    assert "differs: versions.jax: 1 | 2" in out
    assert "only in A: kl, 64 patches, 8 classes, float32: 1.01 ms" in out
    assert "only in B: upsampling, 64 patches, 8 classes, float32: 3.03 ms" in out
    assert "not timed in turn" in out
    assert max(map(len, out.splitlines())) <= 100


@pytest.mark.parametrize(("limit", "expected"), [("1.1", 7), ("1.99", 0), ("2.5", 0)])
def test_a_row_that_is_slower_than_allowed_fails(bench, result, limit, expected):
    a, b = result("a", path=0.01, kl=0.1), result("b", path=0.02, kl=0.1)
    code, _, err = bench("compare", a, b, "--fail-above", limit)
    assert code == expected
    assert "judged 2 of 2 rows" in err
    assert ("slower than 1.1 times: path" in err) == (expected == 7)
    assert bench("compare", b, a, "--fail-above", limit)[0] == 0


def test_nothing_to_judge_is_no_success(bench, result):
    a, b = result("a", path=0.01), result("b", kl=0.02)
    assert bench("compare", a, b)[0] == 0
    code, out, err = bench("compare", a, b, "--fail-above", "1.1")
    assert code == 7
    assert "judged 0 of 0 rows" in err
    assert "only in A: path" in out


def test_what_cannot_be_compared_is_refused(bench, result, tmp_path):
    a = result("a", path=0.01)
    stages = json.loads(a.read_text())
    stages |= {"schema": "dslo.bench.stages.v2", "rows": []}
    other = tmp_path / "stages.json"
    other.write_text(json.dumps(stages))
    for words, code in (
        ((a, other), "O03"),
        ((a, tmp_path / "absent.json"), "O04"),
        ((a, a, "--fail-above", "0.9"), "O01"),
        ((a, a, "--fail-above", "nan"), "O01"),
    ):
        status, _, err = bench("compare", *words)
        assert status == 2
        assert code in err
