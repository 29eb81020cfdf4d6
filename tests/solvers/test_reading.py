import numpy as np
import pytest

from dslo_jax.solvers import Counts, Reading, choose_reading, reading_of


def choose(**counts):
    defaults = {"rows": 600, "pairs": 600, "classes": 171, "patches": 4096}
    return choose_reading(Counts(**defaults | counts))


def test_many_classes_that_share_few_patches_are_read_by_pairs():
    assert choose() == Reading(pairs=640)
    assert choose(classes=8) == Reading(support=640)
    assert choose(pairs=3000) == Reading(support=640)


def test_pairs_are_chosen_only_where_they_were_measured():
    assert choose(platform="gpu") == Reading(support=640)


@pytest.mark.parametrize("count", [0, 1, 4090])
def test_sizes_stay_in_range(count):
    reading = choose(rows=count, pairs=count, classes=1, step=512)
    assert reading == Reading(support=512 if count < 512 else 4096)


def test_the_largest_of_several_images_decides():
    source = np.zeros((2, 3, 200))
    source[0, 0, :70] = 1
    source[1, :, :10] = 1
    assert reading_of(source) == Reading(support=128)
    assert reading_of(source[1]) == Reading(support=64)
