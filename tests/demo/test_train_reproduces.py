"""The committed recipes give the committed curves of the bundled checkpoint."""

import dataclasses
import shutil

import pytest

from dslo_jax.demo.train.__main__ import PARTS
from dslo_jax.demo.train.curves import read_curve
from dslo_jax.demo.train.loop import train
from dslo_jax.pairs import BUNDLED


DEMO = BUNDLED["demo"]


@pytest.mark.slow
@pytest.mark.parametrize("part", ["clip", "autoencoder", "denoiser"])
def test_a_training_begins_as_that_of_the_bundled_networks(part, tmp_path):
    """``sharing`` and ``tiling`` go on from a CLIP that is not kept."""
    for network in ("clip", "diffusion"):
        shutil.copytree(DEMO / network, tmp_path / network)
    expected = read_curve(DEMO / "curves" / f"{part}.jsonl")[0]
    build, folder, steps = PARTS[part]
    recipe = build(tmp_path / folder, steps=steps)
    first = dataclasses.replace(recipe, steps=expected["step"])
    train(first, tmp_path / "runs", every=first.steps)
    assert read_curve(tmp_path / "runs" / f"{part}.jsonl") == [
        pytest.approx(expected, rel=1e-3)
    ]
