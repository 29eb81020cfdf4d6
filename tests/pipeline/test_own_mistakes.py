"""Mistakes in a discrepancy of one's own: told early, everywhere, and never labels."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
import pytest

from dslo_jax import Segmenter, SegmenterConfig, prompts, segment_logits, tuning
from dslo_jax.bench import Effort, bench_discrepancy
from dslo_jax.errors import OptionError, SolverError
from dslo_jax.evaluation import Cell, SceneSet, Sweep, compare
from dslo_jax.pipeline import AdjustableSolver, Placement, checks, num_compilations
from dslo_jax.pipeline.stages import Clock
from dslo_jax.solvers import Discrepancy, OptimalPath, Reason, Solution
from dslo_jax.stablehlo import export_discrepancy
from tests.pipeline.colours import colour_networks
from tests.pipeline.conftest import CONFIG


COLOURS = CONFIG.with_options(templates=("{}",), early_rejection=False)
EFFORT = Effort(repeats=1, seconds=0)


@dataclass(frozen=True)
class Turned(Discrepancy):
    """Returns [patches, classes]."""

    name: ClassVar[str] = "turned"

    def solve(self, source, affinity=None):
        return Solution.exact(source)._replace(value=(source @ affinity).T)


@dataclass(frozen=True)
class Walk(Discrepancy):
    """Right; its types are text, because of the import of ``annotations``."""

    name: ClassVar[str] = "walk"
    flat_names: ClassVar[Mapping[str, str]] = {"steps": "walk_steps", "part": "part"}
    traced: ClassVar[tuple[str, ...]] = ("part",)

    steps: int = 1
    part: float = 0.5
    tolerance: float = 1e-3

    def solve(self, source, affinity=None):
        for _ in range(self.steps):
            walked = jnp.matmul(source, affinity, precision="highest")
            source = (1 - self.part) * source + self.part * walked
        return Solution.exact(source)


@dataclass(frozen=True)
class Scaled(Discrepancy):
    """Divides by the sum, which is 0 for padding; NaN for classes beyond some."""

    name: ClassVar[str] = "scaled"
    needs_affinity: ClassVar[bool] = False

    good: int = 99

    def solve(self, source, affinity=None):
        value = source / source.sum(axis=1, keepdims=True)
        rows = jnp.arange(len(source))[:, None]
        return Solution.exact(jnp.where(rows < self.good, value, jnp.nan))


@dataclass(frozen=True)
class MyPath(OptimalPath):
    """A path under another name: it shares the flat names of ``OptimalPath``."""

    name: ClassVar[str] = "my_path"


def given(classes=3):
    random = np.random.default_rng(0)
    logits = random.normal(size=(classes, 4, 4)).astype(np.float32)
    affinity = random.random((16, 16), np.float32)
    return logits, affinity / affinity.sum(axis=1, keepdims=True)


PHOTO = np.zeros((16, 24, 3), np.uint8)
WORDS = r"O10.*Turned\.solve returned `value` of shape \(\d+, \d+\).*`value\.T`"


@pytest.fixture(scope="module")
def networks(checkpoint):
    return colour_networks(prompts.load_tokenizer(checkpoint / "clip"))


# --- Where a discrepancy is given


def test_whatever_takes_one_tells_the_mistake_and_compiles_nothing(networks):
    samples, config = SceneSet(range(1)), COLOURS.with_options(discrepancy=Turned())
    segmenter = Segmenter(networks, COLOURS)
    before = num_compilations()
    for take in (
        lambda: segment_logits(*given(), PHOTO, discrepancy=Turned()),
        lambda: Segmenter(networks, COLOURS, discrepancy=Turned()),
        lambda: segmenter(PHOTO, ["cat", "sofa"], discrepancy=Turned()),
        lambda: Sweep(networks, samples.classes, [Cell(config)]),
        lambda: compare(segmenter, samples, {"mine": Turned()}),
        lambda: bench_discrepancy(Turned(), patches=64, classes=3, effort=EFFORT),
        lambda: export_discrepancy(Turned(), 3, 16),
    ):
        with pytest.raises(OptionError, match=WORDS):
            take()
    assert num_compilations() == before


def test_a_number_that_is_traced_must_not_be_asked_for_its_value():
    @dataclass(frozen=True)
    class Asked(Walk):
        def solve(self, source, affinity=None):
            return Solution.exact(source if self.part > 0.2 else 2 * source)

    solver = AdjustableSolver(Placement(jnp.zeros(1).device))
    source, affinity = jnp.ones((1, 2, 16)), jnp.ones((1, 16, 16))
    with pytest.raises(OptionError, match=r"O10.*Asked\.solve failed.*instead of `if`"):
        solver(Clock(), source, affinity, discrepancy=Asked())


# --- Options


def test_options_are_typed_although_their_types_are_text():
    config = COLOURS.with_options(discrepancy=Walk())
    assert config.with_options(walk_steps=3).discrepancy == Walk(steps=3)
    assert config.with_options(part=1).discrepancy == Walk(part=1.0)
    with pytest.raises(OptionError, match=r"O03.*walk_steps = 'two'.*whole number"):
        config.with_options(walk_steps="two")


def test_a_field_that_is_no_option_says_how_it_is_set():
    config = COLOURS.with_options(discrepancy=Walk())
    for options, words in (
        ({"steps": 2}, "field of Walk is called 'walk_steps' here"),
        ({"walk_step": 2}, "did you mean 'walk_steps'"),
        ({"domain": "log", "discrepancy": MyPath()}, r"discrepancy=MyPath\(domain="),
    ):
        with pytest.raises(OptionError, match=rf"O02.*{words}"):
            config.with_options(**options)
    mine = COLOURS.with_options(discrepancy=Scaled())
    words = r"'good'.*discrepancy=Scaled\(good=\.\.\.\), or .*flat_names = \{'good': 's"
    with pytest.raises(OptionError, match=rf"O02.*{words}"):
        mine.with_options(good=3)
    with pytest.raises(OptionError, match=r"O02.*OptimalPath\(domain=\.\.\.\)$"):
        COLOURS.with_options(mode="path", domain="log")


def test_a_flat_name_that_several_share_means_that_of_the_chosen_one():
    config = COLOURS.with_options(discrepancy=MyPath(), epsilon=0.05)
    assert (config.flat["epsilon"], config.discrepancy.epsilon) == (0.05, 0.05)
    path = config.with_options(mode="path")
    assert (path.flat["epsilon"], path.discrepancy.epsilon) == (0.1, 0.1)
    keys = {Cell(path.with_options(epsilon=each)).key for each in (0.1, 0.2)}
    assert len(keys) == 2


def test_a_flat_name_of_another_option_is_refused():
    @dataclass(frozen=True)
    class Taken(Walk):
        flat_names: ClassVar[Mapping[str, str]] = {"part": "affinity_size"}

    with pytest.raises(OptionError, match=r"O10.*Taken.*'affinity_size'.*'walk_part'"):
        COLOURS.with_options(discrepancy=Taken())


def test_results_state_all_of_its_options():
    facts = COLOURS.with_options(discrepancy=Walk(steps=2, tolerance=0.5)).facts
    assert (facts["mode"], facts["walk_steps"]) == ("walk", 2)
    options = {"steps": 2, "part": 0.5, "tolerance": 0.5}
    assert facts["discrepancy"] == {"class": "Walk", "options": options}
    assert "discrepancy" not in COLOURS.with_options(mode="path").facts


# --- Values


def refused(discrepancy, **status):
    """The error about two classes, of which the second has this status."""
    usual = Solution(
        np.zeros((1, 2, 4), np.float32), *np.zeros((3, 1, 2)), np.zeros((1, 2), int)
    )
    changes = {}
    for name, value in status.items():
        array = np.array(getattr(usual, name))
        array[0, 1] = value
        changes[name] = array
    rows = np.array([[0, 1]]), np.array([2]), ("cat", "sofa")
    with pytest.raises(SolverError, match=r"^\[S03\] mode '\w+' has no .*'sofa'") as e:
        checks.check_maps(
            usual._replace(**changes), *rows, discrepancy, COLOURS.affinity
        )
    return str(e.value)


def test_values_that_are_no_numbers_are_blamed_on_solve():
    words = refused(Walk(), value=[0, np.nan, np.inf, 0])
    assert "its map is NaN or infinite in 2 of 4 patches" in words
    assert "division by 0" in words
    assert "Walk.solve" in words
    assert "affinity" not in words
    assert "tolerance" not in words  # the sentence of CONVERGED contradicts
    assert "its error is NaN" in refused(Walk(), error=np.nan)
    words = refused(Walk(), reason=Reason.NOT_FINITE, error=np.nan)
    assert "its computation became NaN or infinite" in words
    words = refused(Walk(), reason=Reason.AFFINITY_NEGATIVE, error=np.nan)
    assert f"AFFINITY_NEGATIVE: {Reason.AFFINITY_NEGATIVE.sentence}" in words
    assert "temperature" not in words
    # A class that was not solved must not be labelled as if it had a map of zeros.
    assert "NO_MASS" in refused(Walk(), reason=Reason.NO_MASS)
    assert "99, which is no Reason" in refused(Walk(), reason=99)


@pytest.mark.parametrize("decides", ["host", "device"])
def test_nan_never_becomes_a_label_and_padding_does_not_matter(decides, monkeypatch):
    if decides == "device":
        monkeypatch.setattr(tuning, "HOST_DECIDES_ON", ())
    logits, _ = given()
    options = {"config": replace(SegmenterConfig(), source=COLOURS.source)}
    with pytest.raises(SolverError, match=r"S03.*'2': its map is NaN .* 16 of 16"):
        segment_logits(logits, None, PHOTO, discrepancy=Scaled(good=2), **options)
    # Three classes are padded to eight; the other rows are 0 / 0.
    found = segment_logits(logits, None, PHOTO, discrepancy=Scaled(), **options)
    assert np.isfinite(found.discrepancy).all()
    assert set(np.unique(found.labels)) == set(
        np.unique(found.discrepancy.argmax(axis=0))
    )


# --- Scores


def test_discrepancies_are_compared_on_the_same_photos(networks):
    samples = SceneSet(range(3), size=(48, 64))
    segmenter = Segmenter(networks, COLOURS)
    asked = {"path": "path", "mine": Walk(), "the same": Walk()}
    found = compare(segmenter, samples, asked, batch_size=2)
    assert list(found) == list(asked)
    assert found["mine"].mean_iou == found["the same"].mean_iou
    assert found["path"].num_steps > 0
    assert all(each.converged == 1 and each.seconds > 0 for each in found.values())
    photos = [sample.photo for sample in samples]
    labels = segmenter.batch(photos, samples.classes, discrepancy=Walk(), batch_size=2)
    right = sum(
        int((one.labels == sample.truth).sum())
        for one, sample in zip(labels, samples, strict=True)
    )
    assert found["mine"].confusion.pixel_accuracy == right / (3 * 48 * 64)
    assert 0 < found["mine"].mean_iou < 1
    with pytest.raises(OptionError, match=r"O05.*no discrepancies"):
        compare(segmenter, samples, {})
    with pytest.raises(OptionError, match=r"O05.*no photos"):
        compare(segmenter, SceneSet(range(0)), asked)
    with pytest.raises(OptionError, match=r"O03.*'paths'"):
        compare(segmenter, samples, {"path": "paths"})
    with pytest.raises(OptionError, match=r"O03.*are a Walk; expected a dict"):
        inspect.unwrap(compare)(segmenter, samples, Walk())
    with pytest.raises(OptionError, match=r"O03.*are a range; expected photos"):
        inspect.unwrap(compare)(segmenter, range(8), asked)
