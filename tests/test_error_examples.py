"""The examples of docs/errors.md are what the program says."""

import asyncio
import dataclasses
import errno
import functools
import io
import os
import pickle
import platform
import re
import struct
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from flax import nnx
from huggingface_hub import errors as hub_errors
from PIL import Image
from safetensors.numpy import save_file

from dslo_jax import SegmenterConfig, hub, images, outputs, prompts, segment_logits
from dslo_jax.bench.compile.targets import topology
from dslo_jax.devices import device_error, find_devices
from dslo_jax.errors import CheckpointError, DsloError
from dslo_jax.evaluation.datasets import find_dataset
from dslo_jax.hub import download, messages
from dslo_jax.pairs import BUNDLED, find_pair
from dslo_jax.runs.lock import only_run
from dslo_jax.serve import Limits, app, bodies, guard, line, wishes
from dslo_jax.solvers import Discrepancy
from dslo_jax.templates import check_templates
from dslo_jax.tokens import load_tokenizer, tokenize
from dslo_jax.weights import load_module, open_weights
from torch_bridge import DSLOHead, save_checkpoint, to_jax


PAGE = Path(__file__).parents[1] / "docs" / "errors.md"
UNCHECKED = {
    "O09": "a run in a folder of results: tests/runs/test_photos.py",
    "V04": "a running page: tests/serve/test_abuse.py",
}
"""Codes whose example is not cheap to make again, and what is tested instead."""


def bitmap(width, height, *, claimed=None):
    """A BMP file; its header may claim another size."""
    content = io.BytesIO()
    Image.new("RGB", (width, height), (90, 120, 200)).save(content, "BMP")
    found = bytearray(content.getvalue())
    found[18:26] = struct.pack("<ii", *(claimed or (width, height)))
    return bytes(found)


def written(name, content):
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(name, content):
    return images.read_photo(written(name, content))


def labelled(mask):
    written("data/images/a.bmp", bitmap(8, 6))
    written("data/classes.txt", "sky\nsea\n")
    Path("data/masks").mkdir()
    Image.fromarray(mask).save("data/masks/a.png")
    return find_dataset("folder", Path("data"))


def network(**tensors):
    Path("clip").mkdir()
    save_file(tensors, "clip/model.safetensors")
    return Path("clip")


def pixels():
    return np.zeros((16, 16, 3), np.uint8)


def segmented(logits=None, affinity=None, **options):
    given = np.eye(2, 16, dtype=np.float32).reshape(2, 4, 4)
    given = given if logits is None else logits
    return segment_logits(given, affinity, pixels(), classes=["sky", "sea"], **options)


class Linear(nnx.Module):
    def __init__(self, *, rngs):
        self.dense = nnx.Linear(2, 3, rngs=rngs)


class Elsewhere(torch.Tensor):
    device = torch.device("cuda", 0)

    def detach(self):
        return self


def photo_of_an_address():
    written("cat.jpg", bitmap(8, 6))
    images.read_photo(Path("cta.jpg"))


def result_outside():
    Path("out").mkdir()
    Path("out/cat.jpg").symlink_to("/home/other/photos")
    outputs.output_path(Path("out"), "cat.jpg")


def infinite_logits():
    logits = np.zeros((2, 4, 4), np.float32)
    logits[1, 0, :3] = np.nan
    segmented(logits, mode="logits")


def second_run():
    with only_run(Path("out")), only_run(Path("out")):
        pass


def without_tokenizer():
    written("clip/config.json", '{"model_type": "clip"}')
    load_tokenizer(Path("clip"))


def weights_of_two_shapes():
    weight = np.zeros((5, 5), np.float32)
    load_module(Linear, open_weights(network(**{"dense.weight": weight})))


def not_a_number():
    tensors = {"dense.weight": np.zeros((3, 2), np.float32)}
    tensors["dense.weight"][0, 0] = np.nan
    tensors["dense.bias"] = np.zeros(3, np.float32)
    load_module(Linear, open_weights(network(**tensors)))


def code_in_a_pickle():
    class Evil:
        def __reduce__(self):
            return eval, ("1",)

    Path("clip").mkdir()
    torch.save({"weight": Evil()}, "clip/pytorch_model.bin", pickle_module=pickle)
    open_weights(Path("clip"))


def refused(kind, status):
    import httpx2

    request = httpx2.Request("GET", "https://huggingface.co/api/models/me/clip")
    error = kind("", response=httpx2.Response(status, request=request))
    raise messages.explain(error, hub.Mirror("me/clip"))


def another_file():
    preset = hub.PRESETS["clip-b16"]
    name, wanted = dict(preset.mirrors[0].hashes).popitem()
    raise download._other_content(preset.mirrors[0], name, wanted, "0" * 64)


def closed_mirrors():
    preset = hub.PRESETS["sd2-base"]
    errors = dict.fromkeys(preset.mirrors, CheckpointError("W01", "one is gone"))
    errors[preset.mirrors[0]] = CheckpointError("W09", "one is gated")
    raise messages.no_mirror("sd2-base", preset, "diffusion", errors, Path("cache"))


def another_name():
    page = guard.Guard(None, ["127.0.0.1:8000"], any_address=False, refuse=None)
    headers = [(b"host", b"192.168.1.20:8000")]
    page._check({"method": "GET", "path": "/", "headers": headers})


def too_many_files():
    async def receive():
        return {"type": "http.request", "body": b"a photo", "more_body": True}

    read = bodies.Bodies(most_bytes=6, seconds=60).read
    asyncio.run(read({"headers": []}, receive, most_bytes=100))


def misspelt_key():
    written("mine.toml", 'mode = "path"\nepsilom = 0.05\n')
    SegmenterConfig.from_toml(Path("mine.toml"))


def cut_off_line():
    written("mine.toml", "epsilon = \n")
    SegmenterConfig.from_toml(Path("mine.toml"))


def file_of_the_name():
    written("notes.txt", "mine")
    segmented(mode="logits").save("notes.txt")


def discrepancy_that_is_not_frozen():
    @dataclasses.dataclass
    class Loose(Discrepancy):
        name: ClassVar[str] = "loose"
        strength: float = 1.0

        def solve(self, source, affinity):
            raise NotImplementedError

    SegmenterConfig().with_options(discrepancy=Loose())


def no_memory():
    raise device_error(MemoryError("Unable to allocate 188. GiB"))


def no_files():
    raise device_error(OSError(errno.EMFILE, os.strerror(errno.EMFILE), "cat.jpg"))


def raised(error):
    raise error


EXAMPLES = {
    "I01": photo_of_an_address,
    "I02": lambda: read("cat.jpg", "<!DOCTYPE html><title>Sign in</title>"),
    "I03": lambda: read("cat.bmp", bitmap(80, 60)[:9000]),
    "I04": lambda: read("map.bmp", bitmap(8, 6, claimed=(30000, 20000))),
    "I05": lambda: read("line.bmp", bitmap(40, 1)),
    "I06": lambda: images.read_photo(np.full((60, 80, 3), 140.0)),
    "I07": lambda: labelled(np.full((6, 8, 3), (70, 130, 180), np.uint8)).read(0),
    "I08": result_outside,
    "I09": lambda: labelled(np.zeros((3, 4), np.uint8)).read(0),
    "I10": lambda: images.find_photos([f"{written('a.bmp', bitmap(8, 6))}#7"])[
        0
    ].read(),
    "C01": lambda: prompts.split_classes("cat,, sofa"),
    "C02": lambda: prompts.split_classes("cat, sofa, Cat"),
    "C03": lambda: tokenize(
        load_tokenizer(BUNDLED["demo"] / "clip"), [f"a photo of {'very ' * 80}old cat"]
    ),
    "C04": lambda: prompts.parse_classes("cat, sofa"),
    "C05": lambda: check_templates(["a photo of a cat"]),
    "C06": lambda: prompts.split_classes("cat, so\afa"),
    "C07": lambda: prompts.read_class_file(
        f"{written('classes.txt', 'cat')}".replace("classes", "clases")
    ),
    "C08": lambda: prompts.read_class_file(written("a.txt", "0 cat\n1 sofa\n3 wall\n")),
    "C09": lambda: prompts.parse_classes([str(number) for number in range(70000)]),
    "C10": lambda: prompts.split_classes("cat; sofa"),
    "W01": lambda: hub.resolve("clip-b17", "clip"),
    "W02": another_file,
    "W03": lambda: open_weights(
        written(
            "clip/model.safetensors", "version https://git-lfs.github.com/spec/v1\n"
        ).parent
    ),
    "W04": weights_of_two_shapes,
    "W05": code_in_a_pickle,
    "W06": lambda: hub.resolve("sd2-base", "clip"),
    "W07": not_a_number,
    "W08": without_tokenizer,
    "W09": lambda: refused(hub_errors.GatedRepoError, 403),
    "W10": lambda: hub.resolve("me/clip", "clip", offline=True, cache=Path("cache")),
    "W11": lambda: refused(hub_errors.HfHubHTTPError, 503),
    "W12": closed_mirrors,
    "S01": infinite_logits,
    "S03": lambda: segmented(affinity=-np.ones((16, 16), np.float32), mode="velocity"),
    "O01": lambda: SegmenterConfig.of(threshold=1.5),
    "O02": misspelt_key,
    "O03": lambda: SegmenterConfig.of(mode="fast"),
    "O04": cut_off_line,
    "O05": lambda: find_pair("demmo"),
    "O06": file_of_the_name,
    "O07": lambda: find_dataset("folder", written("data/a.bmp", "").parent),
    "O08": second_run,
    "O10": discrepancy_that_is_not_frozen,
    "D01": no_memory,
    "D02": lambda: find_devices("cpu", 4),
    "D03": no_files,
    "D04": lambda: topology("v5e", 1),
    "V01": another_name,
    "V02": lambda: wishes.check_wish([], SegmenterConfig(), Limits()),
    "V03": lambda: wishes.classes_of(", ".join(map(str, range(9999))), Limits()),
    "V05": too_many_files,
    "V06": lambda: raised(wishes.gone(Limits())),
    "V07": lambda: raised(app._no_such_address()),
    "V08": lambda: raised(line.bug()),
    "B01": lambda: to_jax(torch.eye(3).to_sparse()),
    "B02": lambda: to_jax(torch.ones(3, dtype=torch.float64)),
    "B03": lambda: to_jax(torch.ones(3).as_subclass(Elsewhere)),
    "B04": lambda: DSLOHead()(torch.zeros(21, 32, 32), None, torch.zeros(3, 64, 64)),
    "B05": lambda: to_jax(torch.ones(8)[::2], zero_copy=True),
    "B06": lambda: save_checkpoint(torch.nn.Linear(2, 2), "clip"),
    "B07": lambda: DSLOHead().watch(torch.nn.Linear(2, 2), "attn"),
}


def shown():
    """The example of every code in the page, without line ends."""
    parts = re.split(r"^### (\w+)\n", PAGE.read_text(encoding="utf-8"), flags=re.M)
    return {
        code: " ".join(re.findall(r"^```\n(.*?)\n```$", part, re.M | re.S)[0].split())
        for code, part in zip(parts[1::2], parts[2::2], strict=True)
    }


def said(code):
    """What the program says, with names that are the same on every machine."""
    with pytest.raises(DsloError) as caught:
        EXAMPLES[code]()
    names = {str(Path.cwd()): "/home/me", str(os.getpid()): "4321"}
    names[platform.node()] = "node7"
    return functools.reduce(
        lambda text, name: text.replace(name, names[name]), names, str(caught.value)
    )


@pytest.mark.parametrize("code", EXAMPLES)
def test_an_example_is_what_the_program_says(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DSLO_CACHE", raising=False)
    assert " ".join(said(code).split()) == shown()[code]


def test_every_code_has_an_example():
    found = shown()
    assert all(text.startswith(f"[{code}] ") for code, text in found.items())
    assert set(found) == {*EXAMPLES, *UNCHECKED}
