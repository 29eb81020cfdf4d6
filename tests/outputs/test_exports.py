"""Exports are read by other programs as the labels that they were made of."""

import json
import os
import re
import shutil

import numpy as np
import pytest
from conftest import NAMES, segment
from PIL import Image
from pycocotools.coco import COCO

from dslo_jax.errors import ImageError, OptionError, OutputError
from dslo_jax.outputs import EXPORTS, SavedResult, coco, read_results, write_export
from dslo_jax.outputs.label_studio import encode_brush


def test_saved_results(run, result):
    first, second = read_results(run)
    assert (first.name, second.name) == ("cat.png", "deep/b.c.jpg")
    np.testing.assert_array_equal(first.labels, result.labels)
    assert first.classes == result.classes


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # of pycocotools
def test_coco(run, tmp_path):
    target = write_export("coco", run, tmp_path / "out")
    read = COCO(target / "annotations.json")
    assert [each["name"] for each in read.cats.values()] == [*NAMES, "sea", "-"]
    for image, saved in zip(read.imgs.values(), read_results(run), strict=True):
        assert image["file_name"] == saved.name
        found = np.full(saved.labels.shape, -1)
        for each in read.imgToAnns[image["id"]]:
            mask = read.annToMask(each) == 1
            name = read.cats[each["category_id"]]["name"]
            assert (found[mask] == -1).all()
            found[mask] = saved.classes.index(name)
            assert each["area"] == mask.sum()
            left, top, width, height = each["bbox"]
            assert mask[top : top + height, left : left + width].sum() == mask.sum()
            assert mask[top].any()
            assert mask[:, left + width - 1].any()
        np.testing.assert_array_equal(found, saved.labels)


def test_coco_of_results_in_memory(result):
    content = coco([SavedResult("a.jpg", result.labels, result.summary())])
    assert sum(each["area"] for each in content["annotations"]) == result.labels.size


def test_cvat(run, tmp_path):
    folder = write_export("cvat", run, tmp_path / "out")
    lines = (folder / "labelmap.txt").read_text(encoding="utf-8").splitlines()
    assert lines[:2] == ["# label:color_rgb:parts:actions", "background:0,0,0::"]
    colours = {}
    for line in lines[1:]:
        name, colour, parts, actions = line.split(":")
        assert (parts, actions) == ("", "")
        colours[tuple(map(int, colour.split(",")))] = name
    assert list(colours.values()) == ["background", *NAMES, "sea", "-"]
    listed = folder / "ImageSets" / "Segmentation" / "default.txt"
    assert listed.read_text().splitlines() == ["cat", "deep/b.c"]
    for stem, saved in zip(["cat", "deep/b.c"], read_results(run), strict=True):
        with Image.open(folder / "SegmentationClass" / f"{stem}.png") as image:
            assert image.mode == "RGB"
            pixels = np.asarray(image)
        for label, name in enumerate(saved.classes):
            colour = next(c for c, other in colours.items() if other == name)
            mask = (pixels == colour).all(axis=-1)
            np.testing.assert_array_equal(mask, saved.labels == label)


def test_a_class_called_background_is_black_in_cvat(tmp_path):
    segment(tmp_path / "a.png", ["background", "b"]).save(tmp_path / "run" / "a.png")
    folder = write_export("cvat", tmp_path / "run", tmp_path / "out")
    assert (folder / "labelmap.txt").read_text().count("background:0,0,0::") == 1
    with Image.open(folder / "SegmentationClass" / "a.png") as image:
        assert (np.asarray(image) == 0).all(axis=-1).any()


@pytest.mark.parametrize("name", ["a:b", "# a"])
def test_names_that_cvat_cannot_have(tmp_path, name):
    segment(tmp_path / "a.png", [name, "b"]).save(tmp_path / "run" / "a.png")
    with pytest.raises(OutputError, match=rf"O06.*{name}"):
        write_export("cvat", tmp_path / "run", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_photos_that_are_one_to_cvat(run, tmp_path):
    for suffix in ("jpg", "png"):
        shutil.copytree(run / "cat.png", tmp_path / "run" / f"cat.{suffix}")
    with pytest.raises(OutputError, match=r"cat.jpg' and 'cat.png"):
        write_export("cvat", tmp_path / "run", tmp_path / "out")


def decode_brush(stream):
    """The values of a stream, bit by bit, as @thi.ng/rle-pack describes it."""
    bits = "".join(f"{byte:08b}" for byte in stream)
    place = 0

    def read(count):
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    total, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    values = []
    while len(values) < total:
        repeated, length = read(1), read(sizes[read(2)]) + 1
        count = 1 if repeated else length
        found = [read(word) for _ in range(count)]
        values += found * length if repeated else found
    return np.array(values)


@pytest.mark.parametrize(
    "mask",
    [
        np.zeros((3, 5), bool),
        np.ones((3, 5), bool),
        np.arange(15).reshape(3, 5) % 3 == 0,
        np.add.outer(np.zeros(250), np.arange(300)) > 298,
        np.add.outer(np.arange(250), np.zeros(300)) > 70,
    ],
)
def test_brush_strokes(mask):
    decoded = decode_brush(encode_brush(mask)).reshape(*mask.shape, 4)
    np.testing.assert_array_equal(decoded, 255 * np.repeat(mask[..., None], 4, axis=2))


def test_label_studio(run, tmp_path):
    folder = write_export("labelstudio", run, tmp_path / "out")
    tasks = json.loads((folder / "tasks.json").read_text(encoding="utf-8"))
    assert tasks[1]["data"]["image"] == "/data/local-files/?d=deep/b.c.jpg"
    for task, saved in zip(tasks, read_results(run), strict=True):
        (prediction,) = task["predictions"]
        for stroke in prediction["result"]:
            size = stroke["original_height"], stroke["original_width"]
            assert size == saved.labels.shape
            (name,) = stroke["value"]["brushlabels"]
            mask = decode_brush(stroke["value"]["rle"]).reshape(*size, 4)[..., 3] > 0
            np.testing.assert_array_equal(
                mask, saved.labels == saved.classes.index(name)
            )
    labels = (folder / "labels.xml").read_text(encoding="utf-8")
    assert "猫 &amp; &lt;b&gt;dog&lt;/b&gt;" in labels
    assert len(re.findall("<Label ", labels)) == len(NAMES) + 2


def test_a_photo_whose_name_is_not_utf8(result, tmp_path):
    result.save(tmp_path / "run" / os.fsdecode(b"bad\xff.jpg"))
    for kind in EXPORTS:
        write_export(kind, tmp_path / "run", tmp_path / kind)
    tasks = json.loads((tmp_path / "labelstudio" / "tasks.json").read_text())
    assert tasks[0]["data"]["image"].endswith("bad%FF.jpg")
    listed = tmp_path / "cvat" / "ImageSets" / "Segmentation" / "default.txt"
    assert listed.read_bytes() == b"bad\xff\n"


def test_what_cannot_be_exported(run, tmp_path):
    with pytest.raises(OptionError, match=r"O03.*'yolo'.*coco, cvat, labelstudio"):
        write_export("yolo", run, tmp_path / "out")
    with pytest.raises(OptionError, match=r"O05.*holds no results"):
        write_export("coco", tmp_path, tmp_path / "out")
    with pytest.raises(OutputError, match=r"O06.*holds files"):
        write_export("coco", run, run)
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / "cat.png" / "labels.png").unlink()
    with pytest.raises(ImageError, match=r"I01.*labels and json in --write"):
        write_export("coco", copy, tmp_path / "out")
    for text, words in [("{", "not JSON"), ("[]", "schema None")]:
        shutil.copy(run / "cat.png" / "labels.png", copy / "cat.png" / "labels.png")
        (copy / "cat.png" / "segmentation.json").write_text(text)
        with pytest.raises(OptionError, match=rf"O04.*{words}"):
            write_export("coco", copy, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", EXPORTS)
def test_the_folder_of_one_result_is_exported_under_its_name(run, tmp_path, kind):
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    write_export(kind, run / "cat.png", tmp_path / "export")
    (result,) = read_results(run / "cat.png")
    assert result.name == "cat.png"
