"""Pairs of networks: their names and their options."""

import json

import pytest
from checkpoints.random_weights import write_random_checkpoint

from dslo_jax import Segmenter, SegmenterConfig, hub, pairs
from dslo_jax.attention import downscaling_of
from dslo_jax.errors import CheckpointError, OptionError
from dslo_jax.pairs import find_pair


def test_pairs_name_known_checkpoints():
    kinds = set()
    for pair in pairs.PAIRS.values():
        assert hub.kind_of(str(pair.clip)) == "clip"
        kinds.add(hub.kind_of(str(pair.attention)))
        size = pair.config.affinity.size
        assert pair.config == SegmenterConfig.of(affinity_size=size)
        assert size == 64 * downscaling_of(pair.attention)
    assert kinds == {"diffusion", "vit", "clip"}


def test_a_folder_is_a_pair(tmp_path):
    pair = find_pair(tmp_path)
    places = tmp_path / "clip", tmp_path / "diffusion"
    assert pair == (*places, SegmenterConfig(), None, None)
    assert find_pair(str(tmp_path)) == pair
    (tmp_path / "dino").mkdir()
    assert find_pair(tmp_path).proxy == tmp_path / "dino"


def test_a_folder_may_say_what_suits_it(tmp_path):
    (tmp_path / "segmenter.toml").write_text('short_side = 96\nmode = "path"\n')
    assert find_pair(tmp_path).config == SegmenterConfig.of(short_side=96, mode="path")
    (tmp_path / "segmenter.toml").write_text("short_side = 0\n")
    with pytest.raises(OptionError, match=r"O01.*segmenter\.toml:1"):
        find_pair(tmp_path)


def test_home_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine").mkdir()
    assert find_pair("~/mine").clip == tmp_path / "mine" / "clip"


@pytest.mark.parametrize("name", ["sd3", "", "~nobody/sd2", "a\0b", "x" * 5000])
def test_an_unknown_name_lists_the_known_ones(name):
    with pytest.raises(OptionError, match=r"O05.*sd2\+clip-b16.*demo"):
        find_pair(name)


def test_the_bundled_pair_is_in_the_package_and_has_its_own_choices(tmp_path):
    folder = pairs.BUNDLED["demo"]
    assert folder.is_absolute()
    assert find_pair("demo").clip == folder / "clip"
    assert find_pair("demo").config != SegmenterConfig()


@pytest.fixture
def demo(tmp_path, monkeypatch):
    """A bundled pair with random weights and choices of its own."""
    folder = write_random_checkpoint(tmp_path / "checkpoint")
    (folder / "segmenter.toml").write_text(
        'short_side = 64\naffinity_size = 64\ntemplates = "single"\n'
    )
    monkeypatch.setitem(pairs.BUNDLED, "demo", folder)
    monkeypatch.chdir(tmp_path)  # wherever people are
    return folder


def test_the_bundled_pair_is_loaded_with_its_choices(demo):
    segmenter = Segmenter.from_pretrained("demo", offline=True)
    used = segmenter.config
    assert (used.clip.short_side, used.affinity.size) == (64, 64)
    assert used.clip.templates == "single"
    assert used.solver.mode == SegmenterConfig().solver.mode


def test_a_mode_changes_nothing_else(demo):
    used = Segmenter.from_pretrained("demo", mode="logits").config
    assert used == SegmenterConfig.of(
        mode="logits", short_side=64, affinity_size=64, templates="single"
    )


@pytest.mark.slow
def test_a_configuration_that_is_given_wins_whole(demo):
    given = SegmenterConfig.of(mode="logits", short_side=80)
    assert Segmenter.from_pretrained("demo", config=given).config == given


@pytest.mark.parametrize("mode", ["logits", "velocity"])
def test_every_mode_has_maps_of_one_size(demo, mode):
    path = demo / "diffusion" / "vae" / "config.json"
    config = json.loads(path.read_text())
    segmenter = Segmenter.from_pretrained("demo", mode=mode)
    downscaling = 2 ** (len(config["block_out_channels"]) - 1)
    grid = segmenter.networks.grid(segmenter.config.affinity)
    assert grid == (64 // downscaling,) * 2
    for part in ("block_out_channels", "down_block_types"):
        config[part] = config[part][:-1]  # a VAE that halves once less
    path.write_text(json.dumps(config))
    if mode == "logits":
        segmenter = Segmenter.from_pretrained("demo", mode=mode)
        grid = segmenter.networks.grid(segmenter.config.affinity)
        assert grid == (128 // downscaling,) * 2


def test_a_bundle_without_weights_asks_no_hub(tmp_path, monkeypatch):
    monkeypatch.setitem(pairs.BUNDLED, "demo", tmp_path)
    with pytest.raises(CheckpointError, match=r"W01.*clip is not a folder"):
        Segmenter.from_pretrained("demo")
