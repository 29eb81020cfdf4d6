"""Spellings of a field with the same meaning, and errors that name the field."""

import re

import pytest

from dslo_jax.errors import CheckpointError
from dslo_jax.models.config_fields import Fields, model_type_of, one_value


def fields(**values):
    return Fields(values, "a/config.json", "text_config.")


def refused(message, read, *arguments, **options):
    with pytest.raises(CheckpointError, match=re.escape(message)) as error:
        read(*arguments, **options)
    assert error.value.code == "W06"


@pytest.mark.parametrize("same", [12, 12.0, [12], [12, 12], (12.0, 12), [[12], [12]]])
def test_one_number_in_many_spellings(same):
    found = fields(size=same).integer("size", 1)
    assert found == 12
    assert type(found) is int


def test_a_square_is_its_side():
    assert fields(size={"height": 14, "width": 14}).integer("size", 1) == 14
    assert one_value({"height": 14, "width": 7}) == [14, 7]
    assert one_value({"height": 14}) == {"height": 14}
    assert one_value([]) == []


def test_null_is_left_out():
    empty = fields(size=None, epsilon=None, on=None, part=None)
    assert empty.integer("size", 3) == empty.integer("absent", 3) == 3
    assert empty.number("epsilon", 1e-5) == 1e-5
    assert empty.flag("on", True) is True
    assert empty.integers("size", 8, levels=2) == (8, 8)
    assert empty.part("part").values == {}


@pytest.mark.parametrize(
    "bad", [0, -1, 2.5, "12", True, [12, 13], [], {}, float("nan"), float("inf")]
)
def test_no_positive_integer(bad):
    text = f"a/config.json has text_config.size = {bad!r}, this network wants a posit"
    refused(text, fields(size=bad).integer, "size", 1)


def test_a_value_for_each_level():
    assert fields(heads=8).integers("heads", 1, levels=3) == (8, 8, 8)
    assert fields(heads=[5, 10.0]).integers("heads", 1, levels=2) == (5, 10)
    assert fields().integers("channels", (320, 640)) == (320, 640)
    assert fields(channels=[64]).integers("channels", ()) == (64,)
    for bad in ([5], [5, 10, 20], [5, 0], [5, "10"], [5, None], "8", []):
        refused("for each of the 2", fields(heads=bad).integers, "heads", 1, levels=2)
    for bad in (320, [], [0], [[1, 2]]):
        refused("for each level", fields(channels=bad).integers, "channels", ())


def test_numbers_and_flags():
    assert fields(epsilon=1).number("epsilon", 2.0) == 1.0
    assert fields(shift=0).number("shift", 1.0, positive=False) == 0.0
    for bad in (0, -1e-5, "1e-5", False, float("nan"), [1, 2]):
        refused("a positive number", fields(epsilon=bad).number, "epsilon", 1.0)
    for bad in (1, "true", []):
        refused("true or false", fields(on=bad).flag, "on", True)


def test_a_part_carries_its_name():
    outer = Fields({"vision_config": {"patch_size": 0}}, "a/config.json")
    vision = outer.part("vision_config")
    said = "a/config.json has vision_config.patch_size = 0"
    refused(said, vision.integer, "patch_size", 1)
    refused("= [1], this network wants an object", Fields({"part": [1]}).part, "part")


def test_every_difference_is_named_at_once():
    allowed = {"act": ("silu", "swish"), "only": (False,)}
    allowed |= {"layers": (1,), "hid": (None,)}
    for same in (
        {},
        {"act": "swish", "only": [False] * 4, "layers": [[1, 1], [1]], "hid": None},
        {"only": None, "layers": 1.0, "unknown": 3},
    ):
        Fields(same).require(allowed, "thing")
    refused(
        "config.json is not a thing: act = 'relu', wanted 'silu' or 'swish'; "
        "layers = [1, 2], wanted 1; hid = 5, wanted None",
        Fields({"act": "relu", "layers": [1, 2], "hid": 5, "only": False}).require,
        allowed,
        "thing",
    )
    # What is on by default is off where it is null.
    off = Fields({"on": None})
    refused("on = None, wanted True", off.require, {"on": (True,)}, "thing")


def test_model_type():
    both = {"model_type": "clip", "architectures": ["ViTModel"]}
    assert model_type_of(both) == "clip"
    assert model_type_of({"architectures": ["CLIPModel"]}) == "clip"
    assert model_type_of({"architectures": ["CLIPTextModelWithProjection"]}) == (
        "clip_text_model"
    )
    for unknown in ({}, {"architectures": ["ResNetModel"]}, {"architectures": None}):
        assert model_type_of(unknown) is None
