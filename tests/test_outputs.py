"""Colours, overlays with their legend, and files that are whole or absent."""

import json
import math
import os
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from dslo_jax.errors import ClassListError, ImageError
from dslo_jax.files import atomic_file
from dslo_jax.outputs import (
    class_areas,
    draw_overlay,
    output_path,
    palette,
    read_labels,
    save_json,
    save_labels,
    save_maps,
    voc_palette,
)


VOC = [
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
]


def stripes(height, width, num_classes):
    """Labels in vertical stripes of equal width, and a grey photo."""
    columns = np.arange(width) * num_classes // width
    labels = np.broadcast_to(columns, (height, width)).astype(np.int32)
    return np.full((height, width, 3), 120, np.uint8), labels


def distance(first, second):
    """Rough distance of two colours seen without the red-green axis."""
    blue_yellow = np.array([0.5, 0.5, -1.0])
    luma = np.array([0.3, 0.6, 0.1])
    gap = first.astype(float) - second.astype(float)
    return math.hypot(gap @ luma, gap @ blue_yellow)


class TestPalette:
    def test_a_name_has_one_colour(self):
        alone = palette(["cat"])[0]
        np.testing.assert_array_equal(palette(["Cat "])[0], alone)
        np.testing.assert_array_equal(palette(["cat", "grass"])[0], alone)

    def test_golden_colours(self):
        """These colours are a promise: reports of different versions compare."""
        golden = [(147, 158, 62), (180, 237, 97), (135, 36, 140)]
        np.testing.assert_array_equal(palette(["cat", "grass", "sky"]), golden)

    def test_order_does_not_matter(self):
        turned = VOC[7:] + VOC[:7]
        colours = dict(zip(VOC, map(tuple, palette(VOC)), strict=True))
        for name, colour in zip(turned, palette(turned), strict=True):
            assert colours[name] == tuple(colour)

    @pytest.mark.parametrize("names", [VOC, [f"class {i}" for i in range(171)]])
    def test_colours_differ(self, names):
        assert len({tuple(colour) for colour in palette(names)}) == len(names)

    def test_small_lists_are_told_apart_without_red_and_green(self):
        colours = palette(["road", "car", "tree", "sky", "person"])
        for index, colour in enumerate(colours):
            for other in colours[:index]:
                assert distance(colour, other) > 20

    def test_even_equal_names_get_colours_apart(self):
        assert len({tuple(colour) for colour in palette(["cat"] * 5)}) == 5

    def test_no_names(self):
        assert palette([]).shape == (0, 3)

    def test_voc_palette(self):
        golden = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 15: (192, 128, 128)}
        golden |= {20: (0, 64, 128), 255: (224, 224, 192)}
        for index, colour in golden.items():
            assert tuple(voc_palette()[index]) == colour
        with pytest.raises(ValueError, match="num_classes"):
            voc_palette(257)


class TestOverlay:
    def test_photo_alone(self):
        rng = np.random.default_rng(0)
        pixels = rng.integers(0, 256, (400, 500, 3), dtype=np.uint8)
        _, labels = stripes(400, 500, 3)
        image = draw_overlay(
            pixels, labels, ["a", "b", "c"], opacity=0.0, outlines=False, legend=False
        )
        np.testing.assert_array_equal(np.asarray(image), pixels)

    def test_colours_alone(self):
        pixels, labels = stripes(400, 500, 3)
        image = draw_overlay(
            pixels, labels, VOC[:3], opacity=1.0, outlines=False, legend=False
        )
        np.testing.assert_array_equal(np.asarray(image), palette(VOC[:3])[labels])

    def test_default_mixes_grey_photo_and_colour(self):
        pixels, labels = stripes(400, 400, 2)
        image = np.asarray(draw_overlay(pixels, labels, VOC[:2], legend=False))
        expected = 0.45 * 120 + 0.55 * palette(VOC[:2]).astype(float)
        assert np.abs(image[200, 50] - expected[0]).max() <= 1
        assert np.abs(image[200, 350] - expected[1]).max() <= 1

    def test_outlines_are_where_labels_change(self):
        pixels, labels = stripes(400, 400, 2)
        image = np.asarray(draw_overlay(pixels, labels, VOC[:2], legend=False))
        white = (image == 255).all(axis=-1)
        assert white[:, 199].all()
        assert white.sum() == 400

    @pytest.mark.parametrize(
        ("size", "num_classes"),
        [
            ((400, 500), 1),
            ((500, 400), 5),
            ((2, 2), 2),
            ((60, 80), 4),
            ((4, 3000), 3),
            ((3000, 4), 3),
            ((90, 700), 21),
            ((480, 640), 171),
            ((200, 150), 171),
        ],
    )
    def test_legend_never_covers_the_photo(self, size, num_classes):
        names = [f"a class with the number {i}" for i in range(num_classes)]
        pixels, labels = stripes(*size, num_classes)
        plain = draw_overlay(pixels, labels, names, legend=False)
        full = draw_overlay(pixels, labels, names)
        assert plain.width >= size[1]
        corner = full.crop((0, 0, plain.width, plain.height))
        np.testing.assert_array_equal(np.asarray(corner), np.asarray(plain))
        assert full.width * full.height > plain.width * plain.height
        # All letters end before the edge.
        edge = np.asarray(full).astype(int)
        below = plain.width > plain.height
        legend = edge[plain.height :] if below else edge[:, plain.width :]
        assert (legend[:, -3:] == 255).all()
        assert (legend[-3:] == 255).all()
        assert (legend < 200).any()

    def test_small_photos_are_enlarged_by_whole_pixels(self):
        pixels, labels = stripes(30, 40, 2)
        image = draw_overlay(pixels, labels, VOC[:2], legend=False)
        assert image.size == (40 * 11, 30 * 11)

    def test_absent_classes_are_not_listed(self):
        pixels, labels = stripes(400, 500, 2)
        few = draw_overlay(pixels, labels, ["a", "b"])
        more = draw_overlay(pixels, labels, ["a", "b", *VOC])
        assert few.size == more.size

    def test_swatches_by_area(self):
        pixels, labels = stripes(400, 400, 4)
        labels = np.where(labels == 0, 2, labels)  # 1: 25%, 2: 50%, 3: 25%
        full = np.asarray(draw_overlay(pixels, labels, VOC[:4], outlines=False))
        legend = full[:, 400:].reshape(-1, 3)
        where = [
            np.flatnonzero((legend == colour).all(axis=-1))
            for colour in palette(VOC[:4])
        ]
        assert len(where[0]) == 0
        assert where[2][0] < where[1][0] < where[3][0]

    @pytest.mark.parametrize(
        "name",
        [
            "日本語",
            "🐱" * 40,
            "x" * 500,
            "",
            "a\nb\x1b[31m\0",
            "\u202eabc",
            "עברית",
            "\udcff",
        ],
    )
    def test_any_name_can_be_drawn(self, name):
        pixels, labels = stripes(40, 50, 2)
        draw_overlay(pixels, labels, [name, "cat"])

    def test_misuse(self):
        pixels, labels = stripes(40, 50, 2)
        with pytest.raises(ValueError, match="opacity"):
            draw_overlay(pixels, labels, VOC, opacity=1.5)
        with pytest.raises(ValueError, match="from 0 to 1, expected ids from 0 to 0"):
            draw_overlay(pixels, labels, ["cat"])


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
            assert image.mode == ("P" if num_classes <= 256 else "I;16")

    def test_looks_right(self, tmp_path):
        labels = np.arange(21).reshape(3, 7)
        save_labels(tmp_path / "a.png", labels, 21)
        with Image.open(tmp_path / "a.png") as image:
            colours = np.asarray(image.convert("RGB"))
        np.testing.assert_array_equal(colours, voc_palette()[labels])

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

    def test_areas(self):
        labels = np.array([[0, 2], [2, 2]])
        areas = class_areas(labels, ["cat", "dog", "sky"])
        assert areas == {"cat": 0.25, "dog": 0.0, "sky": 0.75}
        assert list(areas) == ["cat", "dog", "sky"]
        with pytest.raises(ValueError, match="twice"):
            class_areas(labels, ["cat", "cat", "sky"])
        with pytest.raises(ValueError, match="expected ids"):
            class_areas(labels, ["cat", "dog"])


class TestFiles:
    def test_a_failure_leaves_the_old_file(self, tmp_path):
        path = tmp_path / "a.txt"
        path.write_text("old")

        def fail_half_way():
            with atomic_file(path) as file:
                file.write(b"half")
                raise RuntimeError("power cut")

        with pytest.raises(RuntimeError, match="power cut"):
            fail_half_way()
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]

    def test_replaces_a_link_and_not_its_target(self, tmp_path):
        target = tmp_path / "target"
        target.write_text("precious")
        (tmp_path / "link").symlink_to(target)
        with atomic_file(tmp_path / "link") as file:
            file.write(b"new")
        assert target.read_text() == "precious"
        assert (tmp_path / "link").read_text() == "new"

    def test_permissions_follow_the_user(self, tmp_path):
        (tmp_path / "plain").touch()
        save_json(tmp_path / "a.json", {})
        modes = [(tmp_path / name).stat().st_mode for name in ("plain", "a.json")]
        assert modes[0] == modes[1]

    def test_output_path(self, tmp_path):
        out = tmp_path / "out"
        assert output_path(out, "a/b.png") == out / "a" / "b.png"
        out.mkdir()
        (out / "away").symlink_to(tmp_path)
        for name in ("../b.png", "/etc/b.png", "away/b.png", "a/../../b.png"):
            with pytest.raises(ImageError, match="I08"):
                output_path(out, name)

    def test_maps_round_trip(self, tmp_path):
        rng = np.random.default_rng(0)
        maps = {
            name: rng.normal(size=(3, 4)).astype(np.float32)
            for name in ("cat", "file", "allow_pickle", "sofa/couch", "猫", "a b")
        }
        save_maps(tmp_path / "a.npz", maps)
        with np.load(tmp_path / "a.npz", allow_pickle=False) as loaded:
            assert list(loaded) == list(maps)
            for name, values in maps.items():
                np.testing.assert_array_equal(loaded[name], values)

    def test_equal_maps_give_equal_bytes(self, tmp_path):
        maps = {"cat": np.arange(6.0)}
        save_maps(tmp_path / "a.npz", maps)
        save_maps(tmp_path / "b.npz", maps)
        first, second = (tmp_path / name for name in ("a.npz", "b.npz"))
        assert first.read_bytes() == second.read_bytes()

    def test_objects_are_never_pickled(self, tmp_path):
        with pytest.raises(ValueError, match="plain numbers"):
            save_maps(tmp_path / "a.npz", {"cat": np.array([{}])})
        assert list(tmp_path.iterdir()) == []


class Point(NamedTuple):
    x: float
    y: tuple


class TestJson:
    def read(self, path):
        def refuse(constant):
            raise AssertionError(constant)

        return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)

    def test_values(self, tmp_path):
        value = {
            "z": np.float32(0.5),
            "a": [np.int64(3), jnp.arange(2), np.array([[1.5, np.nan]])],
            "point": Point(math.inf, (True, None)),
            "path": Path("a/b.jpg"),
            "猫": "<\x1b>",
            3: -math.inf,
        }
        save_json(tmp_path / "a.json", value)
        read = self.read(tmp_path / "a.json")
        assert read == {
            "z": 0.5,
            "a": [3, [0, 1], [[1.5, None]]],
            "point": {"x": None, "y": [True, None]},
            "path": "a/b.jpg",
            "猫": "<\x1b>",
            "3": None,
        }
        assert list(read) == ["z", "a", "point", "path", "猫", "3"]
        assert "猫" in (tmp_path / "a.json").read_text(encoding="utf-8")

    def test_undecodable_file_names(self, tmp_path):
        name = os.fsdecode(b"bad\xff.jpg")
        save_json(tmp_path / "a.json", {"name": name})
        assert self.read(tmp_path / "a.json") == {"name": name}

    def test_unknown_values(self, tmp_path):
        with pytest.raises(TypeError, match="set cannot be written as JSON"):
            save_json(tmp_path / "a.json", {"a": {1}})
        assert list(tmp_path.iterdir()) == []

    @settings(max_examples=100, deadline=None, derandomize=True)
    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=8,
        )
    )
    def test_always_strict(self, tmp_path_factory, value):
        path = tmp_path_factory.getbasetemp() / "strict.json"
        save_json(path, value)
        self.read(path)
