"""``dslo segment`` over folders: continued, divided, limited, and never mixed up."""

import json
import signal

import pytest
from PIL import Image

from dslo_jax import Segmenter, outputs
from dslo_jax.runs import only_run, photos
from tests.pipeline.conftest import FAST


@pytest.fixture
def folder(tmp_path, make_photo):
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(3):
        Image.fromarray(make_photo(50, 75, index)).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def segment(run, folder):
    def segment(*arguments, names=("--classes", "cat, sofa")):
        return run(folder, *names, *FAST, *arguments)

    return segment


def results(tmp_path):
    return sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir())


def test_the_same_command_has_nothing_left_to_do(segment, tmp_path):
    code, out, _ = segment("--batch", "2")
    assert (code, out.count(" -> ")) == (0, 3)
    code, out, err = segment("--batch", "2")
    assert (code, out.count(" -> ")) == (0, 0)
    assert "3 of 3 photos are done by an earlier run" in err
    report = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (report["status"], report["done"]) == ("complete", 3)


def test_new_photos_join_a_finished_run(segment, tmp_path, folder, make_photo):
    segment()
    Image.fromarray(make_photo(40, 40)).save(folder / "new.png")
    code, out, _ = segment()
    assert (code, out.count(" -> ")) == (0, 1)
    assert results(tmp_path) == ["0.png", "1.png", "2.png", "new.png"]


def test_other_classes_are_refused_and_named(segment, tmp_path):
    segment()
    before = (tmp_path / "out" / "0.png" / "segmentation.json").read_text()
    other = ("--classes", "cat, wall")
    code, _, err = segment(names=other)
    assert code == 2
    assert "O04" in err
    assert "classes" in err
    assert (tmp_path / "out" / "0.png" / "segmentation.json").read_text() == before
    code, out, _ = segment("--overwrite", names=other)
    assert (code, out.count(" -> ")) == (0, 3)


def test_a_folder_that_another_run_uses(segment, tmp_path):
    with only_run(tmp_path / "out"):
        code, _, err = segment()
    assert code == 2
    assert "O08" in err


@pytest.mark.parametrize(
    ("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_a_signal_ends_a_run_that_can_go_on(
    segment, tmp_path, monkeypatch, number, expected
):
    before = signal.getsignal(number)
    write = outputs.write_folder

    def write_and_signal(folder, files):
        written = write(folder, files)
        signal.raise_signal(number)
        return written

    with monkeypatch.context() as patch:
        patch.setattr(outputs, "write_folder", write_and_signal)
        patch.setattr(photos, "_WRITERS", 1)
        code, out, err = segment()
    assert code == expected
    assert "The same command continues" in err
    # The signal may arrive before the first photo is announced.
    assert out.count(" -> ") < 3
    assert 1 <= len(results(tmp_path)) < 3
    report = json.loads((tmp_path / "out" / "run.json").read_text())
    assert report["status"] == "interrupted"
    assert signal.getsignal(number) is before
    code, _, _ = segment()
    assert code == 0
    assert results(tmp_path) == ["0.png", "1.png", "2.png"]


def test_results_are_not_read_as_photos(run, folder, tmp_path):
    inside = tmp_path / "photos"
    for _ in range(2):
        arguments = (inside, "--recursive", "--classes", "cat, sofa", *FAST)
        code, out, _ = run(*arguments, "--overwrite", out=folder / "results")
        assert (code, out.count(" -> ")) == (0, 3)


def test_shards_share_a_folder(segment, tmp_path):
    for index in range(2):
        code, _, _ = segment("--shard", f"{index}/2")
        assert code == 0
    assert results(tmp_path) == ["0.png", "1.png", "2.png"]
    parts = [
        json.loads((tmp_path / "out" / f"run-{index}of2.json").read_text())
        for index in range(2)
    ]
    assert [part["done"] for part in parts] == [2, 1]
    code, _, err = segment("--shard", "2/2")
    assert code == 2
    assert "0/4" in err


def test_a_limit_and_a_list_of_names(run, folder, tmp_path):
    listed = tmp_path / "names.txt"
    listed.write_bytes(
        f"\ufeff{folder / '2.png'}\r\n\r\n{folder / '0.png'}\r\n".encode()
    )
    names = ("--files-from", listed, "--classes", "cat, sofa", *FAST)
    code, out, _ = run(*names, "--limit", "1")
    assert (code, out.count(" -> ")) == (0, 1)
    assert results(tmp_path) == ["2.png"]


def test_a_limit_on_a_finished_run_keeps_the_report_of_all(segment, tmp_path):
    assert segment()[0] == 0
    report = tmp_path / "out" / "run.json"
    whole = json.loads(report.read_text())
    code, out, _ = segment("--limit", "1")
    assert (code, out.count(" -> ")) == (0, 0)
    found = json.loads(report.read_text())
    assert found.pop("written_utc") >= whole.pop("written_utc")
    assert found == whole
    (tmp_path / "out" / "2.png" / "labels.png").unlink()
    segment("--limit", "1")
    assert json.loads(report.read_text())["done"] == 2


@pytest.mark.parametrize("option", ["--limit", "--batch", "--max-pixels"])
def test_numbers_start_at_one(segment, option):
    code, _, err = segment(option, "0")
    assert code == 2
    assert f"{option} 0" in err


def test_files_are_chosen(segment, tmp_path):
    code, _, _ = segment("--write", "json, labels")
    assert code == 0
    files = sorted(path.name for path in (tmp_path / "out" / "0.png").iterdir())
    assert files == ["labels.png", "segmentation.json"]
    code, _, err = segment("--write", "labels,masks", "--overwrite")
    assert code == 2
    assert "'masks'" in err


def test_classes_of_repeated_options_are_joined(run, folder, tmp_path):
    code, _, _ = run(folder, "--classes", "cat", "--classes", "sofa, wall", *FAST)
    assert code == 0
    text = (tmp_path / "out" / "0.png" / "segmentation.json").read_text()
    assert [c["name"] for c in json.loads(text)["classes"]] == ["cat", "sofa", "wall"]


def test_a_mode_without_attention_needs_no_checkpoint_of_it(segment):
    code, out, err = segment("--attention", "sd2")
    assert code == 0, err
    assert out.count(" -> ") == 3


def test_a_signal_while_the_networks_are_loaded_ends_the_run_at_once(
    segment, tmp_path, monkeypatch
):
    load = Segmenter.from_pretrained

    def load_and_signal(*arguments, **options):
        signal.raise_signal(signal.SIGINT)
        return load(*arguments, **options)

    monkeypatch.setattr(Segmenter, "from_pretrained", load_and_signal)
    # A shell starts processes in the background with this signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code, out, err = segment()
    finally:
        signal.signal(signal.SIGINT, before)
    assert (code, out) == (130, "")
    assert "interrupted" in err
    assert results(tmp_path) == []
