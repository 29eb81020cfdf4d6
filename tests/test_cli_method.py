"""The options on the command line are those of the classes of options."""

import dataclasses

import docstring_parser
import pytest
import tyro
from other_options import OTHER

from dslo_jax import SegmenterConfig, cli
from dslo_jax.attention import AffinityOptions
from dslo_jax.cli.method import DEFAULTS, Method, config_of, method_options
from dslo_jax.logits import ClipOptions
from dslo_jax.ops.options import BackgroundOptions, SourceOptions, UpsamplingOptions
from dslo_jax.solvers import DISCREPANCIES
from dslo_jax.solvers.options import SolverOptions


# Where a person may look them up: every class of options, and every discrepancy.
PARTS = (
    *(ClipOptions, SourceOptions, AffinityOptions, UpsamplingOptions),
    BackgroundOptions,
)


def explained():
    """Flat name and explanation of every option, as its class has it, for a person."""
    found = {"mode": of(SolverOptions)["mode"]}
    for kind in PARTS:
        for field in dataclasses.fields(kind):
            found[field.metadata.get("flat") or field.name] = of(kind)[field.name]
    for kind in DISCREPANCIES.values():
        for name, flat in kind.flat_names.items():
            found[flat] = of(kind)[name].replace("``max_steps``", "path_steps")
    return {name: text.replace("``", "") for name, text in found.items()}


def of(kind):
    params = docstring_parser.parse(kind.__doc__ or "").params
    return {param.arg_name: " ".join(param.description.split()) for param in params}


def flags(values):
    """A command line with these values."""
    for name, value in values.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            yield flag if value else flag.replace("--", "--no-", 1)
            continue
        yield flag
        parts = value if isinstance(value, tuple) else (value,)
        for part in parts:
            yield from map(str, part if isinstance(part, tuple) else (part,))


def test_every_option_of_every_part_is_there_with_its_explanation():
    expected = explained()
    assert {field.name for field in dataclasses.fields(Method)} == set(expected)
    assert set(expected) == set(SegmenterConfig().flat)
    assert of(Method) == expected


def test_help_shows_every_option_and_says_what_it_is(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    assert cli.main(["segment", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for inner in ("``", "max_steps", "ops.", "{None}"):  # for those who read the code
        assert inner not in text
    for name, explanation in explained().items():
        assert f"--{name.replace('_', '-')}" in text.replace("--no-", "--")
        assert explanation[:30] in text, name


def test_the_command_line_gives_every_option_its_value():
    parsed = tyro.cli(Method, args=list(flags(OTHER)))
    assert config_of(parsed) == SegmenterConfig.of(**OTHER)
    assert config_of(tyro.cli(Method, args=[])) == SegmenterConfig()


def test_a_configuration_survives_the_way_there_and_back():
    for config in (SegmenterConfig(), SegmenterConfig.of(**OTHER)):
        assert config_of(method_options(config)) == config
    assert config_of(DEFAULTS) == SegmenterConfig()


@pytest.mark.parametrize(
    ("name", "words"),
    [("mode", "fused"), ("clip_attention", "maskclip"), ("suppression", "relative")],
)
def test_choices_are_listed(capsys, name, words):
    flag = "--" + name.replace("_", "-")
    assert cli.main(["segment", "photo.png", "--classes", "cat", flag, "best"]) == 2
    assert words in capsys.readouterr().err
