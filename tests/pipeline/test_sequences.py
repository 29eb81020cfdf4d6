"""The lengths of the sequences that photos are padded to."""

import math

import numpy as np
import pytest

from dslo_jax.images import resize_photo, short_side_size
from dslo_jax.logits import ClipOptions
from dslo_jax.pipeline.sequences import cut_photo, sequence_lengths


SETTINGS = [(336, 16), (336, 14), (224, 32), (192, 8), (448, 14), (64, 16), (8, 16)]


@pytest.mark.parametrize(("short_side", "patch"), [*SETTINGS, (2048, 16), (2048, 32)])
def test_every_photo_fits_one_of_few_lengths(short_side, patch):
    lengths = sequence_lengths(ClipOptions(short_side=short_side), patch)
    assert 1 <= len(lengths) <= 5
    assert lengths == tuple(sorted(set(lengths)))
    rng = np.random.default_rng(0)
    for height, width in np.exp(rng.uniform(0, math.log(10_000), (500, 2))).astype(int):
        size = short_side_size((int(height), int(width)), short_side, patch)
        count = math.prod(size) // patch**2
        assert count <= lengths[-1]


@pytest.mark.parametrize(
    ("size", "waste"),
    [((600, 800), 0), ((900, 1600), 0), ((600, 900), 0.2), ((700, 700), 0.34)],
)
def test_the_padding_of_usual_photos_is_small(size, waste):
    height, width = short_side_size(size, 336, 16)
    count = height * width // 16**2
    length = min(each for each in sequence_lengths(ClipOptions(), 16) if each >= count)
    assert length / count - 1 == pytest.approx(waste, abs=0.01)


@pytest.mark.parametrize("size", [(50, 75), (75, 50), (9, 300), (40, 40)])
def test_a_photo_is_resized_cut_and_padded(size):
    photo = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    options = ClipOptions(short_side=64, resample="bilinear")
    (patches,) = cut_photo(photo, options, (8,))
    height, width = short_side_size(size, 64, 8)
    assert patches.grid.tolist() == [[height // 8, width // 8]]
    assert patches.pixels.shape[1] in sequence_lengths(options, 8)
    seen = resize_photo(photo, (height, width), method="bilinear")
    last = seen[-8:, -8:]
    np.testing.assert_array_equal(patches.pixels[0, -1], last)
    np.testing.assert_array_equal(patches.pixels[0, 0], seen[:8, :8])


@pytest.mark.parametrize("sides", [(16, 8), (16, 14), (14, 8), (8, 8)])
def test_two_networks_need_no_more_lengths_than_one(sides):
    rng = np.random.default_rng(1)
    pairs = set()
    for height, width in np.exp(rng.uniform(3, 6, (60, 2))).astype(int).tolist():
        photo = np.zeros((height, width, 3), np.uint8)
        cuts = cut_photo(photo, ClipOptions(short_side=48, resample="area"), sides)
        pairs.add(tuple(cut.pixels.shape[1] for cut in cuts))
        for cut, side in zip(cuts, sides, strict=True):
            size = short_side_size((height, width), 48, side)
            assert cut.grid.tolist() == [[length // side for length in size]]
    assert len(pairs) <= 5
