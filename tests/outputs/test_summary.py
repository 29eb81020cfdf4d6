"""The JSON of a result, and its HTML in notebooks."""

import dataclasses
import io
import json
from html.parser import HTMLParser
from importlib import resources

import jsonschema
import numpy as np
import pytest
from conftest import NAMES
from PIL import Image

import dslo_jax
from dslo_jax import SegmenterConfig
from dslo_jax.model_info import Checkpoint, ModelInfo
from dslo_jax.outputs import SCHEMA, palette


MODEL = ModelInfo(
    "sd2+clip-b16",
    Checkpoint("clip-b16", "openai/clip", "57c2", (("model.safetensors", "0f" * 32),)),
    None,
    "float32",
    "cpu",
)


def schema():
    text = (
        resources.files("dslo_jax.outputs") / "segmentation.schema.json"
    ).read_text()
    return json.loads(text)


def written(result):
    return json.loads(result.files(("json",))["segmentation.json"])


def test_the_schema_is_valid_and_named():
    jsonschema.Draft202012Validator.check_schema(schema())
    assert schema()["$id"] == SCHEMA


@pytest.mark.parametrize("model", [None, MODEL])
def test_results_follow_the_schema(result, model):
    summary = written(dataclasses.replace(result, model=model))
    jsonschema.validate(summary, schema(), jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "dslo.segmentation.v1"},
        {"ties": None},
        {"more": 1},
        {"classes": []},
        {"model": {"name": "sd2+clip-b16"}},
    ],
)
def test_the_schema_refuses_other_files(result, change):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(written(result) | change, schema())


def test_what_it_says(result):
    summary = written(dataclasses.replace(result, model=MODEL))
    assert summary["dslo_jax"] == dslo_jax.__version__
    assert summary["photo"]["path"] == str(result.photo.path)
    assert (summary["photo"]["height"], summary["photo"]["width"]) == (45, 70)
    assert summary["model"]["clip"]["files"] == {"model.safetensors": "0f" * 32}
    assert summary["model"]["attention"] is None
    config = {k: _tuples(v) for k, v in summary["config"].items()}
    assert SegmenterConfig.of(**config) == result.config
    winners = result.discrepancy.argmax(axis=0)
    for index, each in enumerate(summary["classes"]):
        assert (each["id"], each["name"]) == (index, NAMES[index])
        assert each["colour"] == "#" + bytes(palette(NAMES)[index]).hex()
        assert each["area"] == pytest.approx(np.mean(result.labels == index))
        own = result.discrepancy[index][winners == index]
        assert each["score"] == (pytest.approx(own.mean()) if own.size else None)
    assert summary["classes"][0]["score"] is not None
    assert summary["classes"][-1]["score"] is None


def test_numbers_that_json_does_not_know(result):
    report = result.reports[0]._replace(error=float("nan"))
    broken = dataclasses.replace(result, reports=(report, *result.reports[1:]))
    summary = written(broken)
    assert summary["classes"][0]["error"] is None
    jsonschema.validate(summary, schema())


def _tuples(value):
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


class Reader(HTMLParser):
    """The tags and the text of a page, which must be balanced."""

    def __init__(self):
        super().__init__()
        self.tags, self.text, self.open = set(), "", []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_notebooks_show_the_photo_and_escaped_names(result):
    reader = Reader()
    reader.feed(dataclasses.replace(result, notes=("<u>note",))._repr_html_())
    assert reader.open == []
    assert reader.tags == {"div", "img", "span", "i", "small"}
    assert "猫 & <b>dog</b>" in reader.text
    assert "<u>note" in reader.text
    assert "1 class is absent" in reader.text
    assert "never seen" not in reader.text
    assert f"{result.reports[0].area:.1%}" in reader.text


def test_the_overlay_in_a_notebook_is_small(result):
    wide = np.asarray(Image.new("RGB", (3000, 300)))
    large = dataclasses.replace(
        result,
        photo=result.photo._replace(pixels=wide),
        labels=np.zeros((300, 3000), np.int32),
    )
    assert "max-width: 960px" in large._repr_html_()


def test_a_name_that_the_list_has_twice(result):
    """As "bed" in the usual list of COCO-Object: no map and no area is lost."""
    pairs = zip(result.reports, ("bed", "bed", "c", "d"), strict=True)
    reports = tuple(report._replace(name=name) for report, name in pairs)
    twice = dataclasses.replace(result, reports=reports)
    with np.load(io.BytesIO(twice.files(("maps",))["maps.npz"])) as maps:
        assert list(maps) == ["bed", "bed (id 1)", "c", "d"]
        np.testing.assert_array_equal(maps["bed (id 1)"], result.discrepancy[1])
    assert twice._repr_html_().count(">bed ") == 2
