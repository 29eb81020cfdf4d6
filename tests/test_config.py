import json

import pytest
from other_options import OTHER

from dslo_jax import SegmenterConfig
from dslo_jax.errors import OptionError
from dslo_jax.images.resizing import MAX_LONG
from dslo_jax.solvers import (
    DISCREPANCIES,
    Divergence,
    Fused,
    LabelPropagation,
    Logits,
    MaximumVelocity,
    OptimalPath,
)


def test_is_hashable_so_that_it_can_be_static_under_jit():
    assert hash(SegmenterConfig()) == hash(SegmenterConfig())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epsilon": 0.0}, ["O01", "epsilon = 0.0", "a number > 0"]),
        ({"epsilon": float("nan")}, ["O01", "epsilon = nan"]),
        ({"epsilon": -0.1}, ["O01", "epsilon = -0.1"]),
        ({"threshold": 0.0}, ["O01", "threshold = 0.0", "(0, 1]"]),
        ({"threshold": 1.5}, ["O01", "threshold = 1.5"]),
        ({"suppression_threshold": 2.0}, ["O01", "suppression_threshold = 2.0"]),
        ({"path_steps": 0}, ["O01", "path_steps = 0", "an integer >= 1"]),
        ({"balancing_steps": 0}, ["O01", "balancing_steps = 0"]),
        ({"timestep": 1000}, ["O01", "timestep = 1000", "[0, 999]"]),
        ({"affinity_size": 500}, ["O01", "affinity_size = 500", "512"]),
        ({"affinity_size": 1001}, ["O01", "not a multiple of 64"]),
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


def write_toml(path, values):
    """As TOML writes the values that options have."""
    lines = [f"{name} = {json.dumps(value)}" for name, value in values.items()]
    path.write_text("\n".join(lines))


def test_every_default_survives_a_round_trip_through_toml(tmp_path):
    path = tmp_path / "config.toml"
    write_toml(path, SegmenterConfig().flat)
    assert SegmenterConfig.from_toml(path) == SegmenterConfig()


def test_every_other_value_survives_a_round_trip_through_toml(tmp_path):
    usual = SegmenterConfig()
    assert {name for name in OTHER if OTHER[name] != usual.flat[name]} == set(
        usual.flat
    )
    config = SegmenterConfig.of(**OTHER)
    assert config.flat == OTHER
    path = tmp_path / "config.toml"
    write_toml(path, config.flat)
    read = SegmenterConfig.from_toml(path)
    assert (read, hash(read)) == (config, hash(config))
    write_toml(path, {"mode": "velocity", "epsilon": 1})  # over what is there
    over = SegmenterConfig.from_toml(path, base=config)
    assert over.flat == OTHER | {"mode": "velocity", "epsilon": 1.0}


def test_files_of_earlier_versions_still_load(tmp_path):
    """All options that there were when the configuration had no parts."""
    path = tmp_path / "config.toml"
    path.write_text(EARLIER)
    later = {
        *("propagation_alpha", "propagation_steps", "clip_shape", "window"),
        *("window_stride", "background_threshold", "background_scale"),
        "noise_seed",
    }
    earlier = {name: value for name, value in OTHER.items() if name not in later}
    assert SegmenterConfig.from_toml(path) == SegmenterConfig.of(**earlier)


EARLIER = """
mode = "path"
clip_attention = "vanilla"
short_side = 48
resample = "area"
templates = ["the {}.", "one {}"]
early_rejection = false
rejection_share = 0.125
suppression = "softmax"
suppression_threshold = 0.5
source_scale = 3
affinity_size = 128
timestep = 100
affinity_layers = [["up_blocks.1.attentions.0", 1], ["down", 0.5]]
affinity_temperature = 0.5
epsilon = 0.05
path_steps = 7
tolerance = 0
norm = "sum"
threshold = 0.5
criterion = "increment"
balancing_steps = 5
velocity_steps = 20
kl_direction = "target_to_source"
upsampling = "bilinear"
spatial_variance = 2
range_variance = 0.25
"""


def test_an_option_reaches_the_part_that_it_belongs_to():
    config = SegmenterConfig().with_options(**OTHER)
    assert config.clip.attention == "vanilla"
    assert config.source.suppression == "softmax"
    assert config.affinity.size == 128
    assert config.discrepancy == OptimalPath(
        epsilon=0.05, max_steps=7, tolerance=0.0, norm="sum"
    )
    assert config.upsampling.upsampling == "bilinear"


def test_each_mode_is_solved_for_with_its_own_options():
    config = SegmenterConfig.of(epsilon=0.05, threshold=0.5)
    path = OptimalPath(epsilon=0.05, norm="minmax")
    velocity = MaximumVelocity(threshold=0.5)
    expected = {
        "path": path,
        "velocity": velocity,
        "fused": Fused(path, velocity),
        "kl": Divergence(),
        "logits": Logits(),
        "propagation": LabelPropagation(),
    }
    assert set(expected) == set(DISCREPANCIES)
    for mode, discrepancy in expected.items():
        assert config.with_options(mode=mode).discrepancy == discrepancy


def test_a_discrepancy_is_a_choice_like_a_name_with_options():
    given = SegmenterConfig().with_options(
        discrepancy=OptimalPath(norm="sum", max_steps=7)
    )
    named = SegmenterConfig.of(mode="path", norm="sum", path_steps=7)
    assert given.flat == named.flat
    assert given.discrepancy == named.discrepancy


def test_any_two_discrepancies_may_be_fused():
    fused = Fused(OptimalPath(epsilon=0.2), Divergence())
    config = SegmenterConfig().with_options(discrepancy=fused)
    assert config.discrepancy == fused
    changed = config.with_options(epsilon=0.3).discrepancy
    assert changed == Fused(OptimalPath(epsilon=0.3), Divergence())
    assert SegmenterConfig.of(mode="fused").discrepancy == Fused(
        OptimalPath(norm="minmax"), MaximumVelocity()
    )


def test_the_usual_discrepancy_is_the_usual_configuration():
    usual = OptimalPath(norm="minmax")
    given = SegmenterConfig().with_options(discrepancy=usual)
    assert given == SegmenterConfig.of(mode="path")


def test_options_beside_a_discrepancy_are_not_dropped():
    path = OptimalPath(norm="sum")
    config = SegmenterConfig().with_options(discrepancy=path, epsilon=0.05)
    assert config.discrepancy == OptimalPath(norm="sum", epsilon=0.05)
    assert config == config.with_options(discrepancy=path, epsilon=0.05, mode="path")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"discrepancy": "path"}, "O03.*discrepancy = 'path'.*OptimalPath"),
        ({"discrepancy": OptimalPath}, "O03.*expected an object"),
        ({"discrepancy": OptimalPath(), "mode": "kl"}, "O03.*mode = 'kl'.*'path'"),
        ({"discrepancy": OptimalPath(), "epsilon": 0}, "O01.*epsilon = 0"),
        ({"epsilom": 1}, "O02.*'epsilom'; did you mean 'epsilon'"),
        ({"size": 64}, "O02.*'size'"),  # a field of a part, and no flat name
    ],
)
def test_choices_that_cannot_be_are_refused(options, words):
    with pytest.raises(OptionError, match=words):
        SegmenterConfig().with_options(**options)


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


def test_a_photo_of_the_affinity_has_a_limit():
    with pytest.raises(OptionError, match=r"O01.*affinity_size = 65536"):
        SegmenterConfig.of(affinity_size=65536)


def test_a_short_side_is_no_longer_than_a_long_one_may_be():
    """A greater one would be cut down without a word."""
    assert SegmenterConfig.of(short_side=MAX_LONG).clip.short_side == MAX_LONG
    with pytest.raises(OptionError, match=r"O01.*short_side = 2049.*1, 2048"):
        SegmenterConfig.of(short_side=MAX_LONG + 1)
