"""A changed option recomputes the steps that depend on it, and no others."""

import numpy as np
import pytest
from other_options import OTHER

from dslo_jax import SegmenterConfig, prompts
from dslo_jax.config import option_fields
from dslo_jax.evaluation import Cell, Sample
from dslo_jax.evaluation.sweeps.oracles import InformedBatch
from dslo_jax.images import read_photo, resize_photo
from dslo_jax.ops import joint_bilateral_labels
from dslo_jax.pipeline import Batch, Memory
from dslo_jax.pipeline.stages import watch
from dslo_jax.solvers import Discrepancy
from tests.pipeline.colours import colour_networks


BASE = SegmenterConfig.of(
    affinity_size=64, short_side=64, templates=("{}",), background_threshold=0.25
)
CLASSES = prompts.parse_classes(["cat", "sofa", "wall", "background"])
# The table of `pipeline/batch.py`, read downwards: a step depends on what it starts
# from. The guide of the labels is the photo, cut as the grid is.
AFTER_LOGITS = {"logits", "confidence", "prepared", "solved"}
SOLVER_OPTIONS = (
    *("epsilon", "path_steps", "tolerance", "norm"),
    *("threshold", "criterion", "balancing_steps", "velocity_steps"),
    *("kl_direction", "propagation_alpha", "propagation_steps"),
)
STEPS = {
    "templates": {"text", *AFTER_LOGITS},
    "clip_attention": {"features", *AFTER_LOGITS},
    "short_side": {"features", *AFTER_LOGITS},
    "resample": {"features", *AFTER_LOGITS},
    "clip_shape": {"features", *AFTER_LOGITS},
    "window": {"features", *AFTER_LOGITS},
    "window_stride": {"features", *AFTER_LOGITS},
    "early_rejection": {"prepared", "solved"},
    "rejection_share": {"prepared", "solved"},
    "suppression": {"prepared", "solved"},
    "suppression_threshold": {"prepared", "solved"},
    "source_scale": {"prepared", "solved"},
    "affinity_size": {"encoded", "affinity", "guide", *AFTER_LOGITS},
    "timestep": {"affinity", "solved"},
    "noise_seed": {"affinity", "solved"},
    "affinity_layers": {"affinity", "solved"},
    "affinity_temperature": {"affinity", "solved"},
    "mode": {"solved"},
    **{name: {"solved"} for name in SOLVER_OPTIONS},
    **{name: set() for name in ("upsampling", "spatial_variance", "range_variance")},
    "background_threshold": set(),
    "background_scale": {"confidence"},
}


class Watched(Memory):
    """Notes which steps are computed and not recalled."""

    def __init__(self):
        super().__init__()
        self.computed = set()

    def recall(self, key, compute):
        return super().recall(key, self._noting(key[0], compute))

    def recall_last(self, step, key, compute):
        return super().recall_last(step, key, self._noting(step, compute))

    def _noting(self, step, compute):
        def noted():
            self.computed.add(step)
            return compute()

        return noted


@pytest.fixture(scope="module")
def tokenizer(checkpoint):
    return prompts.load_tokenizer(checkpoint / "clip")


@pytest.fixture
def networks(tokenizer):
    """Anew for each test, for they keep the features of names all their life."""
    return colour_networks(tokenizer)


@pytest.fixture(params=[Batch, InformedBatch])
def make_batch(request, networks, make_photo):
    """A batch of one photo, as a segmenter makes it and as a sweep does."""
    photo = read_photo(make_photo(64, 64))
    sample = Sample("photo", photo, np.zeros((64, 64), np.uint8))

    def make(memory):
        if request.param is Batch:
            return Batch(networks, [photo], CLASSES, memory=memory)
        cell = Cell(BASE)
        return InformedBatch(networks, [sample], CLASSES, cell, size=1, memory=memory)

    return make


def run(make_batch, memory, config):
    """The steps that are computed for this configuration, and the calls of programs."""
    memory.computed.clear()
    with watch() as calls:
        batch = make_batch(memory)
        for step in ("text", "features", "logits", "prepared", "encoded", "affinity"):
            getattr(batch, step)(config)
        batch.class_labels(config)
    text = {"text"} if any(call.stage == "text" for call in calls) else set()
    return memory.computed | text, calls


def owner(name):
    """The mode that an option belongs to; the usual one, for those of all modes."""
    kind = option_fields()[name][0]
    return kind.name if issubclass(kind, Discrepancy) else "velocity"


def test_every_option_has_its_steps():
    assert set(STEPS) == set(OTHER) == set(SegmenterConfig().flat)


@pytest.mark.parametrize("name", STEPS)
def test_an_option_changes_the_results_of_its_steps_and_of_no_other(make_batch, name):
    memory = Watched()
    base = BASE.with_options(mode=owner(name))
    run(make_batch, memory, base)
    assert run(make_batch, memory, base)[0] == set()
    changed = base.with_options(**{name: OTHER[name]})
    computed, calls = run(make_batch, memory, changed)
    assert computed == STEPS[name]
    (labels,) = [call for call in calls if call.stage == "labels"]
    options = changed.upsampling
    forms = {"bilateral": "product", "bilinear": "hat"}
    assert options == labels.static.get("options", options)
    assert labels.static.get("form") == forms.get(options.upsampling)
    for call in calls:
        if call.stage == "solver":
            asked = call.static["discrepancy"]
            assert asked.name == changed.discrepancy.name
    # All is still known, but for the one affinity that is kept.
    assert run(make_batch, memory, base)[0] == STEPS[name] & {"affinity"}


@pytest.mark.parametrize("name", [n for n in STEPS if owner(n) != "velocity"])
def test_options_of_other_discrepancies_change_nothing(make_batch, name):
    memory = Watched()
    run(make_batch, memory, BASE)
    changed = BASE.with_options(**{name: OTHER[name]})
    assert run(make_batch, memory, changed)[0] == set()


def test_templates_are_encoded_once_for_each_set(networks, make_photo):
    photo = read_photo(make_photo(64, 64))
    counted = []
    for templates in (("{}",), ("the {}.",), ("{}",)):
        config = BASE.with_options(mode="kl", templates=templates)
        with watch() as calls:
            Batch(networks, [photo], CLASSES).solved(config)
        counted.append(sum(call.stage == "text" for call in calls))
    assert counted == [len(CLASSES.names), len(CLASSES.names), 0]


def test_dense_upsampling_folds_no_photo(make_batch):
    memory = Watched()
    dense = BASE.with_options(upsampling="dense")
    assert "guide" not in run(make_batch, memory, dense)[0]
    assert run(make_batch, memory, BASE)[0] == {"guide"}


def test_photos_of_any_sizes_are_labelled_together(networks, make_photo):
    sizes = [(64, 64), (31, 90), (120, 40)]
    photos = [read_photo(make_photo(*size, i)) for i, size in enumerate(sizes)]
    config = BASE.with_options(mode="logits", spatial_variance=0.5, range_variance=0.02)
    batch = Together(networks, photos, CLASSES, size=3)
    with watch() as calls:
        found = batch.labelled(config)
    assert sum(call.stage == "labels" for call in calls) == 1
    solved = batch.solved(config)
    for i, photo in enumerate(photos):
        maps = solved.solution.value[i, : solved.counts[i]]
        expected = joint_bilateral_labels(
            maps.reshape(-1, *batch.grid(config)),
            photo.pixels,
            spatial_variance=0.5,
            range_variance=0.02,
        )
        for mine, other in zip(found[i], expected, strict=True):
            np.testing.assert_array_equal(mine, other)


class Together(Batch):
    """A batch whose photos all have the same size for CLIP."""

    def _resized(self, size, method):
        pixels = [resize_photo(photo.pixels, size) for photo in self.padded]
        return self.placement.put_batch(np.stack(pixels))
