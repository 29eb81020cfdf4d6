import errno
import json
import shlex

import numpy as np
import pytest
from miniatures import SPECS, save
from PIL import Image

from dslo_jax import cli, errors
from dslo_jax.evaluation.datasets import BENCHMARKS, convert, find_dataset
from dslo_jax.evaluation.datasets.context import _CATEGORIES
from dslo_jax.outputs.rle import encode_runs


# Never used, of the ids 0 to 90 for things and 91 to 181 for stuff.
COCO_GAPS = {11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90}
CITYSCAPES = {  # id: class, by name
    **{7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole"},
    **{19: "trafficlight", 20: "trafficsign", 21: "vegetation", 22: "terrain"},
    **{23: "sky", 24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus"},
    **{31: "train", 32: "motorcycle", 33: "bicycle"},
}


def coco_stuff(value):
    if value == 255:
        return 255
    return sum(other not in COCO_GAPS for other in range(value))


def coco_object(value):
    return 0 if value > 90 else coco_stuff(value) + 1


def cityscapes(value):
    titles = BENCHMARKS["cityscapes"].classes.titles
    return titles.index(CITYSCAPES[value]) if value in CITYSCAPES else 255


COCO_IDS = [value for value in range(182) if value not in COCO_GAPS] + [255]
PUBLISHED = {  # file of the published labels, ids in them, and what they become
    "coco_stuff": ("annotations/val2017/{}.png", COCO_IDS, coco_stuff),
    "coco_object": ("annotations/val2017/{}.png", COCO_IDS, coco_object),
    "cityscapes": ("gtFine/val/{}_gtFine_labelIds.png", [*range(34)], cityscapes),
}


def publish(name, data):
    """Photos and published labels of a miniature; every id occurs."""
    template, ids, _ = PUBLISHED[name]
    spec, root, stored = SPECS[name], data / SPECS[name].home, {}
    rng = np.random.default_rng(9)
    for sample in spec.names:
        stored[sample] = rng.permutation(np.resize(ids, (14, 16)).ravel())
        stored[sample] = stored[sample].reshape(14, 16).astype(np.uint8)
        save(root / template.format(sample), stored[sample])
        save(root / spec.photo.format(sample), np.zeros((14, 16, 3), np.uint8))
    return root, stored


@pytest.mark.parametrize("name", PUBLISHED)
def test_converts_like_a_slow_loop(tmp_path, name):
    root, stored = publish(name, tmp_path)
    found = convert(name, tmp_path)
    folder = root / BENCHMARKS[name].layout.label_folders[0]
    assert found == (folder, 3, 0)
    for sample, values in stored.items():
        written = np.array(Image.open(root / SPECS[name].labels.format(sample)))
        expected = [PUBLISHED[name][2](value) for value in values.ravel().tolist()]
        np.testing.assert_array_equal(written.ravel(), expected)
        source = np.array(Image.open(root / PUBLISHED[name][0].format(sample)))
        np.testing.assert_array_equal(source, values)
    shown = {
        label
        for sample in find_dataset(name, root)
        for label in np.unique(sample.truth)
    }
    ignored = set() if name == "coco_object" else {255}
    assert shown == set(range(SPECS[name].num_classes)) | ignored


@pytest.mark.parametrize("name", PUBLISHED)
def test_can_be_interrupted_and_repeated(tmp_path, name):
    root, _ = publish(name, tmp_path)
    convert(name, root)
    paths = [root / SPECS[name].labels.format(sample) for sample in SPECS[name].names]
    before = [path.read_bytes() for path in paths]
    paths[1].unlink()
    assert convert(name, root)[1:] == (1, 2)
    assert convert(name, root)[1:] == (0, 3)
    assert [path.read_bytes() for path in paths] == before
    assert not list(root.rglob("*.part"))


def test_the_command_that_an_error_names_converts(tmp_path, capsys):
    root, _ = publish("cityscapes", tmp_path / "my data")
    with pytest.raises(errors.OptionError) as info:
        find_dataset("cityscapes", tmp_path / "my data")
    command = next(line for line in str(info.value).split("\n") if "dslo" in line)
    program, *arguments = shlex.split(command)
    assert program == "dslo"
    for written, kept in ((3, 0), (0, 3)):
        assert cli.main(arguments) == 0
        out, err = capsys.readouterr()
        line = f"{root}/gtFine/val: {written} label files written, {kept} were there"
        assert out.startswith(line)
        assert "converting the labels of cityscapes\n3/3 label files, " in err
    assert len(find_dataset("cityscapes", root)) == 3


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("coco", "--root", "."), 2, "[O03] no benchmark 'coco'"),
        (("voc21", "--root", "."), 2, "[O03] the labels of voc21 are used as"),
        (("cityscapes", "--root", "nowhere"), 2, "[O07] no folder of photos"),
        (("cityscapes",), 2, "--root"),
    ],
)
def test_the_command_tells_what_it_cannot_convert(capsys, arguments, code, words):
    assert cli.main(["convert", *arguments]) == code
    assert words in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("name", ["cityscapes", "context60"])
def test_the_progress_is_told(tmp_path, name):
    publish(name, tmp_path) if name in PUBLISHED else publish_context(tmp_path)
    count, told = (3 if name in PUBLISHED else 2), []
    convert(name, tmp_path, watch=lambda *each: told.append(each))
    assert told == [(done, count) for done in range(1, count + 1)]


def test_a_full_disk_is_told_and_what_was_written_is_kept(tmp_path, monkeypatch):
    root, _ = publish("cityscapes", tmp_path)
    paths = [
        root / SPECS["cityscapes"].labels.format(sample)
        for sample in SPECS["cityscapes"].names
    ]
    save_image, saved = Image.Image.save, []

    def full(image, file, *arguments):
        if saved:
            file.write(b"\x89PNG")
            raise OSError(errno.ENOSPC, "No space left on device")
        saved.append(file)
        save_image(image, file, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", full)
        with pytest.raises(errors.OutputError, match=r"O06.*No space left") as info:
            convert("cityscapes", root)
    assert str(paths[1]) in str(info.value)
    assert "--out" not in str(info.value)
    assert [path.exists() for path in paths] == [True, False, False]
    assert not list(root.rglob("*.part"))
    assert convert("cityscapes", root)[1:] == (2, 1)


def test_a_list_of_names_that_cannot_be_written_is_told(tmp_path):
    root, _, _ = publish_context(tmp_path)
    (root / "ImageSets").write_text("in the way")
    with pytest.raises(errors.OutputError, match=r"O06.*SegmentationContext/val\.txt"):
        convert("context60", root)
    (root / "ImageSets").unlink()
    assert convert("context60", root)[1:] == (0, 2)
    assert len(find_dataset("context60", root)) == 2


def test_the_two_coco_sets_are_converted_from_the_same_files(tmp_path):
    root, _ = publish("coco_stuff", tmp_path)
    assert convert("coco_stuff", root).written == 3
    assert convert("coco_object", root).written == 3
    assert convert("coco_stuff", root)[1:] == (0, 3)
    assert len(list((root / "annotations/val2017").iterdir())) == 9


@pytest.mark.parametrize("name", PUBLISHED)
def test_never_replaces_other_labels(tmp_path, name):
    root, _ = publish(name, tmp_path)
    path = root / SPECS[name].labels.format(SPECS[name].names[1])
    save(path, np.zeros((14, 16), np.uint8))
    before = path.read_bytes()
    with pytest.raises(errors.ImageError, match=r"I09.*there already") as info:
        convert(name, root)
    assert str(path) in str(info.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize(("name", "value"), [("coco_stuff", 11), ("cityscapes", 34)])
def test_an_id_that_does_not_exist_is_told_with_its_file(tmp_path, name, value):
    root, stored = publish(name, tmp_path)
    sample = SPECS[name].names[2]
    stored[sample][0, 0] = value
    path = root / PUBLISHED[name][0].format(sample)
    save(path, stored[sample])
    with pytest.raises(errors.ImageError, match=f"I09.*the value {value}") as info:
        convert(name, root)
    assert str(path) in str(info.value)
    assert not (root / SPECS[name].labels.format(sample)).exists()


@pytest.mark.parametrize("name", PUBLISHED)
def test_finding_tells_how_to_convert(tmp_path, name):
    root, _ = publish(name, tmp_path)
    with pytest.raises(errors.OptionError, match=r"O07.*3 of 3.*not converted") as info:
        find_dataset(name, root)
    assert f"\n  dslo convert {name} --root {root}\n" in str(info.value)
    convert(name, root)
    (root / SPECS[name].labels.format(SPECS[name].names[0])).unlink()
    with pytest.raises(errors.OptionError, match="1 of 3 label files are missing"):
        find_dataset(name, root)


@pytest.mark.parametrize("name", ["voc21", "voc20", "ade20k"])
def test_what_needs_no_conversion(tmp_path, name):
    with pytest.raises(errors.OptionError, match=r"O03.*context60, coco_object"):
        convert(name, tmp_path)


def test_nothing_to_convert(tmp_path):
    root, _ = publish("cityscapes", tmp_path)
    (root / "gtFine").rename(root / "gtCoarse")
    with pytest.raises(errors.OptionError, match=r"O07.*no labels to convert"):
        convert("cityscapes", tmp_path)


def region(image_id, category, mask):
    counts = encode_runs(mask)
    segmentation = {"size": list(mask.shape), "counts": counts}
    return {"image_id": image_id, "category_id": category, "segmentation": segmentation}


def publish_context(data):
    """Images of two splits with regions that overlap, and what they should become."""
    root, rng = data / "VOCdevkit/VOC2010", np.random.default_rng(10)
    images, regions, expected = [], [], {}
    for number, phase in enumerate(["val", "train", "val"]):
        name, size = f"2008_00000{number}", (9 + number, 12)
        file_name = f"{name}.jpg"
        save(root / "JPEGImages" / file_name, np.zeros((*size, 3), np.uint8))
        image = {"image_id": number, "file_name": file_name, "phase": phase}
        images.append({**image, "height": size[0], "width": size[1]})
        labels = np.zeros(size, np.uint8)
        for label in rng.permutation(60)[:6].tolist():
            mask = rng.random(size) < 0.3
            regions.append(region(number, _CATEGORIES[label], mask))
            for place in np.argwhere(mask):
                labels[tuple(place)] = label
        if phase == "val":
            expected[name] = labels
    content = {"images": images, "annos_segmentation": regions}
    (root / "trainval_merged.json").write_text(json.dumps(content))
    return root, content, expected


def test_context_is_drawn_region_over_region(tmp_path):
    root, _, expected = publish_context(tmp_path)
    with pytest.raises(errors.OptionError, match=r"O07.*not converted"):
        find_dataset("context60", tmp_path)
    folder = root / "SegmentationClassContext"
    assert convert("context60", tmp_path) == (folder, 2, 0)
    assert convert("context59", tmp_path) == (folder, 0, 2)
    assert sorted(path.stem for path in folder.iterdir()) == sorted(expected)
    assert find_dataset("context59", tmp_path).names == tuple(sorted(expected))
    for sample in find_dataset("context60", root):
        np.testing.assert_array_equal(sample.truth, expected[sample.name])


def test_a_list_of_names_that_is_there_is_kept(tmp_path):
    root, _, _ = publish_context(tmp_path)
    split = root / "ImageSets/SegmentationContext/val.txt"
    split.parent.mkdir(parents=True)
    split.write_text("2008_000002\n")
    convert("context60", root)
    assert split.read_text() == "2008_000002\n"
    assert find_dataset("context60", root).names == ("2008_000002",)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda c: c.pop("annos_segmentation"), "KeyError: 'annos_segmentation'"),
        (lambda c: c["annos_segmentation"][0].update(category_id=3), "category 3"),
        (lambda c: c["images"][0].update(height=8), "expected 8 x 12"),
        (
            lambda c: c["annos_segmentation"][0]["segmentation"].update(counts=[1, 2]),
            "run lengths as text",
        ),
    ],
)
def test_annotations_of_another_kind_are_told(tmp_path, change, fault):
    root, content, _ = publish_context(tmp_path)
    change(content)
    (root / "trainval_merged.json").write_text(json.dumps(content))
    with pytest.raises(errors.OptionError, match=r"O07.*trainval_merged.json") as info:
        convert("context60", root)
    assert fault in str(info.value)


def test_annotations_that_are_cut_short(tmp_path):
    root, _, _ = publish_context(tmp_path)
    path = root / "trainval_merged.json"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(errors.OptionError, match=r"O07.*JSONDecodeError"):
        convert("context60", root)
    path.unlink()
    with pytest.raises(errors.OptionError, match=r"O07.*no labels to convert"):
        convert("context60", root)
