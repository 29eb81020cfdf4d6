"""What a photo costs, part by part: formulas against the compiler."""

import json
import math

import numpy as np
import pytest

from dslo_jax import Segmenter
from dslo_jax.evaluation.efficiency import measure, table


def test_a_vision_transformer_as_source(checkpoint, base):
    """The CLIP of the pair, seen by itself: 4 x 4 patches."""
    base = base.with_options(affinity_size=64, mode="velocity")
    segmenter = Segmenter.from_pretrained(
        checkpoint, attention=checkpoint / "clip", config=base
    )
    photo = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    costs = measure(segmenter, photo, ["cat", "dog", "house"])["components"]
    found = {each["name"]: each for each in costs}
    assert not {"vae", "unet"} & set(found)
    for name in ("vit", "aggregation"):
        assert found[name]["seconds"] > 0
        assert found[name]["flops"] >= found[name]["flops_once"] > 0
    assert 1 < found["vit"]["compiler_flops"] / found["vit"]["flops_once"] < 1.2
    assert 0 < found["vit"]["parameters"] < found["clip"]["parameters"]


@pytest.fixture(scope="module")
def measured(checkpoint, base):
    segmenter = Segmenter.from_pretrained(checkpoint, config=base)
    photo = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    return measure(segmenter, photo, ["cat", "dog", "house"])


def test_formulas_agree_with_the_compiler(measured):
    """The compiler also counts what is no product: below a tenth in tiny networks."""
    found = {each["name"]: each for each in measured["components"]}
    unet = [found["unet"]["flops_once"], found["aggregation"]["flops_once"]]
    formula = {
        **{name: found[name]["flops_once"] for name in ("text", "clip", "vae")},
        "unet": sum(unet),
    }
    for name, once in formula.items():
        assert 1 < found[name]["compiler_flops"] / once < 1.1, name
    # Loops: over heads, over layers.
    assert found["unet"]["flops"] > found["unet"]["flops_once"]
    assert found["clip"]["flops"] > found["clip"]["flops_once"]
    assert found["solver"]["flops"] > 0
    assert found["labels"]["flops"] > 0


def test_every_part_is_timed_and_counted(measured, checkpoint):
    found = {each["name"]: each for each in measured["components"]}
    timed = {name for name, each in found.items() if each["seconds"]}
    assert timed == set(found) - {"aggregation"}
    assert {"text", "clip", "vae", "unet", "logits", "solver", "labels"} <= timed
    assert measured["classes"] == 3
    assert measured["photo"] == [48, 64]
    # As many as the files hold, but for the scale of CLIP's logits.
    for name, parts in {"diffusion/unet": ["unet"], "clip": ["text", "clip"]}.items():
        header = numbers_in(next((checkpoint / name).glob("*.safetensors")))
        header.pop("logit_scale", None)
        assert sum(found[part]["parameters"] for part in parts) == sum(header.values())


def numbers_in(path):
    """Names and sizes of the tensors of a file, from its header."""
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    header.pop("__metadata__", None)
    return {name: math.prod(tensor["shape"]) for name, tensor in header.items()}


def test_a_table_for_people(measured):
    json.dumps(measured, allow_nan=False)
    text = table(measured)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    vae = next(each for each in measured["components"] if each["name"] == "vae")
    cells = next(row for row in rows if row.startswith("| vae")).split("|")
    assert float(cells[2]) == pytest.approx(vae["flops"] / 1e9, abs=1e-3)
    assert float(cells[5]) == pytest.approx(vae["parameters"] / 1e6, abs=1e-3)
    assert "The paper's own figures (arXiv 2604.07723v1, Sec. 8)" in text
    assert "| velocity | 339.2 | 1006.8 | 0.57 | 67.8 |" in text
