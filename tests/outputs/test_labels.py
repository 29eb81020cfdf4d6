"""Label maps: what is written is read again, and what is no label map is refused."""

import io

import numpy as np
import pytest
from PIL import Image

from dslo_jax.errors import ClassListError, ImageError
from dslo_jax.outputs import (
    encode_coloured,
    palette,
    read_labels,
    save_labels,
)


class TestLabels:
    @pytest.mark.parametrize("num_classes", [1, 2, 255, 256, 257, 65536])
    @pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint16])
    def test_round_trip(self, tmp_path, num_classes, dtype):
        rng = np.random.default_rng(num_classes)
        labels = rng.integers(0, num_classes, (5, 7)).astype(dtype)
        labels[0, :2] = 0, num_classes - 1
        path = tmp_path / "sub" / "labels.png"
        save_labels(path, labels, num_classes)
        np.testing.assert_array_equal(read_labels(path), labels)
        with Image.open(path) as image:
            assert image.mode == ("L" if num_classes <= 256 else "I;16")

    def test_coloured_as_the_overlay(self, tmp_path):
        names = [f"class {index}" for index in range(21)]
        labels = np.arange(21).reshape(3, 7)
        path = tmp_path / "a.png"
        path.write_bytes(encode_coloured(labels, names))
        with Image.open(path) as image:
            assert image.mode == "P"
            colours = np.asarray(image.convert("RGB"))
        np.testing.assert_array_equal(colours, palette(names)[labels])
        np.testing.assert_array_equal(read_labels(path), labels)

    def test_colours_of_more_classes_than_a_palette_holds(self):
        names = [f"class {index}" for index in range(257)]
        labels = np.array([[0, 1, 256]])
        with Image.open(io.BytesIO(encode_coloured(labels, names))) as image:
            np.testing.assert_array_equal(np.asarray(image), palette(names)[labels])

    def test_too_many_classes(self, tmp_path):
        with pytest.raises(ClassListError, match="65537 classes"):
            save_labels(tmp_path / "a.png", np.zeros((2, 2), int), 65537)

    @pytest.mark.parametrize("bad", [-1, 21, 300])
    def test_label_without_a_class(self, tmp_path, bad):
        with pytest.raises(ValueError, match="expected ids from 0 to 20"):
            save_labels(tmp_path / "a.png", np.full((2, 2), bad), 21)
        assert list(tmp_path.iterdir()) == []

    def test_unusable_files(self, tmp_path):
        path = tmp_path / "a.png"
        with pytest.raises(ImageError, match="I01"):
            read_labels(path)
        Image.new("RGB", (4, 4)).save(path)
        with pytest.raises(ImageError, match="I07"):
            read_labels(path)
        labels = np.random.default_rng(0).integers(0, 256, (64, 64))
        save_labels(path, labels, 256)
        path.write_bytes(path.read_bytes()[:2500])
        with pytest.raises(ImageError, match="I03"):
            read_labels(path)
        path.write_text("no image")
        with pytest.raises(ImageError, match="I02"):
            read_labels(path)
