"""A discrepancy that a user writes works in segmenters and sweeps like any other."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
import pytest

from dslo_jax import Segmenter, images, prompts
from dslo_jax.errors import OptionError
from dslo_jax.evaluation import Cell, SceneSet, Sweep
from dslo_jax.solvers import Discrepancy, MaximumVelocity, OptimalPath, Solution
from tests.pipeline.colours import colour_networks
from tests.pipeline.conftest import CONFIG


CLASSES = ("cat", "sofa", "wall", "floor", "lamp")
COLOURS = CONFIG.with_options(templates=("{}",), early_rejection=False)


@dataclass(frozen=True)
class Mine(Discrepancy):
    """The mass that reaches a patch after some steps along the affinity.

    Args:
        steps: Number of steps.
        lazy: Whether half of the mass stays in its patch at every step.
    """

    name: ClassVar[str] = "mine"
    flat_names: ClassVar[Mapping[str, str]] = {"steps": "my_steps"}

    steps: int = 1
    lazy: bool = False

    def __post_init__(self):
        if not 0 <= self.steps <= 9:
            raise ValueError(f"`steps` is {self.steps}, expected 0 to 9")

    def solve(self, source, affinity=None):
        value = source
        for _ in range(self.steps):
            moved = jnp.matmul(value, affinity, precision="highest")
            value = (value + moved) / 2 if self.lazy else moved
        return Solution.exact(value)


@dataclass(frozen=True)
class Plain(Discrepancy):
    """The logits, doubled; needs no affinity."""

    name: ClassVar[str] = "plain"
    takes_logits: ClassVar[bool] = True
    needs_affinity: ClassVar[bool] = False

    def solve(self, source, affinity=None):
        assert affinity is None
        return Solution.exact(2 * source)


@pytest.fixture(scope="module")
def networks(checkpoint):
    return colour_networks(prompts.load_tokenizer(checkpoint / "clip"))


def test_it_is_solved_for_and_named_in_the_result(networks, make_photo, tmp_path):
    segmenter = Segmenter(networks, COLOURS, discrepancy=Mine(steps=0))
    photo = make_photo(50, 75)
    sources = segmenter(photo, CLASSES)
    found = segmenter(photo, CLASSES, discrepancy=Mine(steps=2))
    affinity = networks.affinity_source().with_options(COLOURS.affinity)
    pixels = images.resize_photo(photo, (64, 64), method="area")
    seen = jnp.asarray(pixels[None] / np.float32(255))
    walked = np.asarray(affinity(seen)[0], np.float64)
    start = sources.discrepancy.reshape(len(CLASSES), -1)
    np.testing.assert_allclose(
        found.discrepancy.reshape(len(CLASSES), -1),
        start @ walked @ walked,
        atol=1e-6,
    )
    assert all(found.converged)
    assert found.config.discrepancy == Mine(steps=2)
    summary = found.summary()["config"]
    assert (summary["mode"], summary["my_steps"]) == ("mine", 2)
    found.save(tmp_path)
    saved = json.loads((tmp_path / "segmentation.json").read_text())
    assert saved["config"]["mode"] == "mine"


def test_a_batch_equals_one_by_one(networks, make_photo):
    segmenter = Segmenter(networks, COLOURS, discrepancy=Mine(steps=3))
    photos = [make_photo(50, 75, seed) for seed in range(3)]
    together = segmenter.batch(photos, CLASSES, batch_size=2)
    for photo, found in zip(photos, together, strict=True):
        alone = segmenter(photo, CLASSES)
        np.testing.assert_array_equal(found.labels, alone.labels)
        np.testing.assert_allclose(found.discrepancy, alone.discrepancy, atol=1e-6)


def test_its_options_are_options_of_a_call(networks, make_photo):
    segmenter = Segmenter(networks, COLOURS, discrepancy=Mine())
    photo = make_photo(50, 75)
    called = segmenter(photo, CLASSES, my_steps=4)
    assert called.config.discrepancy == Mine(steps=4)
    expected = Segmenter(networks, COLOURS, discrepancy=Mine(steps=4))(photo, CLASSES)
    np.testing.assert_array_equal(called.discrepancy, expected.discrepancy)
    assert segmenter(photo, CLASSES, mode="velocity").config.solver.mode == "velocity"
    with pytest.raises(OptionError, match=r"O01.*my_steps = 10"):
        segmenter(photo, CLASSES, my_steps=10)
    with pytest.raises(OptionError, match=r"O02.*'my_step'; did you mean 'my_steps'"):
        segmenter(photo, CLASSES, my_step=4)


def test_one_that_needs_no_affinity_loads_none(checkpoint, make_photo):
    def load(options):
        raise AssertionError("it was loaded")

    tokenizer = prompts.load_tokenizer(checkpoint / "clip")
    networks = colour_networks(tokenizer, {"": load})
    segmenter = Segmenter(networks, COLOURS, discrepancy=Plain())
    photo = make_photo(50, 75)
    found = segmenter(photo, CLASSES)
    logits = segmenter(photo, CLASSES, mode="logits")
    np.testing.assert_allclose(found.discrepancy, 2 * logits.discrepancy, rtol=1e-6)


def test_from_pretrained_takes_one(checkpoint, make_photo):
    segmenter = Segmenter.from_pretrained(
        checkpoint, config=CONFIG, discrepancy=Mine(lazy=True)
    )
    result = segmenter(make_photo(50, 75), CLASSES)
    assert result.config.discrepancy == Mine(lazy=True)
    with pytest.raises(OptionError, match=r"O03.*mode = 'path'.*'mine'"):
        Segmenter.from_pretrained(
            checkpoint, config=CONFIG, discrepancy=Mine(), mode="path"
        )


def test_a_sweep_measures_it_beside_the_others(networks):
    samples = SceneSet(range(2), size=(48, 64))
    configs = [
        COLOURS,
        COLOURS.with_options(discrepancy=Mine()),
        COLOURS.with_options(discrepancy=Mine(steps=3)),
        COLOURS.with_options(discrepancy=Mine(lazy=True)),
    ]
    cells = [Cell(config) for config in configs]
    sweep = Sweep(networks, samples.classes, cells, batch_size=2)
    found = sweep.label(list(samples), cells)
    photos = [sample.photo for sample in samples]
    for cell, config in zip(cells, configs, strict=True):
        expected = Segmenter(networks, config).batch(
            photos, samples.classes, batch_size=2
        )
        for one, other in zip(found[cell], expected, strict=True):
            np.testing.assert_array_equal(one.labels, other.labels)
    measured = sweep.measure(list(samples), cells)
    assert all(each.converged == 1 for each in measured[cells[1]])


def test_its_name_and_all_its_options_are_in_the_key_of_a_cell():
    kinds = (Mine(), Mine(steps=3), Mine(lazy=True), Plain(), OptimalPath())
    cells = [Cell(COLOURS.with_options(discrepancy=kind)) for kind in kinds]
    assert len({cell.key for cell in cells}) == len(kinds)
    described = cells[1].describe()
    assert (described["config"]["mode"], described["config"]["my_steps"]) == ("mine", 3)
    assert "Mine(steps=3, lazy=False)" in described["discrepancy"]
    again = Cell(COLOURS.with_options(discrepancy=Mine(steps=3)))
    assert (again, again.key) == (cells[1], cells[1].key)


def test_options_that_have_no_flat_name_are_in_the_key_of_a_cell():
    usual = Cell(COLOURS.with_options(mode="path"))
    given = OptimalPath(norm="minmax")
    assert Cell(COLOURS.with_options(discrepancy=given)).key == usual.key
    log = OptimalPath(norm="minmax", domain="log")
    assert Cell(COLOURS.with_options(discrepancy=log)).key != usual.key
    velocity = MaximumVelocity(max_steps=200)
    key = Cell(COLOURS.with_options(discrepancy=velocity)).key
    assert key == Cell(COLOURS).key
