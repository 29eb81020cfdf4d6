"""Run lengths are those of the COCO tools."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from dslo_jax.outputs.rle import decode_runs, encode_runs


MASKS = {
    "empty": np.zeros((5, 7), bool),
    "full": np.ones((5, 7), bool),
    "one pixel": np.arange(35).reshape(5, 7) == 11,
    "last pixel": np.arange(35).reshape(5, 7) == 34,
    "long runs": np.add.outer(np.arange(300), np.zeros(200)) < 3,
    "one long run": np.add.outer(np.zeros(400), np.arange(400)) > 200,
    "noise": np.random.default_rng(1).random((40, 31)) < 0.5,
    "sparse": np.random.default_rng(2).random((60, 50)) < 0.01,
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_the_coco_tools_write_and_read_the_same(mask):
    theirs = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    assert encode_runs(mask) == theirs["counts"].decode()
    np.testing.assert_array_equal(decode_runs(encode_runs(mask), *mask.shape), mask)


def test_example_of_the_coco_tools():
    # The runs 2, 3, 1, 1 of their documentation; the last is stored as 1 - 3.
    assert encode_runs(np.array([[0, 0, 1, 1, 1, 0, 1]], bool).T) == "231N"
    assert decode_runs("231N", 7, 1).ravel().tolist() == [0, 0, 1, 1, 1, 0, 1]


@pytest.mark.parametrize(
    ("counts", "fault"),
    [
        ("", "empty"),
        ("231", "cover 6 pixels, expected 7 x 1"),
        ("231NN", "expected 7 x 1"),
        ("23 1N", "foreign"),
        ("231n", "cut short"),
        ("o" * 40 + "0", "beyond any image"),
        ("é", "ascii"),
    ],
)
def test_damage_is_told(counts, fault):
    with pytest.raises(ValueError, match=fault):
        decode_runs(counts, 7, 1)
