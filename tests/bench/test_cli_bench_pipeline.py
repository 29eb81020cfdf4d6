"""``dslo bench pipeline`` and ``scaling`` on tiny networks."""

import csv
import json

import pytest

from dslo_jax import cli
from dslo_jax.bench import timing
from dslo_jax.bench.peaks import Bandwidth, Peaks
from dslo_jax.bench.pipeline import setting, subjects
from dslo_jax.bench.results import read_result
from dslo_jax.errors import DeviceError


PEAKS = Peaks(1e11, 2048, 1e9, (Bandwidth(2**20, 5e10, "add"),))
SMALL = ("--classes", "3", "--photo-size", "64x64", "--repeats", "2", "--seconds", "0")
TOML = (
    'affinity_size = 64\nshort_side = 64\ntemplates = "single"\nvelocity_steps = 50\n'
)


@pytest.fixture(scope="module")
def model(checkpoint, tmp_path_factory):
    """Networks that take no time, with options that suit them."""
    folder = tmp_path_factory.mktemp("model")
    for part in ("clip", "diffusion"):
        (folder / part).symlink_to(checkpoint / part)
    (folder / "segmenter.toml").write_text(TOML)
    return folder


@pytest.fixture
def run(capsys, monkeypatch, model):
    monkeypatch.setattr(cli.bench_pipeline, "measure_peaks", lambda device, sets: PEAKS)
    monkeypatch.setattr(cli.bench_pipeline, "product_peak", lambda *_: (8, 2e11))
    monkeypatch.setattr(timing, "_WARM_UP_S", 0.01)

    def run(*words, networks=model):
        words = ["--model", networks, *words]
        code = cli.main(["bench", "pipeline", *map(str, words)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.mark.slow
def test_from_photos_to_a_file_of_results(run, tmp_path):
    path, table, picture = (
        tmp_path / f"found.{kind}" for kind in ("json", "csv", "svg")
    )
    code, out, err = run(
        *SMALL, "--no-starts", "--batches", 1, "--save", path, "--csv", table,
        "--plot", picture, "--trace", tmp_path / "trace",
    )  # fmt: skip
    assert code == 0, err
    found = json.loads(path.read_text())
    assert found["schema"] == "dslo.bench.pipeline.v2"
    assert found["status"] == "done"
    assert not found["quick"]
    rows = found["rows"]
    ends = [(r["scenario"], r["images"]) for r in rows if r["stage"] == "end to end"]
    assert ends == [("SingleStream", 1), ("Offline", 1), ("files", 1)]
    for row in rows:
        assert (row["patches"], row["classes"], row["height"]) == (64, 3, 64)
        assert row["load_s"] > 0
        if row["scenario"] in ("SingleStream", "Offline"):
            assert row["check"]["agree_px"] == 1.0
            assert row["check"]["photos"] > 0
            assert row["memory"]["predicted_bytes"] > 0
            assert row["compile_s"] >= 0
            assert row["energy"] is None
    stages = {row["stage"]: row for row in rows if row["scenario"] == "stages"}
    assert {"clip", "vae", "unet", "solver"} <= set(stages)
    unet = stages["unet"]
    assert unet["images"] == 1
    assert unet["flops"]["formula"] > 0
    roofline = unet["roofline"]
    assert roofline["fraction"] * unet["median_s"] == pytest.approx(
        roofline["seconds_at_peak"]
    )
    assert unet["memory"]["predicted_bytes"] > 0
    assert len(list(csv.DictReader(table.read_text().splitlines()))) == len(rows)
    assert picture.stat().st_size > 1000
    assert any((tmp_path / "trace").rglob("*.pb"))
    assert "velocity, float32, 64 x 64 pixels" in out
    assert "noise: fewer than 30 samples" in out
    assert len(read_result(path).entries) >= 10


def test_memory_that_ends_is_a_row(run, tmp_path, monkeypatch):
    def run_stages(networks, config, classes, photos):
        if len(photos) > 1:
            raise DeviceError("D01", "stage 'unet' needs about 90 GiB")
        return subjects.run_stages(networks, config, classes, photos)

    monkeypatch.setattr(setting, "run_stages", run_stages)
    path = tmp_path / "found.json"
    code, out, err = run(*SMALL, "--no-starts", "--modes", "kl", "--save", path)
    assert code == 0
    assert "out of memory at batch 2" in err
    assert "out of memory" in out
    found = json.loads(path.read_text())
    *_, last = found["rows"]
    assert last["oom"]
    assert last["images"] == 2
    assert last["images_per_s"] is None
    assert "90 GiB" in last["reason"]
    assert len(read_result(path).entries) == len(found["rows"]) - 1


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--batches", "0"), "--batches 0; expected at least 1"),
        (("--classes", "201"), "expected 1 to 200"),
        (("--photo-size", "12"), "expected HEIGHTxWIDTH"),
        (("--modes",), "--modes is empty"),
        (("--energy",), "only NVIDIA GPUs"),
    ],
)
def test_what_cannot_be_measured_is_an_error(run, words, error):
    code, _, err = run("--no-starts", *words)
    assert code == 2
    assert error in err


def test_without_pytorch_the_remedy_is_named(run, monkeypatch):
    monkeypatch.setitem(cli.sys.modules, "torch_bridge.pipeline", None)
    code, _, err = run(*SMALL, "--no-starts", "--against", "torch")
    assert code == 2
    assert "[O05] --against torch needs PyTorch" in err
    assert 'pip install "dslo-jax[torch]"' in err


@pytest.mark.slow
def test_a_quick_run_beside_pytorch_with_starts_of_their_own(run, tmp_path):
    path = tmp_path / "found.json"
    words = ("--quick", "--against", "torch", "--batches", 1, 2, "--save", path)
    code, out, err = run(*words, "--photo-size", "128x128", networks="demo")
    assert code == 0, err
    found = json.loads(path.read_text())
    assert found["quick"]
    assert "quick: not for publication" in out
    cold, warm, theirs = found["starts"]
    assert sum(warm["compile_s"].values()) < sum(cold["compile_s"].values())
    assert theirs["name"] == "torch"
    for start in found["starts"]:
        assert start["memory"]["run_peak_bytes"] > 2**26
    assert {pair["scenario"] for pair in found["pairs"]} == {
        "SingleStream",
        "Offline",
        "stages",
    }
    assert all(pair["labels_agree_px"] > 0.999 for pair in found["pairs"])
