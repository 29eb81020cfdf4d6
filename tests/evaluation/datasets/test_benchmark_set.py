import concurrent.futures
import re
import shutil

import numpy as np
import pytest
from miniatures import SPECS, build, save
from PIL import Image

from dslo_jax import errors
from dslo_jax.evaluation import Confusion
from dslo_jax.evaluation.datasets import find_dataset
from dslo_jax.evaluation.datasets.samples import SampleSet


def class_of(spec, value):
    """What a stored value means, or None where the pixel does not count."""
    return None if value in spec.ignored else value - spec.first


def confusion_by_loop(spec, stored, guesses):
    counts = np.zeros((spec.num_classes, spec.num_classes), int)
    for name, values in stored.items():
        for (y, x), value in np.ndenumerate(values):
            true = class_of(spec, int(value))
            if true is not None:
                counts[true, guesses[name][y, x]] += 1
    return counts


def test_names_classes_and_sizes(miniature):
    name, spec, _, root, stored = miniature
    samples = find_dataset(name, root)
    assert isinstance(samples, SampleSet)
    assert samples.names == tuple(sorted(spec.names))
    assert len(samples) == len(spec.names)
    assert len(samples.classes) == spec.num_classes
    for index, sample in enumerate(samples):
        assert sample.name == samples.names[index]
        assert sample.truth.dtype == np.uint8
        assert sample.photo.pixels.shape == (*stored[sample.name].shape, 3)


def test_labels_mean_what_the_benchmark_says(miniature):
    name, spec, _, root, stored = miniature
    for sample in find_dataset(name, root):
        for place, value in np.ndenumerate(stored[sample.name]):
            expected = class_of(spec, int(value))
            assert sample.truth[place] == (255 if expected is None else expected)


def test_confusion_equals_a_slow_count(miniature):
    name, spec, _, root, stored = miniature
    rng = np.random.default_rng(6)
    guesses = {
        n: rng.integers(spec.num_classes, size=s.shape) for n, s in stored.items()
    }
    total = Confusion.empty(spec.num_classes)
    for sample in find_dataset(name, root):
        total += Confusion.of(sample.truth, guesses[sample.name], spec.num_classes)
    expected = confusion_by_loop(spec, stored, guesses)
    assert expected.sum() > 50
    np.testing.assert_array_equal(total.counts, expected)


def test_is_found_below_a_folder_of_data_sets(miniature):
    name, spec, data, root, _ = miniature
    for place in {data, root, root.parent}:
        assert find_dataset(name, place).root == root
        assert find_dataset(name, str(place)).names == tuple(sorted(spec.names))


def test_description_names_the_data_and_notices_changes(miniature):
    name, spec, data, root, _ = miniature
    described = find_dataset(name, root).describe()
    assert described["name"] == name
    assert described["photos"] == 3
    assert described["published_photos"] >= 500
    assert described["split"] in ("val", "val2017", "validation")
    assert re.fullmatch("[0-9a-f]{64}", described["sha256"])
    assert str(data) not in str(described)
    assert find_dataset(name, data).describe() == described
    with (root / spec.labels.format(spec.names[1])).open("ab") as file:
        file.write(b"more")
    changed = find_dataset(name, root).describe()
    assert changed.pop("sha256") != described.pop("sha256")
    assert changed == described


def test_reading_in_threads_gives_the_same(miniature):
    name, _, _, root, _ = miniature
    samples = find_dataset(name, root)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        read = list(pool.map(samples.read, [0, 1, 2] * 4))
    for index, sample in enumerate(read):
        again = samples.read(index % 3)
        np.testing.assert_array_equal(sample.truth, again.truth)
        np.testing.assert_array_equal(sample.photo.pixels, again.photo.pixels)


def test_one_missing_photo_or_mask_is_told_when_read(miniature):
    name, spec, _, root, _ = miniature
    if spec.split:
        (root / spec.photo.format(spec.names[0])).unlink()
        samples = find_dataset(name, root)
        with pytest.raises(errors.ImageError, match=r"I01.*no file") as info:
            samples.read(samples.names.index(spec.names[0]))
        assert spec.names[0] in str(info.value)
    (root / spec.labels.format(spec.names[2])).unlink()
    samples = find_dataset(name, root)
    with pytest.raises(errors.ImageError, match=r"I01.*mask") as info:
        samples.read(samples.names.index(spec.names[2]))
    assert spec.names[2] in str(info.value)
    samples.read(samples.names.index(spec.names[1]))


def test_what_is_missing_is_told_with_the_expected_files(miniature):
    name, spec, data, root, _ = miniature
    photos, labels = (
        root / path.rpartition("/")[0] for path in (spec.photo, spec.labels)
    )
    for folder in (photos, labels):
        hidden = root / "elsewhere"
        folder.rename(hidden)
        with pytest.raises(errors.OptionError) as info:
            find_dataset(name, data)
        assert info.value.code == "O07"
        message = str(info.value)
        assert f"\nexpected:\n  {spec.home}/\n" in message
        assert spec.photo.format("NAME") in message
        assert spec.labels.format("NAME") in message
        assert spec.split is None or f"{spec.split} (" in message
        hidden.rename(folder)
    assert len(find_dataset(name, data)) == 3


def test_root_that_is_not_there(tmp_path):
    with pytest.raises(errors.OptionError, match=r"O07.*nowhere' is no folder"):
        find_dataset("ade20k", tmp_path / "nowhere")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(errors.OptionError, match=r"holds notes\.txt; looked for"):
        find_dataset("ade20k", tmp_path)


def test_split_file_that_cannot_be_used(tmp_path):
    root, _ = build("voc21", tmp_path)
    split = root / SPECS["voc21"].split

    def error():
        with pytest.raises(errors.OptionError) as info:
            find_dataset("voc21", root)
        assert info.value.code == "O07"
        return str(info.value)

    split.write_text("2007_000033\n2007_000042\n2007_000033\n")
    assert "lists '2007_000033' twice" in error()
    split.write_text("../../secret\n")
    assert "leads out" in error()
    split.write_bytes(b"\xffnames")
    assert "no text" in error()
    split.write_text("\n \n")
    assert "no photo belongs" in error()
    split.write_text("2007_000033 -1\n")
    assert "none of the 1 photos" in error()
    split.rename(split.with_name("trainval.txt"))
    assert "holds trainval.txt" in error()


def test_windows_line_ends_in_a_split_file(tmp_path):
    root, _ = build("voc21", tmp_path)
    (root / SPECS["voc21"].split).write_bytes(b"2007_000042\r\n2007_000033 \r\n\r\n")
    assert find_dataset("voc21", root).names == ("2007_000033", "2007_000042")


def test_label_folder_of_voc_is_a_choice(tmp_path):
    root, _ = build("voc20", tmp_path)
    usual = find_dataset("voc20", root)
    assert usual.describe()["label_folder"] == "SegmentationClass"
    with pytest.raises(errors.OptionError, match="3 of 3 label files are missing"):
        find_dataset("voc20", root, label_folder="SegmentationClassAug")
    for path in (root / "SegmentationClass").iterdir():
        values = np.array(Image.open(path))
        save(root / "SegmentationClassAug" / path.name, np.full_like(values, 7))
    other = find_dataset("voc20", root, label_folder="SegmentationClassAug")
    assert other.describe()["label_folder"] == "SegmentationClassAug"
    assert (other.read(0).truth == 6).all()
    assert other.describe()["sha256"] != usual.describe()["sha256"]
    with pytest.raises(errors.OptionError, match=r"O03.*SegmentationClassAug"):
        find_dataset("voc20", root, label_folder="SegmentationObject")


def with_mask(tmp_path, benchmark, image, **options):
    """The first sample of a miniature whose first mask was replaced."""
    root, _ = build(benchmark, tmp_path)
    path = root / SPECS[benchmark].labels.format(SPECS[benchmark].names[0])
    image.save(path, **options)
    return find_dataset(benchmark, root).read(0)


@pytest.mark.parametrize(
    ("benchmark", "value", "expected"),
    [
        ("voc21", 21, "0 to 20 or 255"),
        ("voc20", 21, "0 to 20 or 255"),
        ("voc20", 254, "0 to 20 or 255"),
        ("coco_stuff", 171, "0 to 170 or 255"),
        ("ade20k", 151, "0 to 150 or 255"),
    ],
)
def test_value_without_a_class_is_told_with_its_file(
    tmp_path, benchmark, value, expected
):
    values = np.ones((7, 5), np.uint8)
    values[3, 2] = value
    with pytest.raises(errors.ImageError) as info:
        with_mask(tmp_path, benchmark, Image.fromarray(values))
    assert info.value.code == "I09"
    assert SPECS[benchmark].names[0] in str(info.value)
    assert f"holds the value {value}, expected {expected}" in str(info.value)


def test_masks_hold_no_colours(tmp_path):
    image = Image.fromarray(np.ones((7, 5), np.uint8)).convert("RGB")
    with pytest.raises(errors.ImageError, match=r"I07.*000033\.png' holds 1 shades"):
        with_mask(tmp_path, "voc21", image)


def test_masks_are_png(tmp_path):
    image = Image.fromarray(np.ones((7, 5), np.uint8))
    with pytest.raises(errors.ImageError, match=r"I07.*JPEG"):
        with_mask(tmp_path, "voc21", image, format="JPEG")


def test_mask_of_another_size_than_its_photo(tmp_path):
    with pytest.raises(errors.ImageError, match=r"I09.*is 5 x 7, its photo.*7 x 5"):
        with_mask(tmp_path, "voc21", Image.fromarray(np.ones((5, 7), np.uint8)))


def test_damaged_files_are_told(tmp_path):
    root, _ = build("ade20k", tmp_path)
    samples, spec = find_dataset("ade20k", root), SPECS["ade20k"]
    for template, name in ((spec.labels, spec.names[0]), (spec.photo, spec.names[1])):
        path = root / template.format(name)
        path.write_bytes(path.read_bytes()[:-40])
        with pytest.raises(errors.ImageError, match=name) as info:
            samples.read(samples.names.index(name))
        assert info.value.code in ("I02", "I03")


@pytest.mark.parametrize(("orientation", "turned"), [(3, 180), (6, 270), (8, 90)])
def test_exif_does_not_turn_a_photo_away_from_its_mask(tmp_path, orientation, turned):
    root, _ = build("ade20k", tmp_path)
    spec = SPECS["ade20k"]
    path = root / spec.photo.format(spec.names[0])
    pixels = np.zeros((7, 5, 3), np.uint8)
    pixels[:2, :2] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif, quality=95)

    # The mask was drawn on the pixels as they are stored.
    photo = find_dataset("ade20k", root).read(0).photo
    assert photo.pixels.shape == (7, 5, 3)
    assert photo.path == path
    assert photo.pixels[0, 0].min() > 200
    assert photo.pixels[-1, -1].max() < 50

    # The mask was drawn on the photo turned upright, which only a size can tell.
    if turned != 180:
        save(root / spec.labels.format(spec.names[0]), np.ones((5, 7), np.uint8))
        photo = find_dataset("ade20k", root).read(0).photo
        assert photo.pixels.shape == (5, 7, 3)
        corner = (0, -1) if turned == 270 else (-1, 0)
        assert photo.pixels[corner].min() > 200


def test_a_copy_elsewhere_is_the_same_data(tmp_path):
    root, _ = build("cityscapes", tmp_path / "data")
    shutil.copytree(root, tmp_path / "copy")
    copy = find_dataset("cityscapes", tmp_path / "copy")
    assert copy.describe() == find_dataset("cityscapes", root).describe()


def test_unknown_names_are_told_with_the_list(tmp_path):
    with pytest.raises(errors.OptionError, match=r"O03.*'coco'.*loveda, folder"):
        find_dataset("coco", tmp_path)
    with pytest.raises(errors.OptionError, match="O03"):
        find_dataset("folder", tmp_path, label_folder="masks2")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-8"])
def test_split_files_of_any_editor(tmp_path, encoding):
    root, _ = build("voc21", tmp_path)
    split = root / "ImageSets/Segmentation/val.txt"
    names = split.read_text().split()
    split.write_bytes("\r\n".join(names).encode(encoding))
    assert find_dataset("voc21", root).names == tuple(sorted(names))
