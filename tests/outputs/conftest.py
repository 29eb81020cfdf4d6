"""Results of a real run: given logits on a small photo, with awkward names."""

import numpy as np
import pytest
from PIL import Image

from dslo_jax import segment_logits
from dslo_jax.outputs import FILES


NAMES = ["sky", "猫 & <b>dog</b>", "sea, deep", "never seen"]


def segment(path, names=NAMES, *, seed=0):
    """A result in which all classes but the last have a part of the photo."""
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 256, (45, 70, 3), dtype=np.uint8)).save(path)
    logits = rng.random((len(names), 8, 8), np.float32)
    logits[-1] = 0
    affinity = np.full((64, 64), 1 / 64, np.float32) + 0.5 * np.eye(64, dtype="f")
    return segment_logits(logits, affinity, path, classes=names, mode="logits")


@pytest.fixture(scope="session")
def result(tmp_path_factory):
    return segment(tmp_path_factory.mktemp("photos") / "cat.png")


@pytest.fixture(scope="session")
def run(result, tmp_path_factory):
    """A folder as a run leaves it, and one hidden folder of a run that was killed."""
    folder = tmp_path_factory.mktemp("run")
    result.save(folder / "cat.png", write=tuple(FILES))
    other = segment(
        tmp_path_factory.mktemp("photos") / "b.jpg", ["sea", "sky", "-"], seed=1
    )
    other.save(folder / "deep" / "b.c.jpg")
    result.save(folder / ".0123.new")
    return folder
