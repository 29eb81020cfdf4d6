"""The bundled networks find what is drawn: on scenes that they were not trained on."""

import numpy as np
import pytest

from dslo_jax import Segmenter, pairs, scenes
from dslo_jax.demo.components import KNOWN, Components
from dslo_jax.demo.sheet import SIZE, WORLD
from dslo_jax.evaluation.metrics import Confusion


FOLDER = pairs.BUNDLED["demo"]
SEEDS = scenes.HELD_OUT_SEEDS[:12]
# mIoU over all pixels of these scenes. The same inputs give the same labels but for the
# last bits of a machine's arithmetic, which move it by less than the width of a band.
# The k-k mean is the default for other networks.
BANDS = {
    ("path", "vanilla"): (0.699, 0.719),
    ("velocity", "vanilla"): (0.713, 0.733),
    ("velocity", "kk_mean"): (0.689, 0.709),
}
MEGABYTES = 12  # what the wheel has room for


@pytest.fixture(scope="module")
def drawn() -> list[scenes.Scene]:
    if not (FOLDER / "clip").is_dir() or not (FOLDER / "diffusion").is_dir():
        pytest.fail(f"the bundled networks are missing from {FOLDER}")
    return [scenes.draw_scene(seed, size=SIZE) for seed in SEEDS]


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    """Loaded once, so that its words are encoded once."""
    return Segmenter.from_pretrained("demo", offline=True, device="cpu")


@pytest.mark.parametrize(
    ("mode", "attention"),
    [
        pytest.param("path", "vanilla", marks=pytest.mark.slow),
        ("velocity", "vanilla"),
        ("velocity", "kk_mean"),
    ],
)
def test_labels_are_as_good_as_they_were(drawn, segmenter, mode, attention):
    pixels = [scene.pixels for scene in drawn]
    results = segmenter.batch(pixels, WORLD, mode=mode, clip_attention=attention)
    counted = [
        Confusion.of(scene.labels, result.labels, len(WORLD))
        for scene, result in zip(drawn, results, strict=True)
    ]
    score = sum(counted, start=Confusion.empty(len(WORLD))).mean_iou
    low, high = BANDS[mode, attention]
    assert low <= score <= high, f"mIoU {score:.4f}"


def test_a_row_of_the_demo_has_the_labels_of_its_mode(drawn, segmenter):
    scene, row = drawn[0], "V: IV + O.P."
    components = Components(segmenter.networks, segmenter.config)
    found = components(scene.pixels, scene.labels, WORLD, [row, KNOWN])
    expected = segmenter(scene.pixels, WORLD, mode="path").labels
    np.testing.assert_array_equal(found[row], expected)
    wrong = {name: np.mean(labels != scene.labels) for name, labels in found.items()}
    assert wrong[KNOWN] < wrong[row]


def test_fits_into_the_wheel(drawn):
    size = sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file())
    assert size <= MEGABYTES * 10**6
