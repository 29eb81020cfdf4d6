"""Other programs read the files as what they are."""

import io

import imageio.v3
import matplotlib.image
import numpy as np
import pytest
import skimage.io
from PIL import Image

from dslo_jax.outputs import FILES, encode_coloured, encode_labels, encode_overlay


def with_opencv(path):
    import cv2

    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def with_matplotlib(path):
    """It scales integers to [0, 1]."""
    scaled = matplotlib.image.imread(path)
    assert scaled.dtype == np.float32
    with Image.open(path) as image:
        bits = 16 if image.mode == "I;16" else 8
    return np.rint(scaled * (2**bits - 1)).astype(int)


def with_pillow(path):
    with Image.open(path) as image:
        return np.asarray(image)


READERS = {
    "Pillow": with_pillow,
    "scikit-image": skimage.io.imread,
    "imageio": imageio.v3.imread,
    "matplotlib": with_matplotlib,
}
INTEROP = [pytest.param(with_opencv, id="opencv", marks=pytest.mark.interop)]
ALL = [pytest.param(read, id=name) for name, read in READERS.items()] + INTEROP


@pytest.mark.parametrize("read", ALL)
@pytest.mark.parametrize("num_classes", [2, 21, 256, 257, 65536])
def test_labels_are_the_class_ids(tmp_path, read, num_classes):
    labels = np.random.default_rng(0).integers(0, num_classes, (30, 40))
    labels[0, :2] = 0, num_classes - 1
    path = tmp_path / "labels.png"
    path.write_bytes(encode_labels(labels, num_classes))
    found = read(path)
    assert found.shape == labels.shape
    np.testing.assert_array_equal(found, labels)


@pytest.mark.parametrize("read", ALL)
def test_labels_of_a_saved_result(run, result, read):
    np.testing.assert_array_equal(read(run / "cat.png" / "labels.png"), result.labels)


@pytest.mark.parametrize("name", ["overlay.jpg", "overlay.png", "labels_coloured.png"])
def test_pictures_are_pictures(run, name):
    for read in (skimage.io.imread, imageio.v3.imread):
        picture = read(run / "cat.png" / name)
        assert picture.dtype == np.uint8
        assert picture.shape[-1] == 3


def test_maps(run, result):
    with np.load(run / "cat.png" / "maps.npz", allow_pickle=False) as maps:
        assert tuple(maps) == result.classes
        for name, values in maps.items():
            np.testing.assert_array_equal(values, result.map_of(name))
            assert values.dtype == np.float32


@pytest.mark.interop
def test_supervision(result):
    found = result.to_supervision()
    assert found.class_id.tolist() == np.unique(result.labels).tolist()
    assert list(found["class_name"]) == [result.classes[i] for i in found.class_id]
    for label, mask, box in zip(found.class_id, found.mask, found.xyxy, strict=True):
        np.testing.assert_array_equal(mask, result.labels == label)
        rows, columns = np.nonzero(mask)
        assert box.tolist()[:2] == [columns.min(), rows.min()]
    assert found.area.sum() == result.labels.size


def test_files_are_those_of_the_folder(run, result):
    files = result.files(tuple(FILES))
    assert list(files) == list(FILES.values())
    for name, content in files.items():
        assert (run / "cat.png" / name).read_bytes() == content
    assert list(result.files()) == [
        *("labels.png", "overlay.jpg", "maps.npz", "segmentation.json")
    ]
    assert list(result.files(("json",))) == ["segmentation.json"]


def test_a_large_photo_is_encoded_in_few_bytes():
    """A label map of large regions has far fewer bytes than pixels."""
    labels = np.add.outer(np.arange(1500) // 300, np.arange(2000) // 500)
    names = [f"class {index}" for index in range(labels.max() + 1)]
    assert len(encode_labels(labels, len(names))) < labels.size / 100
    assert len(encode_coloured(labels, names)) < labels.size / 100
    picture = Image.fromarray(np.full((1500, 2000, 3), 120, np.uint8))
    with Image.open(io.BytesIO(encode_overlay(picture))) as image:
        assert image.size == (2000, 1500)
