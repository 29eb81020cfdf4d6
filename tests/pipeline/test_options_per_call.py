"""Options of one call: networks stay loaded, and a missing one is loaded once."""

import dataclasses

import numpy as np
import pytest

from dslo_jax import Segmenter, loading, prompts
from dslo_jax.errors import ClassListError, OptionError
from dslo_jax.pipeline import Networks, programs
from tests.pipeline.colours import ColourAffinity, ColourLogits, colour_networks
from tests.pipeline.conftest import CONFIG


CLASSES = ("cat", "sofa", "wall", "floor", "lamp")
COLOURS = CONFIG.with_options(templates=("{}",), early_rejection=False)


@pytest.fixture(scope="module")
def tokenizer(checkpoint):
    return prompts.load_tokenizer(checkpoint / "clip")


@pytest.fixture
def loads():
    """The options with which the source of affinities was loaded."""
    return []


@pytest.fixture
def lazy(tokenizer, loads):
    """A segmenter that has had no use for an affinity so far."""

    def load(options):
        loads.append(options)
        return ColourAffinity(options)

    networks = colour_networks(tokenizer, {"": load})
    return Segmenter(networks, COLOURS.with_options(mode="kl"))


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "path", "epsilon": 0.5, "path_steps": 5},
        {"mode": "fused", "affinity_temperature": 0.5},
        {"short_side": 48, "upsampling": "bilinear", "early_rejection": True},
        {"affinity_size": 128, "suppression": "none", "templates": ("the {}.",)},
    ],
)
def test_options_of_a_call_are_those_of_a_segmenter_made_with_them(
    tokenizer, make_photo, options
):
    networks, photo = colour_networks(tokenizer), make_photo(50, 75)
    usual = Segmenter(networks, COLOURS)
    before = usual(photo, CLASSES)
    called = usual(photo, CLASSES, **options)
    made = Segmenter(networks, COLOURS.with_options(**options))
    assert called.config == made.config != usual.config
    expected = made(photo, CLASSES)
    np.testing.assert_array_equal(called.labels, expected.labels)
    np.testing.assert_array_equal(called.discrepancy, expected.discrepancy)
    assert not np.array_equal(called.discrepancy, before.discrepancy)
    photos = [photo, make_photo(50, 75, seed=1), make_photo(75, 50)]
    for one, other in zip(
        usual.batch(photos, CLASSES, batch_size=2, **options),
        made.batch(photos, CLASSES, batch_size=2),
        strict=True,
    ):
        np.testing.assert_array_equal(one.labels, other.labels)
    after = usual(photo, CLASSES)  # as if nothing had happened
    assert after.config == before.config
    np.testing.assert_array_equal(after.discrepancy, before.discrepancy)


def test_an_affinity_is_loaded_when_it_is_needed_and_once(lazy, loads, make_photo):
    photo = make_photo(50, 75)
    first = lazy(photo, CLASSES)
    grid = lazy.networks.grid(lazy.config.affinity)
    assert loads == []
    lazy(photo, CLASSES, mode="velocity")
    assert loads == [lazy.config.affinity]
    assert lazy.networks.grid(lazy.config.affinity) == grid
    lazy(photo, CLASSES, mode="path", affinity_temperature=0.5)
    lazy.batch([photo], CLASSES, mode="velocity", affinity_size=128)
    Segmenter(lazy.networks, COLOURS)(photo, CLASSES)
    assert len(loads) == 1
    again = lazy(photo, CLASSES)
    np.testing.assert_array_equal(again.discrepancy, first.discrepancy)


def test_a_late_network_is_loaded_with_the_options_of_the_call(lazy, loads, make_photo):
    """Those of the segmenter might suit no such network."""
    lazy(make_photo(50, 75), CLASSES, mode="path", affinity_size=128, timestep=7)
    assert loads == [dataclasses.replace(lazy.config.affinity, size=128, timestep=7)]


def test_networks_of_a_checkpoint_are_loaded_once(checkpoint, make_photo, monkeypatch):
    loaded = []
    for name in ("load_logits", "load_affinity"):
        load = getattr(loading, name)

        def counted(*args, name=name, load=load, **options):
            loaded.append(name)
            return load(*args, **options)

        monkeypatch.setattr(loading, name, counted)
    segmenter = Segmenter.from_pretrained(checkpoint, mode="logits", config=CONFIG)
    photo = make_photo(50, 75)
    assert segmenter(photo, CLASSES).config.solver.mode == "logits"
    assert loaded == ["load_logits"]
    for options in ({"mode": "velocity"}, {"mode": "path", "timestep": 50}, {}):
        segmenter(photo, CLASSES, **options)
    assert loaded == ["load_logits", "load_affinity"]


def test_results_name_the_layers_that_were_read(segmenter, make_photo):
    usual = CONFIG.affinity.layers
    assert usual == ()
    read = segmenter(make_photo(50, 75), CLASSES, mode="path").config.affinity.layers
    assert read == segmenter.networks.affinity_source().options.layers != ()


def test_layers_that_are_named_and_the_usual_ones_share_a_variant(segmenter):
    networks = segmenter.networks
    usual = networks.affinity(CONFIG.affinity)
    assert networks.affinity(usual.module.options) is usual
    for spelling in ("up0=0.5 up1=0.5", ((-3, 0.5), ("3", 0.5))):
        short = CONFIG.with_options(affinity_layers=spelling).affinity
        assert networks.affinity(short) is usual


def test_other_options_of_attention_compile_no_encoder(segmenter, make_photo):
    photo = make_photo(50, 75)
    segmenter(photo, CLASSES)
    encode = programs.network_stage("encode", "vae")
    attend = programs.network_stage("attend", "unet")
    before = encode.num_compilations, attend.num_compilations
    for options in ({"timestep": 33}, {"affinity_temperature": 0.75}):
        segmenter(photo, CLASSES, **options)
    after = encode.num_compilations, attend.num_compilations
    assert after == (before[0], before[1] + 2)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"epsilom": 0.1}, OptionError, "O02.*did you mean 'epsilon'"),
        ({"epsilon": -1}, OptionError, "O01.*epsilon = -1"),
        ({"mode": "best"}, OptionError, "O03.*'best'"),
        ({"affinity_size": 100}, OptionError, "O01.*affinity_size = 100"),
        ({"templates": ("no name",)}, ClassListError, "C05.*'no name'"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_runs(
    lazy, loads, make_photo, options, error, words
):
    with pytest.raises(error, match=words):
        lazy(make_photo(50, 75), CLASSES, **options)
    assert loads == []
    with pytest.raises(error, match=words):
        Segmenter(lazy.networks, lazy.config.with_options(**options))


def test_without_an_affinity_the_modes_that_need_one_are_refused(tokenizer, make_photo):
    networks = Networks(ColourLogits(), tokenizer)
    with pytest.raises(OptionError, match=r"O05.*self-attention.*mode kl or logits"):
        Segmenter(networks, COLOURS)
    segmenter = Segmenter(networks, COLOURS.with_options(mode="logits"))
    assert segmenter(make_photo(50, 75), CLASSES, mode="kl").labels.shape == (50, 75)
    with pytest.raises(OptionError, match=r"O05"):
        segmenter(make_photo(50, 75), CLASSES, mode="path")


def test_an_unknown_source_lists_the_known_ones(tokenizer):
    networks = colour_networks(tokenizer).with_affinities({"dino": ColourAffinity()})
    assert networks.affinity_names == ("", "dino")
    with pytest.raises(OptionError, match=r"O05.*'dinov3'; there are '', 'dino'"):
        networks.affinity(CONFIG.affinity, "dinov3")
