"""The protocols of published methods."""

from pathlib import Path

import pytest

from dslo_jax import SegmenterConfig
from dslo_jax.errors import OptionError
from dslo_jax.evaluation.datasets import (
    BENCHMARK_PROTOCOLS,
    BENCHMARKS,
    protocol_background,
    protocol_options,
)
from dslo_jax.evaluation.datasets.protocols import _read
from dslo_jax.logits import Windows
from dslo_jax.prompts import BACKGROUNDS


PAGE = Path(__file__).parents[3] / "docs/how-to/background-and-windows.md"
ROWS = PAGE.read_text().partition("As published methods measure")[2].splitlines()
MEASURED = [name for name in BENCHMARKS if name != "loveda"]


def test_the_file_has_the_methods_and_nothing_that_is_not_read():
    found = _read()
    assert tuple(found) == BENCHMARK_PROTOCOLS
    for method in found.values():
        assert set(method) <= {"options", "background", *MEASURED}
        assert set(method.get("background", {})) <= set(MEASURED)


@pytest.mark.parametrize("protocol", BENCHMARK_PROTOCOLS)
@pytest.mark.parametrize("name", MEASURED)
def test_every_protocol_is_a_configuration(protocol, name):
    """A threshold where there is a background, and windows of CLIP B/16 and L/14."""
    options = protocol_options(protocol, name)
    config = SegmenterConfig.of(**options)
    assert config.background.is_used == BENCHMARKS[name].background
    for patch in (16, 14):
        windows = Windows.of(config.clip, (patch,))
        assert (windows is None) == (config.clip.window == 0)
    words = protocol_background(protocol, name)
    assert words is None or (words in BACKGROUNDS and BENCHMARKS[name].background)


def test_some_values_as_they_were_published():
    """SCLIP cfg_voc21.py, ClearCLIP cfg_voc21.py, SC-CLIP cfg_coco_object.py."""
    sclip = protocol_options("sclip", "voc21")
    assert (sclip["background_scale"], sclip["background_threshold"]) == (65, 0.1)
    assert (sclip["window"], sclip["window_stride"]) == (224, 112)
    clear = protocol_options("clearclip", "voc21")
    assert (clear["short_side"], clear["window"], clear["window_stride"]) == (
        *(448, 448),
        224,
    )
    assert (clear["background_scale"], clear["background_threshold"]) == (50, 0.5)
    assert protocol_background("clearclip", "voc21") == "clearclip"
    other = protocol_options("sc-clip", "coco_object")
    assert (other["background_scale"], other["background_threshold"]) == (55, 0.35)
    assert protocol_options("naclip", "voc21")["window"] == 0


def test_what_has_no_protocol_is_told():
    with pytest.raises(OptionError, match=r"O03.*'maskclip'.*'sclip'"):
        protocol_options("maskclip", "voc21")
    with pytest.raises(OptionError, match=r"O01.*loveda.*'all'"):
        protocol_options("sclip", "loveda")


@pytest.mark.parametrize("protocol", BENCHMARK_PROTOCOLS)
def test_the_page_has_the_values_of_the_file(protocol):
    (row,) = [line for line in ROWS if line.startswith(f"| `{protocol}` |")]
    scale, *cells = (cell.strip() for cell in row.split("|")[2:-1])
    common = protocol_options(protocol, "voc20")
    assert float(scale) == common["background_scale"]
    assert f"{common['window_stride']}" in cells[3]
    for cell, name in zip(cells, ("voc21", "coco_object", "context60"), strict=False):
        options = protocol_options(protocol, name)
        assert float(cell.split(",")[0]) == options["background_threshold"]
        other = options["background_scale"] != float(scale)
        assert (f"scale {options['background_scale']:g}" in cell) == other
        assert ("whole photo" in cell) == (options["window"] == 0)
