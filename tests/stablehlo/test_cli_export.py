"""``dslo export stablehlo``: the command writes a program, or says why it cannot."""

import json

import numpy as np
import pytest
from jax import export

from dslo_jax import cli


@pytest.fixture
def run(capsys):
    def run(*words):
        code = cli.main(["export", "stablehlo", *map(str, words)])
        return code, capsys.readouterr()

    return run


def test_a_discrepancy_with_options_of_the_method(run, tmp_path):
    code, said = run(
        tmp_path / "program",
        *("--solver", "2x16", "--mode", "kl", "--kl-direction", "target_to_source"),
        *("--platforms", "cpu,tpu"),
    )
    assert code == 0
    assert said.out.strip().endswith("program")
    told = json.loads((tmp_path / "program" / "program.json").read_text())
    assert told["options"] == {"direction": "target_to_source"}
    assert told["platforms"] == ["cpu", "tpu"]
    stored = (tmp_path / "program" / "program.jax").read_bytes()
    found = export.deserialize(bytearray(stored)).call(
        {}, {"source": np.full((1, 2, 16), 1 / 16, np.float32)}
    )
    np.testing.assert_allclose(found["maps"], 0, atol=1e-6)


@pytest.mark.slow
def test_the_whole_step(run, tmp_path):
    code, said = run(
        tmp_path / "program",
        *("--model", "demo", "--classes", "sky, sea, grass|lawn", "--size", "64x80"),
        *("--platforms", "cpu"),
    )
    assert code == 0, said.err
    told = json.loads((tmp_path / "program" / "program.json").read_text())
    assert told["classes"] == [["sky"], ["sea"], ["grass", "lawn"]]
    assert told["inputs"]["pixels"]["shape"] == [1, 64, 80, 3]
    assert told["inputs"]["text"]["stored"]
    assert told["model"]["name"] == "demo"
    assert told["config"]["affinity_size"] == 128


def test_what_cannot_be_done_is_said_before_anything_is_loaded(run, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    new = tmp_path / "new"
    words = ("--classes", "sky")  # with the default model, which is not here
    cases = [
        (6, "holds files", [tmp_path / "full", "--solver", "2x16"]),
        (2, "[O03] --solver 2", [new, "--solver", "2"]),
        (2, "[O03] --size 512", [new, "--classes", "sky", "--size", "512"]),
        (2, "[O05] give either", [new]),
        (2, "leave out --classes", [new, "--solver", "2x16", "--classes", "sky"]),
        (2, "platforms = 'metal'", [new, "--solver", "2x16", "--platforms", "metal"]),
        (2, "gpu is called cuda here", [new, *words, "--platforms", "cpu,gpu"]),
        (2, "each once", [new, *words, "--platforms", "cpu,cpu"]),
        (2, "[O01] width = 1;", [new, *words, "--size", "64x1"]),
        (2, "[O01] batch = 0;", [new, *words, "--batch", "0"]),
        (6, "is a file", [tmp_path / "full" / "mine.txt", *words]),
    ]
    for expected, words, arguments in cases:
        code, said = run(*arguments)
        assert "loading" not in said.err
        assert (code, words in said.err) == (expected, True), said.err
    assert not new.exists()


def test_results_are_still_exported_by_the_other_formats(capsys, tmp_path):
    code = cli.main(["export", "nothing", str(tmp_path), str(tmp_path / "new")])
    assert code == 2
    assert "coco" in capsys.readouterr().err
