import json
import os
import subprocess
import sys
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest
from PIL import Image

from dslo_jax.errors import ImageError, OptionError, OutputError
from dslo_jax.images import FoundPhoto
from dslo_jax.images.parts import Stdin
from dslo_jax.runs import PhotoRun, Shard
from dslo_jax.stream import FailedPhoto
from tests.runs.killed_run import CLASSES, CannedSegmenter


HEADER = {"checkpoint": "a"}
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def canned():
    return CannedSegmenter()


@pytest.fixture
def segmenter(canned):
    """Counts what it is asked for; the photos in ``broken`` fail."""

    class Counting:
        def __init__(self):
            self.asked, self.broken = [], {"2.png"}

        def stream(self, photos, classes, **options):
            for place in photos:
                self.asked.append(place.name)
                if place.name in self.broken:
                    yield FailedPhoto(place, ImageError("I02", "not an image"))
                else:
                    yield canned.results[place.name]

    return Counting()


def photos(count):
    return [FoundPhoto(Path("in", f"{i}.png"), f"{i}.png") for i in range(count)]


def start(out, count=5, **options):
    return PhotoRun(photos(count), out, CLASSES, HEADER, batch_size=2, **options)


def finish(run, segmenter, stop_after=None):
    events = []
    generator = run.finish(segmenter, run.open_journal())
    for event in generator:
        events.append(event)
        if len(events) == stop_after:
            generator.close()
    return events


def test_every_photo_has_its_result_or_its_reason(tmp_path, segmenter):
    run = start(tmp_path)
    events = finish(run, segmenter)
    assert [event.place.name for event in events] == [f"{i}.png" for i in range(5)]
    report = json.loads(run.report_path.read_text())
    assert (report["status"], report["found"], report["done"]) == ("partial", 5, 4)
    assert report["photos"][2] == {
        "name": "2.png",
        "source": "in/2.png",
        "error": "[I02] not an image",
    }
    assert (tmp_path / "4.png" / "labels.png").is_file()
    assert not (tmp_path / "2.png").exists()


def test_a_run_goes_on_where_it_was_stopped(tmp_path, segmenter):
    run = start(tmp_path)
    finish(run, segmenter, stop_after=1)
    assert json.loads(run.report_path.read_text())["status"] == "interrupted"
    segmenter.asked.clear()
    finish(run, segmenter)
    # The batch that was not finished is done again, whole.
    assert segmenter.asked == ["0.png", "1.png", "2.png", "3.png", "4.png"]
    segmenter.asked.clear()
    segmenter.broken.clear()
    (event,) = finish(run, segmenter)  # the photo that failed is tried again
    assert segmenter.asked == ["2.png"]
    assert event.folder.is_dir()
    assert json.loads(run.report_path.read_text())["status"] == "complete"
    assert finish(run, segmenter) == []


def test_results_that_were_removed_are_made_again(tmp_path, segmenter):
    segmenter.broken.clear()
    finish(start(tmp_path), segmenter)
    for file in (tmp_path / "4.png").iterdir():
        file.unlink()
    (tmp_path / "4.png").rmdir()
    (tmp_path / "0.png" / "labels.png").unlink()
    segmenter.asked.clear()
    finish(start(tmp_path), segmenter)
    assert segmenter.asked == ["0.png", "1.png", "4.png"]  # whole batches
    assert (tmp_path / "0.png" / "labels.png").is_file()


class Reader:
    """Segments photos that are on the disk: the classes are there, the maps are not."""

    def __init__(self, canned):
        self.asked, self._canned = [], canned

    def stream(self, photos, classes, **options):
        for place in photos:
            self.asked.append(place.origin)
            yield replace(self._canned.results["0.png"], photo=place.read())


def draw(path, colour):
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (56, 40), colour).save(path)
    os.utime(path, (0, 0))  # as an archive or a checkout may leave them
    return FoundPhoto(path, path.name)


def test_a_photo_that_changed_is_done_again(tmp_path, canned):
    found = [draw(tmp_path / "in" / f"{i}.bmp", "teal") for i in range(2)]
    run = PhotoRun(found, tmp_path / "out", CLASSES, HEADER)
    finish(run, Reader(canned))
    os.utime(found[0].path)  # the same bytes
    draw(found[1].path, "navy")
    os.utime(found[1].path)
    again = Reader(canned)
    finish(run, again)
    assert again.asked == [str(found[1].path)]
    assert finish(run, Reader(canned)) == []


def test_another_photo_of_the_same_name_is_refused(tmp_path, canned):
    here, there = (
        draw(tmp_path / folder / "1.bmp", colour)
        for folder, colour in (("a", "teal"), ("b", "navy"))
    )
    copy = draw(tmp_path / "c" / "1.bmp", "teal")
    out = tmp_path / "out"
    finish(PhotoRun([here], out, CLASSES, HEADER), Reader(canned))
    with pytest.raises(OptionError, match=r"O09.*a.1\.bmp.*not of.*b.1\.bmp.*--overwr"):
        PhotoRun([there], out, CLASSES, HEADER).open_journal()
    assert finish(PhotoRun([copy], out, CLASSES, HEADER), Reader(canned)) == []
    anew = PhotoRun([there], out, CLASSES, HEADER, overwrite=True)
    assert len(finish(anew, Reader(canned))) == 1


def test_standard_input_is_always_read(tmp_path, canned, monkeypatch):
    found = [FoundPhoto(Path("stdin"), "stdin", Stdin())]
    run = PhotoRun(found, tmp_path / "out", CLASSES, HEADER)
    for colour in ("teal", "navy"):
        file = draw(tmp_path / "in" / "1.bmp", colour).path
        with file.open() as stdin:
            monkeypatch.setattr("sys.stdin", stdin)
            (event,) = finish(run, Reader(canned))
        assert (
            event.result.photo.pixels[0, 0].tolist() == [0, 0, 128] or colour == "teal"
        )


def test_another_run_in_the_folder_is_refused(tmp_path, segmenter):
    finish(start(tmp_path), segmenter)
    other = PhotoRun(photos(5), tmp_path, CLASSES, {"checkpoint": "b"})
    text = r"O04.*begun with checkpoint = 'a', now it is 'b'.*--out.*--overwrite"
    with pytest.raises(OptionError, match=text):
        other.open_journal()
    again = PhotoRun(photos(5), tmp_path, CLASSES, {"checkpoint": "b"}, overwrite=True)
    assert len(finish(again, segmenter)) == 5


def test_a_folder_is_refused_before_the_networks_are_known(tmp_path, segmenter):
    start(tmp_path).check()
    finish(start(tmp_path), segmenter)
    start(tmp_path).check()
    known = {"classes": ["sea"]}
    with pytest.raises(OptionError, match=r"O04.*classes = None, now it is \['sea'\]"):
        PhotoRun(photos(5), tmp_path, CLASSES, known).check()
    PhotoRun(photos(5), tmp_path, CLASSES, known, overwrite=True).check()
    other = tmp_path / "other"
    (other / "3.png").mkdir(parents=True)
    with pytest.raises(OptionError, match=r"O09.*3\.png"):
        start(other).check()


def test_a_run_without_any_result_makes_room_for_another(tmp_path, segmenter):
    segmenter.broken = {f"{index}.png" for index in range(5)}
    assert len(finish(start(tmp_path), segmenter)) == 5
    segmenter.broken = set()
    other = PhotoRun(photos(5), tmp_path, CLASSES, {"checkpoint": "b"})
    assert len(finish(other, segmenter)) == 5
    assert not other.failures(other.open_journal())


def test_folders_of_unknown_origin_are_not_replaced(tmp_path, segmenter):
    (tmp_path / "3.png").mkdir()
    with pytest.raises(OptionError, match=r"O09.*3\.png.*--overwrite"):
        start(tmp_path).open_journal()
    assert len(finish(start(tmp_path, overwrite=True), segmenter)) == 5


def test_shards_divide_the_list(tmp_path, segmenter):
    found = photos(5)
    shards = [Shard(index, 2) for index in range(2)]
    parts = [shard.part_of(found, batch_size=1) for shard in shards]
    assert sorted(chain(*parts)) == found
    for shard, part in zip(shards, parts, strict=True):
        run = PhotoRun(part, tmp_path, CLASSES, HEADER, shard=shard)
        finish(run, segmenter)
    assert (tmp_path / "journal-0of2.jsonl").is_file()
    assert (tmp_path / "run-1of2.json").is_file()
    assert {p.name for p in tmp_path.iterdir() if p.is_dir()} == {
        "0.png",
        "1.png",
        "3.png",
        "4.png",
    }


def test_a_full_disk_ends_the_run_and_keeps_what_is_done(
    tmp_path, segmenter, monkeypatch, canned
):
    kind = type(canned.results["0.png"])
    save = kind.save

    def full(result, folder, **options):
        if folder.name == "3.png":
            raise OSError(28, "No space left on device")
        return save(result, folder, **options)

    monkeypatch.setattr(kind, "save", full)
    with pytest.raises(OutputError, match=r"O06.*No space left"):
        finish(start(tmp_path), segmenter)
    monkeypatch.setattr(kind, "save", save)
    segmenter.asked.clear()
    finish(start(tmp_path), segmenter)
    assert segmenter.asked[:2] != ["0.png", "1.png"]
    assert (tmp_path / "3.png").is_dir()


def killed(tmp_path, kills):
    command = [sys.executable, HERE / "killed_run.py", tmp_path, str(kills), "0"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"killed {kills} times" in done.stdout


def test_a_run_that_is_killed_again_and_again_ends_in_the_same_bytes(tmp_path):
    killed(tmp_path, 10)


@pytest.mark.slow
def test_a_run_that_is_killed_two_hundred_times(tmp_path):
    killed(tmp_path, 200)


def test_photos_that_are_done_again_do_not_count_as_done(tmp_path, segmenter):
    segmenter.broken.clear()
    finish(start(tmp_path), segmenter, stop_after=1)
    run = start(tmp_path)
    assert run.done(run.open_journal()) == set()
    finish(start(tmp_path), segmenter, stop_after=3)
    assert run.done(run.open_journal()) == {"0.png", "1.png"}
