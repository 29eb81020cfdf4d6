"""``dslo doctor``: its report, what it hides, and its self-test."""

import json
import re
from pathlib import Path

import pytest
from huggingface_hub import constants

from dslo_jax import cli
from dslo_jax.cli import accelerators, doctor, examination, self_test


TOKEN = "hf_AbCdEfGhIjKlMnOpQrStUvWx"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder with a cache, and settings that hold secrets."""
    folder = tmp_path / "home" / "alice"
    (folder / "cache" / "compiled").mkdir(parents=True)
    (folder / "cache" / "compiled" / "entry").write_bytes(bytes(3000))
    (folder / "work").mkdir()
    monkeypatch.setenv("HOME", str(folder))
    # The library reads the home folder only once.
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / ".cache" / "hub"))
    monkeypatch.setenv("DSLO_CACHE", str(folder / "cache"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_ENDPOINT", "https://alice:secret@hub.example/hf")
    monkeypatch.setenv("XLA_FLAGS", f"--xla_dump_to={folder}/dump")
    monkeypatch.chdir(folder / "work")
    return folder


def test_the_report_names_everything_and_nothing_private(home):
    Path("segmenter.toml").write_text("epsilonn = 1\n")
    report = examination.examine()
    text = json.dumps(report)
    for private in (str(home), "alice", "secret", TOKEN):
        assert private not in text
    assert report["schema"] == "dslo.doctor.v1"
    assert report["devices"][0]["name"] == "cpu:0"
    assert report["versions"]["jax"]
    assert report["system"]["cores"] >= 1
    assert report["cache"]["folder"] == "~/cache"
    assert report["cache"]["content"]["compiled"] == {"size": 3000, "files": 1}
    assert report["cache"]["free_bytes"] > 0
    assert "sd2-base" in report["weights"]["presets"]
    assert "O02" in report["configuration"]["segmenter.toml"]
    assert report["settings"]["HF_TOKEN"] == "***"
    assert report["settings"]["HF_ENDPOINT"] == "https://***@hub.example/hf"
    assert report["settings"]["XLA_FLAGS"] == "--xla_dump_to=~/dump"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("HOME", "~"),
        ("in HOME/models, HOME", "in ~/models, ~"),
        ("HOME2/models", "HOME2/models"),  # another folder
        (["HOME/a", {"b": ("HOME/c", 1, None)}], ["~/a", {"b": ["~/c", 1, None]}]),
        (f"Bearer {TOKEN}", "Bearer ***"),
        ("http://me:word@host/x http://host/@x", "http://***@host/x http://host/@x"),
    ],
)
def test_home_folders_tokens_and_passwords_are_replaced(home, given, shown):
    def put(value):
        return json.loads(json.dumps(value).replace("HOME", str(home)))

    expected = put(shown) if given == shown else shown
    assert examination.without_secrets(put(given)) == expected


def test_the_report_is_one_screen(home, capsys):
    assert cli.main(["doctor", "--no-self-test"]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    lines = told.out.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 100
    for word in ("cpu:0", "jax 0.", "compiled: 1 entries", "~/cache", "clip-b16"):
        assert word in told.out
    assert "GPU: not used: " in told.out
    for package in ("starlette", "uvicorn", "ott-jax"):  # the extra serve, and OTT
        assert package in told.out
    assert "alice" not in told.out


def test_a_cache_that_is_off_or_misconfigured_is_told(home, monkeypatch, capsys):
    monkeypatch.setenv("DSLO_CACHE_SIZE", "many")
    cli.main(["doctor", "--no-self-test"])
    assert "[O01] DSLO_CACHE_SIZE = 'many'" in capsys.readouterr().out
    monkeypatch.setenv("DSLO_CACHE", "")
    cli.main(["doctor", "--no-self-test"])
    assert "off: DSLO_CACHE is empty" in capsys.readouterr().out


def test_a_self_test_that_cannot_run_fails_with_its_reason(capsys):
    """There is no GPU where the tests run, or it is hidden."""
    assert cli.main(["doctor", "--device", "gpu:99", "--json"]) == doctor.FAILED == 8
    told = capsys.readouterr()
    test = json.loads(told.out)["self_test"]
    assert test["passed"] is False
    assert test["error"].startswith("[D02] ")
    assert "self-test" in told.err


@pytest.mark.slow
def test_the_self_test_passes_and_notices_another_score(capsys, monkeypatch):
    assert cli.main(["doctor", "--device", "cpu"]) == 0
    told = capsys.readouterr().out
    assert "passed in" in told
    found = self_test.self_test("cpu")
    for mode, each in found["modes"].items():
        assert abs(each["miou"] - each["expected"]) < 0.01, mode
    monkeypatch.setitem(self_test.EXPECTED, "path", 0.2)
    assert cli.main(["doctor", "--device", "cpu"]) == doctor.FAILED
    assert "FAILED in" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("driver", "package", "settings", "words"),
    [
        (False, "", {}, "no NVIDIA driver on this machine"),
        (False, "jax-cuda13-plugin 1.0", {}, "driver .*, though jax-cuda13-plugin 1.0"),
        (True, "", {}, r'JAX has no plugin for it; pip install "dslo-jax\[cuda\]"'),
        (True, "jax-cuda13-plugin 1.0", {"JAX_PLATFORMS": "cpu"}, "=cpu leaves it out"),
        (
            True,
            "jax-cuda13-plugin 1.0",
            {"CUDA_VISIBLE_DEVICES": ""},
            "CUDA_VISIBLE_DEVICES='' hides it",
        ),
        (True, "jax-cuda13-plugin 1.0", {"CUDA_VISIBLE_DEVICES": "0"}, r"cuda.*\(jax-"),
    ],
)
def test_a_gpu_that_is_not_used_has_a_reason(
    monkeypatch, driver, package, settings, words
):
    monkeypatch.setattr(accelerators, "_has_nvidia_driver", lambda: driver)
    monkeypatch.setattr(accelerators, "_installed", lambda pattern: package)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    chosen = settings.get("JAX_PLATFORMS")
    monkeypatch.setattr(accelerators, "_chosen_platforms", lambda: chosen)
    (sentence,) = [s for s in accelerators.unused() if s.startswith("GPU")]
    assert sentence.startswith("GPU: not used: ")
    assert re.search(words, sentence), sentence
