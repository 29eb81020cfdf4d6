import numpy as np
import pytest
from miniatures import save
from PIL import Image

from dslo_jax import errors
from dslo_jax.evaluation.datasets import find_dataset


@pytest.fixture
def folder(tmp_path):
    """Three photos of three kinds; classes with synonyms; ids 0 to 2 and 255."""
    rng = np.random.default_rng(8)
    for name in ("b.jpg", "a.png", "c d.webp"):
        pixels = rng.integers(256, size=(6, 8, 3), dtype=np.uint8)
        save(tmp_path / "images" / name, pixels)
        values = rng.choice([0, 1, 2, 255], (6, 8)).astype(np.uint8)
        stem = name.rpartition(".")[0]
        save(tmp_path / "masks" / f"{stem}.png", values, palette=name == "b.jpg")
    (tmp_path / "classes.txt").write_text("sky\ncat, kitten\nwall\n")
    return tmp_path


def error_of(folder, kind=errors.OptionError):
    with pytest.raises(kind) as info:
        find_dataset("folder", folder)
    return f"{info.value.code}: {info.value}"


def test_reads_what_is_there(folder):
    samples = find_dataset("folder", folder)
    assert samples.names == ("a", "b", "c d")
    assert samples.classes.synonyms == (("sky",), ("cat", "kitten"), ("wall",))
    for sample in samples:
        stored = np.array(Image.open(folder / "masks" / f"{sample.name}.png"))
        np.testing.assert_array_equal(sample.truth, stored)
        assert sample.photo.pixels.shape == (6, 8, 3)


def test_description_notices_a_renamed_class(folder):
    described = find_dataset("folder", folder).describe()
    assert described["photos"] == 3
    assert described["name"] == "folder"
    (folder / "classes.txt").write_text("sky\ncat, kitten\ndoor\n")
    changed = find_dataset("folder", folder).describe()
    assert changed["sha256"] != described["sha256"]


def test_ids_with_gaps_are_refused(folder):
    (folder / "classes.txt").write_text("0 sky\n1 cat\n5 wall\n")
    assert "C08" in error_of(folder, errors.ClassListError)
    (folder / "classes.txt").write_text("0 sky\n1 cat\n2 wall\n")
    samples = find_dataset("folder", folder)
    save(folder / "masks" / "a.png", np.full((6, 8), 5, np.uint8))
    with pytest.raises(
        errors.ImageError, match=r"a\.png.* value 5, expected 0 to 2 or"
    ):
        samples.read(0)


def test_what_is_missing_is_told_with_the_expected_files(folder):
    for part in ("images", "masks", "classes.txt"):
        (folder / part).rename(folder / "elsewhere")
        message = error_of(folder)
        assert message.startswith("O07")
        assert all(
            word in message for word in (part, "classes.txt (", "masks/NAME.png")
        )
        (folder / "elsewhere").rename(folder / part)
    assert len(find_dataset("folder", folder)) == 3


def test_one_missing_mask_is_told_when_read(folder):
    (folder / "masks" / "b.png").unlink()
    samples = find_dataset("folder", folder)
    with pytest.raises(errors.ImageError, match=r"I01.*b\.png"):
        samples.read(1)
    assert samples.read(2).name == "c d"


def test_masks_that_are_called_otherwise(folder):
    for path in list((folder / "masks").iterdir()):
        path.rename(path.with_name(f"{path.stem}_mask.png"))
    assert "holds a_mask.png, b_mask.png, c d_mask.png" in error_of(folder)


def test_two_photos_of_one_name(folder):
    save(folder / "images" / "a.bmp", np.zeros((6, 8, 3), np.uint8))
    assert "would share the mask 'a.png'" in error_of(folder)


def test_more_classes_than_8_bits_tell_apart(folder):
    names = [f"class {number}" for number in range(256)]
    (folder / "classes.txt").write_text("\n".join(names))
    assert "C09" in error_of(folder, errors.ClassListError)
    (folder / "classes.txt").write_text("\n".join(names[:255]))
    assert len(find_dataset("folder", folder).classes) == 255


def test_photo_that_fits_its_mask_stored_and_turned_is_refused(folder):
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.new("RGB", (8, 6)).save(folder / "images" / "b.jpg", exif=exif)
    with pytest.raises(errors.ImageError, match=r"I09.*b\.jpg.*EXIF"):
        find_dataset("folder", folder).read(1)
    exif[0x0112] = 6
    Image.new("RGB", (6, 8)).save(folder / "images" / "b.jpg", exif=exif)
    assert find_dataset("folder", folder).read(1).photo.exif_applied


def write_masks(folder, *masks):
    for name, values in zip(("a", "b", "c d"), masks, strict=False):
        save(folder / "masks" / f"{name}.png", np.resize(np.uint8(values), (6, 8)))


@pytest.mark.parametrize("masks", [[[0, 255]] * 3, [[255]] * 3, [[0], [0], [0, 255]]])
def test_black_and_white_masks_are_refused(folder, masks):
    """The white would be ignored, and with it every class but the first."""
    write_masks(folder, *masks)
    message = error_of(folder, errors.ImageError)
    assert message.startswith("I09")
    assert "255 is ignored, so that 'cat' never occurs" in message
    assert "save its id instead" in message


@pytest.mark.parametrize(
    "masks",
    [
        [[0, 255], [0, 255], [0, 1, 255]],  # objects with a border, in some photos
        [[0, 255], [0, 255], [2]],
        [[1, 255]] * 3,  # one class, and what was left out
        [[0]] * 3,
        [[0, 1]] * 3,
    ],
)
def test_borders_that_are_ignored_raise_no_alarm(folder, masks):
    write_masks(folder, *masks)
    assert len(list(find_dataset("folder", folder))) == 3


def test_a_single_class_may_have_255_beside_it(folder):
    write_masks(folder, *[[0, 255]] * 3)
    (folder / "classes.txt").write_text("sky\n")
    assert len(find_dataset("folder", folder)) == 3


def test_masks_of_which_one_is_damaged_are_still_judged(folder):
    write_masks(folder, *[[0, 255]] * 3)
    (folder / "masks" / "a.png").write_bytes(b"")
    assert "I09" in error_of(folder, errors.ImageError)


@pytest.mark.parametrize("values", [[0, 128], [0, 128, 255], [0, 127, 255], [255, 170]])
def test_shades_of_a_drawing_are_told(folder, values):
    write_masks(folder, values, [0, 1], [0, 1])
    with pytest.raises(errors.ImageError, match=r"I09.*these seem to be shades"):
        find_dataset("folder", folder).read(0)


def test_ids_that_count_from_1_are_told(folder):
    write_masks(folder, [1, 2, 3], [1, 2], [1, 2])
    with pytest.raises(errors.ImageError, match=r"I09.* 3, expected 0 to 2 or 255"):
        find_dataset("folder", folder).read(0)


def test_masks_of_other_kinds(folder):
    values = np.array(Image.open(folder / "masks" / "a.png"))
    (folder / "masks" / "a.png").unlink()
    Image.fromarray(values).save(folder / "masks" / "a.tif")
    deep = np.array(Image.open(folder / "masks" / "b.png")).astype(np.uint16)
    Image.fromarray(deep).save(folder / "masks" / "b.png")
    samples = find_dataset("folder", folder)
    np.testing.assert_array_equal(samples.read(0).truth, values)
    np.testing.assert_array_equal(samples.read(1).truth, deep)
    deep[0, 0] = 300
    Image.fromarray(deep).save(folder / "masks" / "b.png")
    with pytest.raises(errors.ImageError, match=r"I09.* 300, expected 0 to 2 or"):
        samples.read(1)
    Image.fromarray(values).save(folder / "masks" / "a.bmp")
    assert "'a.bmp' and 'a.tif' would be masks of one photo" in error_of(folder)
