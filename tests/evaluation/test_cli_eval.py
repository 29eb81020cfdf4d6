"""``dslo eval``, with a stub in place of the networks except where it says so."""

import io
import json
import os
import shutil
import signal

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from stub_sweep import CIRCUMSTANCES, StubSweep

from dslo_jax import cli
from dslo_jax.cli import evaluate, measuring, terminal
from dslo_jax.cli.terminal import interruptible
from dslo_jax.errors import DeviceError
from dslo_jax.evaluation.sweeps import sweep as sweep_module


@pytest.fixture
def stubbed(monkeypatch):
    """No network; the sweeps that are made."""
    made = []

    def make(networks, classes, cells, *, batch_size):
        made.append(StubSweep({cell.config.solver.mode: cell for cell in cells}))
        return made[-1]

    def load(options, pair, **_):
        return measuring.Loaded(None, CIRCUMSTANCES | {"batch_size": options.batch})

    monkeypatch.setattr(evaluate, "Sweep", make)
    monkeypatch.setattr(evaluate, "load", load)
    return made


@pytest.fixture
def folder(tmp_path):
    """A data set of one's own: three photos of three classes."""
    root = tmp_path / "data"
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for name in ("a", "b", "c"):
        photo = rng.integers(0, 256, (6, 8, 3), np.uint8)
        Image.fromarray(photo).save(root / "images" / f"{name}.png")
        mask = rng.choice(np.array([0, 1, 2, 255], np.uint8), (6, 8))
        Image.fromarray(mask).save(root / "masks" / f"{name}.png")
    (root / "classes.txt").write_text("cat\ndog\nsky\n")
    return root


@pytest.fixture
def run(tmp_path, capsys, folder):
    def run(*arguments, dataset=("folder",), model="demo"):
        out = ("--out", str(tmp_path / "out"), "--model", model)
        root = ("--root", str(folder))
        code = cli.main(["eval", *dataset, *root, *out, *map(str, arguments)])
        captured = capsys.readouterr()
        assert code != cli.BUG, captured.err
        return code, captured.out, captured.err

    return run


def metrics(tmp_path):
    return json.loads((tmp_path / "out" / "metrics.json").read_text())


def test_scores_and_files(run, stubbed, tmp_path):
    code, out, err = run()
    assert code == 0
    found = metrics(tmp_path)
    for mode in ("velocity", "path"):
        assert f"{mode}: mIoU {found['results'][mode]['miou']:.2%}" in out
    assert "3/3 photos" in err
    assert "velocity " in err  # the running score
    names = {path.name for path in (tmp_path / "out").iterdir()}
    files = {"metrics.json", "metrics.md", "index.html", "timings.json"}
    assert names == files | {"journal.jsonl", ".lock"}
    assert found["dataset"]["name"] == "folder"
    assert found["results"]["velocity"]["config"]["affinity_size"] == 128  # the model's


def test_another_run_is_refused_before_any_network(run, stubbed, monkeypatch):
    assert run()[0] == 0
    monkeypatch.setattr(evaluate, "load", None)
    for arguments, words in [
        (("--batch", "2"), "batch_size = 8, now it is 2"),
        (("--limit", "2"), "photos = 3, now it is 2"),
    ]:
        code, _, err = run(*arguments)
        assert (code, "[O04]" in err, words in err) == (2, True, True), err
        assert "loading" not in err


def test_one_mode_joins_another_and_other_batches_do_not(run, stubbed, tmp_path):
    assert run("--mode", "kl")[0] == 0
    assert list(metrics(tmp_path)["results"]) == ["kl"]
    assert run("--mode", "logits")[0] == 0
    assert list(metrics(tmp_path)["results"]) == ["logits"]
    code, _, err = run("--mode", "kl", "--batch", "3")
    assert code == 2
    assert "batch_size = 8, now it is 3" in err


def test_a_bad_photo_makes_the_result_partial(run, stubbed, folder, tmp_path):
    (folder / "images" / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "masks" / "c.png").unlink()
    code, _, err = run()
    assert code == cli.PARTIAL
    assert "skipped b: [I0" in err
    assert "skipped c: [I01]" in err
    assert "PARTIAL: 1 of 3 photos" in err
    assert [each["name"] for each in metrics(tmp_path)["skipped"]] == ["b", "c"]
    (tmp_path / "out" / "journal.jsonl").unlink()
    assert run("--strict")[0] == 3


def test_saved_labels_are_scored_again_without_networks(
    run, stubbed, tmp_path, monkeypatch
):
    assert run("--rescore")[0] == 2  # nothing there yet
    assert run("--save-labels")[0] == 0
    before = (tmp_path / "out" / "metrics.json").read_bytes()
    (tmp_path / "out" / "metrics.json").unlink()
    monkeypatch.setattr(evaluate, "load", None)
    code, out, _ = run("--rescore")
    assert code == 0
    assert "velocity: mIoU" in out
    assert (tmp_path / "out" / "metrics.json").read_bytes() == before
    (tmp_path / "out" / "labels" / "path" / "b.png").unlink()
    assert run("--rescore")[0] == cli.PARTIAL


def test_shards_and_their_sum(run, stubbed, tmp_path, monkeypatch):
    assert run()[0] == 0
    expected = (tmp_path / "out" / "metrics.json").read_bytes()
    shutil.rmtree(tmp_path / "out")
    code, _, err = run("--batch", "2", "--shard", "0/2")
    assert code == 0
    assert "2/2 photos" in err
    assert "--merge instead of --shard" in err
    assert run("--merge")[0] == 2  # 1/2 is missing
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run("--batch", "2", "--shard", "auto")[0] == 0
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "load", None)  # no network is needed
        code, out, err = run("--merge")
    assert code == 0
    assert "velocity: mIoU" in out
    found, whole = metrics(tmp_path), json.loads(expected)
    assert found == whole | {"batch_size": 2}
    code, _, err = run("--merge", "--shard", "0/2", "--rescore")
    assert code == 2
    assert "--merge and --rescore and --shard together" in err


def test_interrupted_once_and_continued(run, stubbed, tmp_path, monkeypatch):
    measure = StubSweep.measure

    def interrupted(self, samples, cells):
        if len(self.batches) == 0:
            signal.raise_signal(signal.SIGINT)
        return measure(self, samples, cells)

    with monkeypatch.context() as patch:
        patch.setattr(StubSweep, "measure", interrupted)
        code, _, err = run()
    assert code == cli.INTERRUPTED
    assert "finishing what is being written" in err
    assert stubbed[0].batches == [("a", "b")]
    assert run()[0] == 0
    assert stubbed[1].batches[0] == ("c",)


def test_the_second_interrupt_stops_at_once():
    before = signal.getsignal(signal.SIGINT)
    told = []
    with interruptible(Console(quiet=True), lambda *each: told.append(each)) as watch:
        watch(1, 3)
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            watch(2, 3)
    assert told == [(1, 3), (2, 3)]
    assert signal.getsignal(signal.SIGINT) is before


def measuring_at(monkeypatch, seconds, **options):
    """Progress that is written to a string, with a clock that is set by hand."""
    monkeypatch.setattr(terminal.time, "monotonic", lambda: seconds[0])
    console = Console(file=io.StringIO(), width=100, **options)
    return terminal.Measuring(console, 4, 0, dict), console.file


def test_lines_tell_what_compiles_and_not_all_of_it(monkeypatch):
    seconds = [0.0]
    shown, file = measuring_at(monkeypatch, seconds)
    for now, stage, compiles in [
        (0, "clip", True),
        (1, "unet", True),
        (2, "solver", True),
        (3, "solver", True),  # for another shape, soon after the line before
        (4, "unet", False),
        (9, "solver", True),
        (10, "clip", True),
    ]:
        seconds[0] = float(now)
        shown.stage(stage, compiles)
    shown(4, 4)
    stages = ("clip", "unet", "solver", "solver")
    assert file.getvalue().splitlines() == [
        *(f"compiling {stage} (once per shape)" for stage in stages),
        "4/4 photos, 10 s",
    ]


def test_a_bar_tells_what_compiles_while_it_does(monkeypatch):
    shown, file = measuring_at(monkeypatch, [0.0], force_terminal=True)
    (task,) = shown._bar.tasks
    assert task.description == "photos"
    shown(1, 4)
    words = task.description
    assert words == "at most 0 s to go"  # with what the first batch compiled
    shown.stage("clip", True)
    assert task.description == "compiling clip (once per shape)"
    shown.stage("unet", False)
    assert task.description == words
    assert "compiling" not in file.getvalue()  # no line, as the bar was never drawn


def copy_as_voc(folder):
    """The photos of a folder of one's own once more, as the first of VOC 2012."""
    root = folder.parent / "VOCdevkit" / "VOC2012"
    for place, kind in (("JPEGImages", "images"), ("SegmentationClass", "masks")):
        shutil.copytree(folder / kind, root / place)
    for path in (root / "JPEGImages").iterdir():
        path.rename(path.with_suffix(".jpg"))
    names = root / "ImageSets" / "Segmentation" / "val.txt"
    names.parent.mkdir(parents=True)
    names.write_text("a\nb\nc\n")


def test_a_part_of_a_benchmark_is_told_before_anything_runs(
    run, stubbed, folder, capsys
):
    copy_as_voc(folder)
    words = "photos; voc21 is published with 1449, and only scores on all of them"
    root = ("--root", str(folder.parent))
    code, _, err = run("--limit", "2", *root, dataset=("voc21",))
    assert code == 0
    assert f"warning: 2 {words}" in err
    assert err.index("warning") < err.index("loading checkpoints")
    out = ("--out", str(folder.parent / "ablation"))
    absent = ("--model", "demo", "--device", "x")
    assert cli.main(["ablate", "--dataset", "voc21", *root, *absent, *out]) == 5
    assert f"warning: 3 {words}" in capsys.readouterr().err


def test_a_benchmark_is_measured_as_a_published_method_does(
    run, stubbed, folder, tmp_path
):
    copy_as_voc(folder)
    options = ("--protocol", "clearclip", "--root", str(folder.parent))
    assert run(*options, dataset=("voc21",))[0] == 0
    found = metrics(tmp_path)
    assert found["dataset"]["protocol"] == "clearclip"
    assert found["dataset"]["background"] == ["background"]
    assert found["classes"][:2] == ["background", "aeroplane"]
    config = found["results"]["path"]["config"]
    assert (config["short_side"], config["window"]) == (448, 448)
    assert (config["background_scale"], config["background_threshold"]) == (50, 0.5)
    # The same folder may not be continued as another protocol.
    code, _, err = run("--root", str(folder.parent), dataset=("voc21",))
    assert (code, "[O04]" in err) == (2, True)


def test_large_photos_need_a_greater_limit(run, stubbed, tmp_path):
    code, _, err = run("--max-pixels", "40")
    assert (code, "I04" in err) == (cli.PARTIAL, True)
    assert metrics(tmp_path)["scored"] == 0


def test_no_warning_where_nothing_is_published(run, stubbed):
    assert "warning: " not in run()[2]


def test_too_little_device_memory(run, stubbed, tmp_path, monkeypatch):
    def fail(*_):
        raise DeviceError("D01", "stage 'affinity' needs more memory")

    monkeypatch.setattr(StubSweep, "measure", fail)
    code, _, err = run()
    assert code == 5
    assert "[D01]" in err


def test_a_limit_takes_the_first(run, stubbed, tmp_path):
    assert run("--limit", "2")[0] == 0
    assert metrics(tmp_path)["expected"] == 2
    assert [p["name"] for p in metrics(tmp_path)["results"]["path"]["photos"]] == [
        "a",
        "b",
    ]


@pytest.mark.parametrize(
    ("dataset", "arguments", "words"),
    [
        ("coco", (), ["[O03]", "'coco'", "scenes", "voc21", "folder"]),
        ("scenes", ("--seeds", "7"), ["FIRST:END"]),
        ("folder", ("--batch", "0"), ["--batch 0"]),
        ("folder", ("--limit", "0"), ["--limit 0"]),
        ("folder", ("--max-pixels", "0"), ["--max-pixels 0"]),
        ("folder", ("--protocol", "sclip"), ["--protocol sclip", "of all"]),
        ("scenes", ("--protocol", "sclip"), ["--protocol sclip", "all, foreground"]),
        ("voc21", ("--protocol", "foreground"), ["[O01]", "naclip, proxyclip"]),
        ("folder", ("--mode", "best"), ["mode", "velocity"]),
    ],
)
def test_bad_options_run_nothing(run, tmp_path, dataset, arguments, words):
    code, out, err = run(*arguments, dataset=(dataset,))
    assert code == 2
    for word in words:
        assert word in " ".join((out + err).split())
    assert not (tmp_path / "out").exists()


def test_a_data_set_needs_its_folder(capsys):
    assert cli.main(["eval", "voc21"]) == 2
    assert "--root" in capsys.readouterr().err


def test_an_output_folder_that_is_a_file(run, stubbed, tmp_path):
    (tmp_path / "out").write_text("mine")
    code, _, err = run()
    assert code == cli.PARTIAL
    assert "[O06] cannot write" in err


def test_the_networks_themselves(checkpoint, tmp_path, capsys):
    """Without a stub: two drawn scenes, and the same bytes after an interruption."""
    config = tmp_path / "base.toml"
    small = 'affinity_size = 64\nshort_side = 64\ntemplates = "single"\n'
    config.write_text(small + "background_threshold = 0.06\n")
    arguments = (
        *("eval", "scenes", "--seeds", "0:3", "--size", "48x64", "--batch", "2"),
        *("--mode", "kl", "--model", str(checkpoint), "--config", str(config)),
        *("--protocol", "foreground"),
    )
    assert cli.main([*arguments, "--out", str(tmp_path / "whole")]) == 0
    expected = (tmp_path / "whole" / "metrics.json").read_bytes()
    found = json.loads(expected)
    assert (found["precision"], found["batch_size"]) == ("float32", 2)
    shares = [photo["unsure"] for photo in found["results"]["kl"]["photos"]]
    assert len(shares) == 3
    assert found["results"]["kl"]["unsure"] == pytest.approx(sum(shares) / 3)
    page = (tmp_path / "whole" / "metrics.md").read_text()
    assert f"{100 * sum(shares) / 3:.2f} % of the pixels are background" in page
    journal = (tmp_path / "whole" / "journal.jsonl").read_bytes()
    os.makedirs(tmp_path / "torn")
    torn = tmp_path / "torn" / "journal.jsonl"
    torn.write_bytes(journal[: journal.rfind(b"\n", 0, -1) + 9])
    assert cli.main([*arguments, "--out", str(tmp_path / "torn")]) == 0
    assert (tmp_path / "torn" / "metrics.json").read_bytes() == expected
    assert sweep_module.Sweep is evaluate.Sweep
    assert "kl: mIoU" in capsys.readouterr().out
