"""``dslo bench`` at sizes that take no time."""

import json

import pytest

from dslo_jax import cli


SMALL = ("--patches", "256", "--classes", "2", "--repeats", "2")


@pytest.fixture
def run(capsys):
    def run(*words):
        code = cli.main(["bench", "solvers", *map(str, words)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_measures_and_saves(run, tmp_path):
    path = tmp_path / "found.json"
    code, out, err = run(*SMALL, "--save", path)
    assert code == 0
    assert "256 patches, 2 classes, float32" in out
    assert "measuring 256 patches" in err
    found = json.loads(path.read_text())
    assert found["schema"] == "dslo.bench.solvers.v1"
    assert found["machine"]["device"]["platform"] == "cpu"
    rows = {row["solver"]: row for row in found["rows"]}
    assert list(rows) == ["path", "velocity", "kl"]
    for solver, row in rows.items():
        assert len(row["samples_s"]) == 2
        assert row["compile_s"] > 0
        assert row["error"] < 3e-5
        assert solver in out
    assert rows["path"]["num_steps"] >= 2
    assert rows["path"]["converged"] == 1
    memory = rows["path"]["memory"]
    assert memory["predicted_bytes"] / memory["compiler_bytes"] < 2
    assert rows["kl"]["num_steps"] is None


def test_images_share_a_program_and_attention_knows_no_classes(run, tmp_path):
    path = tmp_path / "found.json"
    words = ("--solvers", "upsampling", "self-attention", "--images", "2")
    words += ("--patches", "64", "--classes", "2", "3", "--repeats", "1")
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


def test_a_class_that_the_kernel_cannot_solve_is_not_passed_over(run):
    # One patch each, on so few patches: more cancels than the kernel allows.
    code, out, err = run("--solvers", "path", "--patches", "64", "--classes", "8")
    assert code == 0
    assert "unsolved" in out
    assert "unsolved" in err
