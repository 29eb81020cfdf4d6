"""Layers of attention by name, short name or index."""

import pytest
import tyro

from dslo_jax import SegmenterConfig
from dslo_jax.attention import AffinityOptions, find_layers, latent_layers, short_name
from dslo_jax.cli.method import Method, config_of
from dslo_jax.errors import OptionError
from dslo_jax.models.unet_config import UNetConfig


UNET = latent_layers(UNetConfig())
VIT = tuple(f"layers.{index}" for index in range(12))
HALVES = (("up0", 0.5), ("up1", 0.5))


def test_the_paper_names_the_five_layers_at_full_resolution():
    assert list(map(short_name, UNET)) == ["down0", "down1", "up0", "up1", "up2"]
    assert UNET[0] == "down_blocks.0.attentions.0"
    assert UNET[-1] == "up_blocks.3.attentions.2"
    assert short_name("layers.3") == "layers.3"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((), ()),
        ("", ()),
        ("up0", (("up0", 1.0),)),
        (-1, (("-1", 1.0),)),
        ((0, -1), (("0", 1.0), ("-1", 1.0))),
        (("up0", "up1"), (("up0", 1.0), ("up1", 1.0))),
        ((("up0", 0.5), ("up1", 0.5)), HALVES),
        ([["up0", 0.5], ["up1", 0.5]], HALVES),
        ("up0=0.5,up1=0.5", HALVES),
        ("up0=0.5 up1=0.5", HALVES),
        (("up0=0.5", "up1=0.5"), HALVES),
        (("up0", "0.5", "up1", "0.5"), HALVES),
        (("up0", 0.5, "up1", 0.5), HALVES),
        (("-1=2", "3=1"), (("-1", 2.0), ("3", 1.0))),
        (((-1, 2), (3, 1)), (("-1", 2.0), ("3", 1.0))),
        (("up0", "1", "2", "-1"), (("up0", 1.0), ("2", 1.0), ("-1", 1.0))),
        (("layers.11", "-2"), (("layers.11", 1.0), ("-2", 1.0))),
    ],
)
def test_every_spelling_means_layers_and_weights(given, expected):
    assert AffinityOptions(layers=given).layers == expected
    assert SegmenterConfig.of(affinity_layers=given).affinity.layers == expected


@pytest.mark.parametrize(
    "given",
    [
        *(0.5, True, None, {"up0": 0.5}, "0.5", "up0=", "=0.5", "up0=x", "up0=0.5=1"),
        *((("up0", "x"),), (("up0", True),), (("up0",),), (("up0", 0.5, 0.5),)),
        *(("up0", 0.5, 0.5), ("up0", "nan"), (True, False)),
    ],
)
def test_other_spellings_are_refused(given):
    words = "affinity_layers = .*; expected layers by name or by index"
    if given == "up0=0.5=1":
        layers = AffinityOptions(layers=given).layers
        with pytest.raises(OptionError, match=r"up0=0\.5"):
            find_layers(layers, UNET, "this UNet")
        return
    with pytest.raises(OptionError, match=words) as caught:
        AffinityOptions(layers=given)
    assert caught.value.code == "O03"


@pytest.mark.parametrize("words", [["-1"], ["up0=0.5", "up1=0.5"], ["0,-1=3"], []])
def test_the_command_line_and_a_file_take_the_same_words(words, tmp_path):
    parsed = tyro.cli(Method, args=["--affinity-layers", *words, "--timestep", "3"])
    path = tmp_path / "config.toml"
    path.write_text(f"timestep = 3\naffinity_layers = {words!r}\n")
    assert config_of(parsed) == SegmenterConfig.from_toml(path)
    assert config_of(parsed).affinity == AffinityOptions(
        layers=tuple(words), timestep=3
    )


def test_a_file_takes_one_layer_without_brackets(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text("affinity_layers = -1\n")
    assert SegmenterConfig.from_toml(path).affinity.layers == (("-1", 1.0),)


def test_layers_are_found_by_all_their_names():
    for index, name in enumerate(UNET):
        spellings = (name, short_name(name), str(index), str(index - len(UNET)))
        for spelling in spellings:
            assert find_layers(((spelling, 2.0),), UNET, "it") == ((name, 2.0),)
    layers = (("3", 1.0), ("-1", 0.5), ("layers.0", 0.0))
    expected = (("layers.3", 1.0), ("layers.11", 0.5), ("layers.0", 0.0))
    assert find_layers(layers, VIT, "it") == expected


@pytest.mark.parametrize(
    ("layers", "names", "words"),
    [
        ("up9", UNET, r"names \['up9'\], but the layers of it are down0 \(down_blocks"),
        ("5", UNET, r"\['5'\].*indices 0 ... 4 or -5 ... -1"),
        ("-13", VIT, r"\['-13'\].*layers.0 ... layers.11, or .* 0 ... 11 or -12"),
        ("up0 -3", UNET, r"\['up0', '-3'\], expected different names"),
        ("up0=0", UNET, r"`weights` is \(0.0,\), expected numbers"),
        ("up0=-1 up1=2", UNET, r"`weights` is \(-1.0, 2.0\)"),
        ("up0=inf", UNET, r"`weights` is \(inf,\)"),
        ("up0=nan up1", UNET, r"`weights` is \(nan, 1.0\)"),
    ],
)
def test_layers_that_cannot_be_read_are_named(layers, names, words):
    layers = AffinityOptions(layers=layers).layers
    with pytest.raises(OptionError, match=words) as caught:
        find_layers(layers, names, "it")
    assert caught.value.code == "O01"
