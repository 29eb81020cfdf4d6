"""A small checkpoint with random weights, and a small world to measure it on."""

import pytest
from checkpoints.random_weights import write_random_checkpoint

from dslo_jax import SegmenterConfig
from dslo_jax.evaluation import SceneSet, load_networks
from dslo_jax.pairs import find_pair


@pytest.fixture(scope="session")
def base():
    return SegmenterConfig.of(
        affinity_size=64, short_side=64, templates="single", velocity_steps=50
    )


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    return write_random_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def networks(checkpoint, base):
    return load_networks(find_pair(checkpoint)._replace(config=base))


@pytest.fixture(scope="session")
def scene_set():
    """Three photos, batches of two: the last one is not full."""
    return SceneSet(range(3), size=(48, 64))
