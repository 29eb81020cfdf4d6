"""Colours, and overlays with their legend."""

import io
import math

import numpy as np
import pytest
from PIL import Image

from dslo_jax import scenes
from dslo_jax.outputs import draw_overlay, encode_overlay, hex_colours, palette
from dslo_jax.outputs.natural_colours import NATURAL_COLOURS
from dslo_jax.outputs.overlay import _borders


# What red, green and blue light look like to each kind of eyes: Machado, Oliveira,
# Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency",
# 2009, at full severity.
EYES = {
    "normal": np.eye(3).tolist(),
    "without red": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "without green": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "without blue": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}

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


def oklab(linear):
    """Björn Ottosson, 2020: linear sRGB to Oklab."""
    cones = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    lab = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    return np.cbrt(linear @ cones.T) @ lab.T


class TestPalette:
    def test_a_name_has_one_colour(self):
        alone = palette(["cat"])[0]
        np.testing.assert_array_equal(palette(["Cat "])[0], alone)
        np.testing.assert_array_equal(palette(["cat", "person"])[0], alone)

    def test_golden_colours(self):
        """These colours are a promise: reports of different versions compare."""
        golden = [(147, 158, 62), (129, 190, 101), (120, 204, 253)]
        for name, colour in zip(["cat", "grass", "sky"], golden, strict=True):
            np.testing.assert_array_equal(palette([name]), [colour])

    def test_things_have_their_own_colours_in_every_list(self):
        for names in (scenes.NAMES, [*VOC, *scenes.NAMES[:5]], ["Sky ", "a", "b"]):
            colours = palette(names)
            for name, colour in zip(names, colours, strict=True):
                own = NATURAL_COLOURS.get(name.strip().casefold(), colour)
                np.testing.assert_array_equal(colour, own)

    def test_two_names_of_one_thing_have_two_colours(self):
        sea, ocean = palette(["sea", "ocean"])
        assert distance(sea, ocean) > 20

    @pytest.mark.parametrize("eyes", EYES)
    def test_everybody_can_tell_the_things_of_the_drawn_world_apart(self, eyes):
        """In Oklab, where black and white are 1 apart."""
        colours = palette(scenes.NAMES) / 255
        linear = np.where(
            colours > 0.04045, ((colours + 0.055) / 1.055) ** 2.4, colours / 12.92
        )
        seen = oklab(np.clip(linear @ np.array(EYES[eyes]).T, 0, 1))
        gaps = np.linalg.norm(seen[:, None] - seen[None], axis=-1)
        assert gaps[np.triu_indices(len(seen), 1)].min() >= 0.07

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

    def test_hex_is_the_same_colour(self):
        assert hex_colours(["cat"]) == ("#939e3e",)
        assert hex_colours(["grass"]) == ("#81be65",)
        assert hex_colours([]) == ()


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

    def test_strips_leave_no_seams(self):
        """Outlines and colours are those of a plain computation of the whole photo."""
        rng = np.random.default_rng(0)
        pixels = rng.integers(0, 256, (700, 610, 3), dtype=np.uint8)
        labels = rng.integers(0, 3, (35, 61)).repeat(20, axis=0).repeat(10, axis=1)
        image = np.asarray(draw_overlay(pixels, labels, VOC[:3], legend=False))
        border = np.zeros(labels.shape, bool)
        border[:-1] |= labels[:-1] != labels[1:]
        border[:, :-1] |= labels[:, :-1] != labels[:, 1:]
        grey = pixels @ np.array([0.299, 0.587, 0.114])
        pale = 0.45 * pixels + 0.55 * grey[..., None]
        expected = 0.45 * pale + 0.55 * palette(VOC[:3])[labels]
        expected[border] = 255
        assert np.abs(image - expected).max() <= 1

    @pytest.mark.parametrize("thickness", [1, 2, 3, 5, 7, 8])
    def test_thick_outlines(self, thickness):
        """One loop per pixel of thickness finds the same borders."""
        labels = np.random.default_rng(thickness).integers(0, 2, (40, 3))
        labels = labels.repeat(4, axis=0).repeat(5, axis=1)
        border = np.zeros(labels.shape, bool)
        for step in range(1, thickness + 1):
            border[:-step] |= labels[:-step] != labels[step:]
            border[:, :-step] |= labels[:, :-step] != labels[:, step:]
        np.testing.assert_array_equal(_borders(labels, thickness), border)

    def test_more_classes_than_a_palette_holds(self):
        names = [f"class {index}" for index in range(700)]
        pixels, labels = stripes(400, 700, 700)
        image = draw_overlay(
            pixels, labels, names, opacity=1.0, outlines=False, legend=False
        )
        np.testing.assert_array_equal(np.asarray(image), palette(names)[labels])


class TestEncoding:
    @pytest.mark.parametrize(("lossless", "kind"), [(False, "JPEG"), (True, "PNG")])
    def test_looks_as_it_was_drawn(self, lossless, kind):
        drawn = draw_overlay(*stripes(400, 500, 3), VOC[:3], outlines=False)
        with Image.open(io.BytesIO(encode_overlay(drawn, lossless=lossless))) as image:
            assert (image.format, image.mode, image.size) == (kind, "RGB", drawn.size)
            gap = np.abs(np.asarray(image).astype(int) - np.asarray(drawn))
        assert gap.mean() < 2 * (not lossless) + 1e-9

    def test_too_long_for_a_jpeg(self):
        content = encode_overlay(Image.new("RGB", (70000, 4)))
        with Image.open(io.BytesIO(content)) as image:
            assert image.width == 65500
