import json
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from dslo_jax import Segmenter, SegmenterConfig, cli
from dslo_jax.errors import CheckpointError
from tests.pipeline.conftest import FAST


def test_segments_a_photo(run, photo, tmp_path):
    code, out, err = run(photo, "--classes", "cat, sofa|couch, wall")
    assert code == 0
    assert f"{photo} -> {tmp_path / 'out' / 'photo.png'}" in out
    assert "compiling, once" in out  # the table of times
    assert "loading checkpoints" in err
    folder = tmp_path / "out" / "photo.png"
    with Image.open(folder / "labels.png") as labels:
        assert labels.size == (75, 50)
        assert np.asarray(labels).max() < 3
    summary = json.loads((folder / "segmentation.json").read_text())
    assert [c["name"] for c in summary["classes"]] == ["cat", "sofa", "wall"]
    assert summary["config"]["affinity_size"] == 64


def test_a_new_shape_is_announced_before_it_compiles(run, tmp_path, make_photo):
    path = tmp_path / "wide.png"
    Image.fromarray(make_photo(40, 290)).save(path)
    _, _, err = run(path, "--classes", "cat, sofa", *FAST)
    assert "compiling clip (once per shape)" in err


def test_a_folder_goes_on_after_a_bad_photo(run, tmp_path, make_photo):
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    for name in ("a.png", "deep/a.png"):
        Image.fromarray(make_photo(50, 75)).save(folder / name)
    (folder / "b.jpg").write_text("<!DOCTYPE html>")
    options = ("--recursive", "--classes", "cat, sofa", "--batch", "2")
    code, out, err = run(folder, *options, *FAST)
    assert code == cli.PARTIAL
    assert "I02" in err
    assert "1 of 3 photos failed" in err
    assert out.count(" -> ") == 2
    assert (tmp_path / "out" / "deep" / "a.png" / "labels.png").is_file()


def test_classes_from_a_file(run, photo, tmp_path):
    names = tmp_path / "classes.txt"
    names.write_bytes("\ufeffcat, kitten\r\nsofa\r\n".encode())
    code, _, _ = run(photo, "--class-file", names, *FAST)
    assert code == 0


def test_a_background_and_a_threshold(run, photo, tmp_path):
    choice = ("--classes", "cat, wall", "--background", "sclip", *FAST)
    threshold = ("--background-threshold", "1")
    code, out, err = run(photo, *choice, *threshold)
    assert (code, "background 100.0%" in out) == (0, True)
    assert "100.0% of the pixels are below background_threshold" in err
    (folder,) = (path for path in (tmp_path / "out").iterdir() if path.is_dir())
    found = json.loads((folder / "segmentation.json").read_text())
    assert [each["name"] for each in found["classes"]] == ["cat", "wall", "background"]
    assert found["unsure"] == 1
    assert len(found["classes"][2]["synonyms"]) == 25  # without the wall
    code, _, err = run(photo, "--classes", "cat, wall", *threshold, *FAST)
    assert (code, "[O05]" in err, "--background" in err) == (2, True, True)
    classes = ("--classes", "cat, background")
    code, _, err = run(photo, *classes, "--background", "clearclip", *FAST)
    assert (code, "[C02]" in err) == (3, True)


def test_config_file_and_options_over_it(run, photo, tmp_path):
    config = tmp_path / "config.toml"
    config.write_text('mode = "path"\nepsilon = 0.05\n')
    run(photo, "--classes", "cat, sofa", "--config", config, "--epsilon", "0.2")
    text = (tmp_path / "out" / "photo.png" / "segmentation.json").read_text()
    used = json.loads(text)["config"]
    assert (used["mode"], used["epsilon"]) == ("path", 0.2)


class TestWhereOptionsComeFrom:
    """The command line, else --config, else the model, else the defaults."""

    @pytest.fixture
    def chosen(self, photo, tmp_path, monkeypatch):
        """The configuration that a command line comes to; nothing is loaded."""
        seen = []

        def load(model, *, config, **_):
            seen.append(config)
            raise CheckpointError("W01", "seen enough")

        monkeypatch.setattr(Segmenter, "from_pretrained", load)

        def chosen(*arguments):
            names = ("--classes", "cat, sofa", "--out", str(tmp_path / "out"))
            assert cli.main(["segment", str(photo), *names, *map(str, arguments)]) == 4
            return seen[-1]

        return chosen

    @pytest.fixture
    def model(self, tmp_path):
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "segmenter.toml").write_text(
            'short_side = 64\naffinity_size = 128\nepsilon = 0.05\nmode = "path"\n'
        )
        return tmp_path / "model"

    @pytest.fixture
    def file(self, tmp_path):
        (tmp_path / "config.toml").write_text("affinity_size = 192\nepsilon = 0.2\n")
        return tmp_path / "config.toml"

    def test_defaults(self, chosen, tmp_path):
        assert chosen() == SegmenterConfig()
        assert chosen("--model", tmp_path) == SegmenterConfig()  # no segmenter.toml

    def test_the_model(self, chosen, model):
        assert chosen("--model", model) == SegmenterConfig.of(
            short_side=64, affinity_size=128, epsilon=0.05, mode="path"
        )

    def test_a_file_over_the_model(self, chosen, model, file):
        expected = SegmenterConfig.of(
            short_side=64, affinity_size=192, epsilon=0.2, mode="path"
        )
        assert chosen("--model", model, "--config", file) == expected
        assert chosen(f"--config={file}", f"--model={model}") == expected

    def test_the_command_line_over_the_file(self, chosen, model, file):
        flags = ("--epsilon", 0.3, "--mode", "velocity")
        expected = SegmenterConfig.of(short_side=64, affinity_size=192, epsilon=0.3)
        assert chosen("--model", model, "--config", file, *flags) == expected
        assert chosen(*flags, "--config", file, "--model", model) == expected

    def test_a_flag_that_equals_the_default_is_a_flag_all_the_same(self, chosen, model):
        usual = SegmenterConfig().clip.short_side
        config = chosen("--model", model, "--short-side", usual)
        assert config.clip.short_side == usual
        assert config.affinity.size == 128

    def test_parts_of_ones_own_keep_the_choices_of_the_model(self, chosen, model):
        assert chosen("--model", model, "--clip", "other").clip.short_side == 64

    def test_a_model_with_a_bad_file(self, run, photo, model):
        (model / "segmenter.toml").write_text("short_sied = 64\n")
        code, _, err = run(photo, "--classes", "cat", model=model)
        assert code == 2
        assert "segmenter.toml:1" in " ".join(err.split())


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--classes", "cat, sofa"], 2, ["no photos"]),
        (["PHOTO"], 2, ["--classes or --class-file"]),
        (["PHOTO", "--classes", ""], 3, ["C01"]),
        (["PHOTO", "--classes", "cat, , dog"], 3, ["C01", "class 2"]),
        (["PHOTO", "--classes", "cat, Cat "], 3, ["C02", "class 2", "class 1"]),
        (["PHOTO", "--classes", "cat" * 90, *FAST], 3, ["C03", "tokens"]),
        (["PHOTO", "--class-file", "absent.txt"], 3, ["C07", "absent.txt"]),
        (["absent.jpg", "--classes", "cat, sofa"], 3, ["I01", "absent.jpg"]),
        (
            ["PHOTO", "--classes", "a, b", "--epsilon", "0"],
            2,
            ["epsilon = 0", "a number > 0"],
        ),
        (["PHOTO", "--classes", "a, b", "--threshold", "2"], 2, ["threshold", "(0,"]),
        (["PHOTO", "--classes", "a, b", "--batch", "0"], 2, ["--batch 0"]),
        (["PHOTO", "--classes", "a, b", "--mode", "best"], 2, ["mode", "velocity"]),
        (["PHOTO", "--classes", "a, b", "--epsilom", "1"], 2, ["--epsilom"]),
        (["PHOTO", "--classes", "a, b", "--device", "gpu"], 5, ["D02", "cpu:0"]),
        (["PHOTO", "--classes", "a, b", "--clip", "absent/x/y"], 4, ["W0"]),
        (["PHOTO", "--classes", "a, b", "--config", "no.toml"], 2, ["O04", "no.toml"]),
        (["PHOTO", "--classes", "a, b", "--affinity-layers", "x", "1"], 2, ["x"]),
    ],
)
def test_bad_input_says_what_and_sets_the_exit_code(run, photo, arguments, code, words):
    arguments = [str(photo) if word == "PHOTO" else word for word in arguments]
    got, out, err = run(*arguments)
    assert got == code
    assert "Traceback" not in err
    said = " ".join((out + err).split())
    for word in words:
        assert word in said


def test_a_missing_checkpoint_offers_a_remedy(run, photo, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty"))
    code, _, err = run(
        photo, "--classes", "cat, sofa", "--offline", model="sd2+clip-b16"
    )
    assert code == 4
    assert "dslo weights" in err
    assert "--model demo, the small pair that comes with dslo-jax" in err
    assert "it knows 20 things of its own drawn world" in err


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [("--write", "labels, picture", "O03.*picture"), ("--templates", "a cat", "C05")],
)
def test_bad_options_are_told_before_any_checkpoint(
    photo, tmp_path, capsys, option, value, words
):
    asked = ["--model", "sd2+clip-b16", "--offline", "--classes", "cat", option, value]
    code = cli.main(["segment", str(photo), "--out", str(tmp_path / "out"), *asked])
    assert code in (2, 3)
    assert re.search(words, capsys.readouterr().err)


def test_other_words_are_refused_before_any_checkpoint(run, photo, monkeypatch):
    assert run(photo, "--classes", "cat, sofa", *FAST)[0] == 0
    monkeypatch.setattr(Segmenter, "from_pretrained", None)
    for other, words in [
        (("--classes", "cat, wall"), "classes = [['cat'], ['sofa']], now it is"),
        (("--classes", "cat, sofa", "--epsilon", "0.2"), "config.epsilon = 0.1, now"),
        (("--classes", "cat, sofa", "--batch", "2"), "batch_size = 1, now it is 2"),
    ]:
        code, _, err = run(photo, *FAST, *other)
        assert (code, "[O04]" in err, words in err) == (2, True, True), err
        assert "loading" not in err


def test_help_shows_the_options_that_suit_the_model(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    shown = {}
    for model in ("demo", "sd2+clip-b16", "nobody"):
        assert cli.main(["segment", "--model", model, "--help"]) == 0
        lines = capsys.readouterr().out.splitlines()
        (shown[model],) = [line for line in lines if "--affinity-size" in line]
    assert "(default: 128)" in shown["demo"]
    assert "(default: 512)" in shown["sd2+clip-b16"]
    assert shown["nobody"] == shown["sd2+clip-b16"]


def test_a_folder_that_lacks_a_part_asks_nobody(run, photo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()  # "mine/clip" could be the name of a repository
    code, _, err = run(photo, "--classes", "cat, sofa", model="mine")
    assert code == 4
    assert "[W01] mine/clip is not a folder" in err
    assert "demo" not in err


def test_help(capsys):
    assert cli.main(["--help"]) == 0
    assert "dslo segment PHOTO" in capsys.readouterr().out
    assert cli.main(["segment", "--help"]) == 0
    assert "--classes" in capsys.readouterr().out


def test_installed_as_a_command():
    code = "from dslo_jax.cli import main; raise SystemExit(main(['--help']))"
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "dslo segment" in finished.stdout
