import json

import pytest

from dslo_jax import SegmenterConfig
from dslo_jax.errors import OptionError


def test_is_hashable_so_that_it_can_be_static_under_jit():
    assert hash(SegmenterConfig()) == hash(SegmenterConfig())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epsilon": 0.0}, ["O01", "epsilon = 0.0", "[1e-30, 1e+30]"]),
        ({"epsilon": float("nan")}, ["O01", "epsilon = nan"]),
        ({"epsilon": -0.1}, ["O01", "epsilon = -0.1"]),
        ({"threshold": 0.0}, ["O01", "threshold = 0.0", "(0, 1]"]),
        ({"threshold": 1.5}, ["O01", "threshold = 1.5"]),
        ({"suppression_threshold": 2.0}, ["O01", "suppression_threshold = 2.0"]),
        ({"path_steps": 0}, ["O01", "path_steps = 0", "[1, 2147483647]"]),
        ({"balancing_steps": 0}, ["O01", "balancing_steps = 0"]),
        ({"timestep": 1000}, ["O01", "timestep = 1000", "[0, 999]"]),
        ({"affinity_size": 500}, ["O01", "affinity_size = 500", "512"]),
        ({"affinity_size": 10**6 * 64 + 1}, ["O01", "not a multiple of 64"]),
        ({"path_steps": 2**31}, ["O01", "path_steps = 2147483648"]),
        ({"velocity_steps": 10**400}, ["O01", "velocity_steps = 1000"]),
        ({"epsilon": 10**400}, ["O01", "epsilon = 1000"]),
        ({"epsilon": float("inf")}, ["O01", "epsilon = inf"]),
        ({"tolerance": float("nan")}, ["O01", "tolerance = nan"]),
        ({"range_variance": 1e-40}, ["O01", "range_variance = 1e-40"]),
        ({"mode": "fastest"}, ["O03", "mode = 'fastest'", "'velocity'", "'path'"]),
        ({"epsilon": "0.1"}, ["O03", "epsilon = '0.1'", "a number"]),
        ({"path_steps": 2.5}, ["O03", "path_steps = 2.5", "a whole number"]),
        ({"path_steps": True}, ["O03", "path_steps = True"]),
        ({"early_rejection": 1}, ["O03", "early_rejection = 1", "true or false"]),
        ({"affinity_layers": (("a", "b"),)}, ["O03", "affinity_layers"]),
        ({"templates": "clip"}, ["O03", "templates", "'imagenet'"]),
    ],
)
def test_bad_value_is_named_with_what_was_expected(options, words):
    with pytest.raises(OptionError) as caught:
        SegmenterConfig.of(**options)
    for word in words:
        assert word in str(caught.value)


def test_reads_toml(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(
        'mode = "path"\nepsilon = 0.05\ntemplates = ["a photo of {}."]\n'
        'affinity_layers = [["up_blocks.3.attentions.0", 1.0]]\n'
    )
    assert SegmenterConfig.from_toml(path) == SegmenterConfig.of(
        mode="path",
        epsilon=0.05,
        templates=("a photo of {}.",),
        affinity_layers=(("up_blocks.3.attentions.0", 1.0),),
    )


def test_every_default_survives_a_round_trip_through_toml(tmp_path):
    path = tmp_path / "config.toml"
    lines = []
    for name, value in SegmenterConfig().flat.items():
        lines.append(f"{name} = {json.dumps(value)}")  # as TOML writes these values
    path.write_text("\n".join(lines))
    assert SegmenterConfig.from_toml(path) == SegmenterConfig()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\nepsilom = 1\n", ["O02", "config.toml:2", "'epsilom'", "'epsilon'"]),
        ("[solver]\nepsilon = 1\n", ["O02", "config.toml:1", "'solver'"]),
        ("mode = 'path'\nepsilon = 'x'\n", ["O03", "config.toml:2", "a number"]),
        ("epsilon = -1\n", ["O01", "config.toml:1", "epsilon = -1"]),
        ("epsilon = = 1\n", ["O04", "config.toml", "line 1"]),
    ],
)
def test_bad_file_is_named_with_its_line(tmp_path, text, words):
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(OptionError) as caught:
        SegmenterConfig.from_toml(path)
    for word in words:
        assert word in str(caught.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(OptionError, match=r"absent\.toml"):
        SegmenterConfig.from_toml(tmp_path / "absent.toml")
