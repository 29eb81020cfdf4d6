"""A segmenter, photos and the command, for the tests of the whole job."""

import numpy as np
import pytest
from PIL import Image

from dslo_jax import Segmenter, SegmenterConfig, cli


CONFIG = SegmenterConfig.of(
    affinity_size=64, short_side=64, templates="single", velocity_steps=200
)
QUICK = (
    *("--affinity-size", "64", "--short-side", "64", "--templates", "single"),
    *("--velocity-steps", "200"),
)
FAST = ("--mode", "logits")  # without diffusion, where the photo is but a vehicle


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


@pytest.fixture
def photo(tmp_path, make_photo):
    path = tmp_path / "photo.png"
    Image.fromarray(make_photo(50, 75)).save(path)
    return path


@pytest.fixture
def run(checkpoint, tmp_path, capsys):
    def run(*arguments, model=checkpoint, out=tmp_path / "out"):
        code = cli.main(
            [
                *("segment", *map(str, arguments), "--model", str(model)),
                *("--out", str(out), *QUICK),
            ]
        )
        captured = capsys.readouterr()
        assert code != cli.BUG, captured.err
        return code, captured.out, captured.err

    return run
