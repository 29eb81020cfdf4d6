"""A small checkpoint with random weights, shared by all tests of the whole."""

import numpy as np
import pytest

from dslo_jax import Segmenter, SegmenterConfig
from dslo_jax.demo.random_weights import write_random_checkpoint


CONFIG = SegmenterConfig(
    affinity_size=64, short_side=64, templates="single", velocity_steps=200
)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    return write_random_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def segmenter(checkpoint):
    return Segmenter.from_pretrained(checkpoint, config=CONFIG)


@pytest.fixture(scope="session")
def make_photo():
    """Blocks of colour with noise: something for attention to hold on to."""

    def make(height, width, seed=0):
        rng = np.random.default_rng(seed)
        blocks = rng.integers(0, 256, (4, 4, 3))
        rows = np.arange(height) * 4 // height
        columns = np.arange(width) * 4 // width
        noise = rng.integers(-20, 21, (height, width, 3))
        return np.clip(blocks[rows][:, columns] + noise, 0, 255).astype(np.uint8)

    return make
