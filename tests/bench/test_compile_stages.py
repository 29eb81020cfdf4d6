"""``dslo bench compile``: the stages from shapes alone, the command, real compilers."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from dslo_jax import cli
from dslo_jax.bench.compile import measure, report, targets
from dslo_jax.bench.compile.gpus import GPUS, describe_gpu
from dslo_jax.bench.compile.stages import (
    NETWORKS,
    Size,
    make_cases,
    sizes_alike,
    stage_names,
)
from dslo_jax.bench.compile.targets import CHIPS
from dslo_jax.pipeline import Placement


ROOT = Path(__file__).parents[2]
SIZE = Size(256, 8, 2, "float32")


@pytest.fixture
def place():
    return Placement(jax.devices("cpu")[0], only_shapes=True)


@pytest.fixture
def run(capsys, monkeypatch):
    """The command with rows that take no compiler; also what was compiled."""
    compiled = []

    def compile_stage(name, size, target, devices):
        compiled.append((target, name, size))
        return [row_of(name, size, target, devices)]

    monkeypatch.setattr(cli.bench_compile, "compile_stage", compile_stage)
    monkeypatch.setattr(cli.bench_compile, "topology", lambda *_: ())
    monkeypatch.setattr(cli.bench_compile, "describe_compiler", lambda name: {})

    def run(*words):
        compiled.clear()
        code = cli.main(["bench", "compile", *map(str, words)])
        return code, capsys.readouterr(), list(compiled)

    return run


def row_of(name, size, target="h100", devices=1, **changed):
    return {
        **{"target": target, "devices": devices, "stage": name, **size._asdict()},
        **{"failed": None, "calls": 2, "compile_s": 1.0, "flops": 2e9, "bytes": 1e6},
        **{"launches": 7.0, "memory": {"temp": 2**20}, "collectives": []},
        "model": {"flops": 1e9, "bytes": None, "temp": 2**19},
        "estimate": {"seconds": 0.003, "floor_s": 0.001, "how": ""},
        "findings": [],
        **changed,
    }


def test_the_table_has_every_stage_and_a_stage_is_compiled_once(run):
    code, said, compiled = run("--targets", "h100", "--batch", "1", "8")
    assert code == 0
    named = [name for _, name, _ in compiled]
    assert set(named) == set(stage_names())
    assert named.count("clip") == 1  # a photo at a time, whatever the batch
    assert named.count("unet") == 2
    assert "compiling unet for h100: 8 photos, 4096 patches, bfloat16" in said.err
    # clip, vae, unet, three steps, a solver and labels: 2 x 3 ms each
    assert "a photo with velocity: 48 ms" in said.out
    assert "a photo with velocity: 11.2 ms" in said.out  # 7 of 8 are for 8 photos


def test_rows_are_saved_and_known_rows_are_not_compiled_again(run, tmp_path):
    file = tmp_path / "rows.json"
    code, _, compiled = run("--targets", "v5e", "--stages", "vae", "--save", file)
    assert (code, len(compiled)) == (0, 1)
    both = ("--targets", "v5e", "h100", "--stages", "vae", "--known", file)
    _, said, compiled = run(*both, "--save", file)
    assert [target for target, *_ in compiled] == ["h100"]
    assert "v5e: 1 photo" in said.out
    saved = json.loads(file.read_text())
    assert saved["schema"] == measure.SCHEMA
    assert [row["target"] for row in saved["rows"]] == ["v5e", "h100"]


def test_what_was_found_is_listed_unless_the_cost_model_knows_it(run, monkeypatch):
    finding = {
        **{"kind": "array", "what": "transpose", "where": "solvers/velocity.py:9 f"},
        **{"bytes": 2.0**26, "times": 14.0, "known": False},
    }
    exchange = {"what": "all-gather", "bytes": 2.0**20, "times": 3.0, "where": "here"}

    def compile_stage(name, size, *_):
        findings = [finding, {**finding, "what": "copy", "known": True}]
        return [row_of(name, size, findings=findings, collectives=[exchange])]

    monkeypatch.setattr(cli.bench_compile, "compile_stage", compile_stage)
    _, said, _ = run("--targets", "h100", "--stages", "solver:velocity")
    words = "array: 14 x transpose of 64 MiB, solvers/velocity.py:9 f"
    assert f"solver:velocity: {words}" in said.out
    assert "3 x all-gather of 1 MiB, here" in said.out
    assert "copy" not in said.out


@pytest.mark.parametrize(
    ("words", "code", "named"),
    [
        (("--stages", "sleep"), "O03", "solver:velocity"),
        (("--patches", "1000"), "O01", "4096"),
        (("--batch", "0"), "O01", "at least 1"),
        (("--devices", "17"), "O01", "1 to 16"),
        (("--known", "missing.json"), "O04", "missing.json"),
    ],
)
def test_options_that_cannot_be_used(run, words, code, named):
    exit_code, said, _ = run("--targets", "h100", *words)
    assert exit_code == 2
    assert f"[{code}]" in said.err
    assert named in said.err


def test_a_missing_compiler_is_named_with_the_command_that_installs_it(
    capsys, monkeypatch
):
    monkeypatch.setattr(targets, "_is_installed", lambda package: False)
    targets.topology.cache_clear()
    assert cli.main(["bench", "compile", "--targets", "v6e"]) == 5
    error = capsys.readouterr().err
    assert "[D04]" in error
    assert "libtpu" in error
    assert "dslo-jax[tpu-aot]" in error


def test_a_stage_that_cannot_be_compiled_is_a_row_with_the_reason(run, monkeypatch):
    def fail(*_):
        raise RuntimeError("the compiler gave up\nand more")

    monkeypatch.setattr(measure, "topology", lambda *_: jax.devices("cpu")[:1])
    monkeypatch.setattr(measure, "make_cases", fail)
    monkeypatch.setattr(cli.bench_compile, "compile_stage", measure.compile_stage)
    code, said, _ = run("--targets", "h100", "--stages", "vae")
    assert code == 0
    assert "RuntimeError: the compiler gave up" in said.out


@pytest.mark.parametrize("name", [n for n in stage_names() if n not in NETWORKS])
def test_a_stage_is_made_from_shapes_and_can_be_traced(name, place):
    cases = list(make_cases(name, SIZE, place, "gpu"))
    assert cases
    for case in cases:
        assert case.name == name
        case.stage.lower(case.args, case.static)


def test_a_network_is_made_from_shapes_in_the_wanted_type(place):
    (case,) = make_cases("text", SIZE._replace(dtype="bfloat16"), place, "tpu")
    kinds = {leaf.dtype.name for leaf in jax.tree.leaves(case.args[0])}
    assert kinds == {"bfloat16"}
    assert case.work.flops > 9e10


def test_a_program_is_described_with_the_model_beside_it(place):
    (case,) = make_cases("solver:velocity", SIZE, place, "gpu")
    compiled = case.stage.lower(case.args, case.static).compile()
    row = measure.describe_program(compiled, case, SIZE, CHIPS["h100"])
    turns = {loop["where"]: loop["turns"] for loop in row["loops"]}
    assert turns["balancing.py:scale"] == 14
    # The model counts all 8 classes in all 12 steps, the program drops some of them.
    assert 0.4 < row["flops"] / row["model"]["flops"] < 1.5
    assert {each["precision"] for each in row["products"]} <= {"highest"}
    assert json.loads(json.dumps(row)) == row


def test_arrays_outside_solvers_count_only_with_two_axes_of_patches():
    features = measure.Array("f32", (1, 64, 64, 8192))
    scores = measure.Array("f32", (5, 4096, 4096))
    assert not measure.is_square(features, 4096)
    assert measure.is_square(features, 4096, photos=1)
    assert not measure.is_square(features, 4096, photos=8)
    assert measure.is_square(scores, 4096)
    assert measure.is_square(scores, 4096, photos=8)
    assert not measure.is_square(scores, 0, photos=1)


def test_a_photo_is_estimated_only_if_every_stage_was_compiled():
    size = Size(4096, 8, 1, "bfloat16")
    rows = [row_of(name, sizes_alike(name, size)) for name in stage_names()]
    assert report.whole_image(rows, "h100", size, "path") == pytest.approx(48)
    assert report.whole_image(rows, "v5e", size, "path") is None
    rows[0]["failed"] = rows[3]["failed"] = "no"  # text, which does not count; and unet
    assert report.whole_image(rows, "h100", size, "path") is None


def test_a_gpu_is_described_in_the_words_of_its_compiler():
    text = describe_gpu(GPUS["h200"])
    assert "memory_bandwidth: 4800000000000" in text
    assert text.count("{") == text.count("}")
    assert "scalar_unit_description" not in describe_gpu(GPUS["a100"])


def _python_with(target):
    """This Python, or that of ``make accelerators``: one with the compiler."""
    if not targets.missing_packages(CHIPS[target]):
        return sys.executable
    other = ROOT / ".venv-compilers/bin/python"
    if not other.exists():
        missing = ", ".join(targets.missing_packages(CHIPS[target]))
        pytest.skip(f"needs {missing}, here or in .venv-compilers (make accelerators)")
    return str(other)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["v5e", "h100"])
@pytest.mark.parametrize("batch", [1, 8])
def test_real_compilers_make_no_array_that_the_cost_model_does_not_know(
    tmp_path, target, batch
):
    file = tmp_path / "rows.json"
    words = ["--targets", target, "--patches", 1024, "--batch", batch, "--save", file]
    stages = ["sources", "chosen", "solver:path", "solver:velocity", "solver:kl"]
    command = [_python_with(target), "-m", "dslo_jax", "bench", "compile", *words]
    finished = subprocess.run(
        [*map(str, command), "--stages", *stages],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert finished.returncode == 0, finished.stderr
    rows = json.loads(file.read_text())["rows"]
    assert [row["stage"] for row in rows] == stages
    for row in rows:
        assert row["failed"] is None
        assert row["estimate"]["seconds"] > 0
        unknown = report.unknown_findings(row)
        assert [each for each in unknown if each["kind"] != "host"] == []
        assert all(loop["origin"] != "unknown" for loop in row["loops"])
