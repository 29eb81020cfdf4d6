"""Files and folders of weights: which are read, which are refused, and why."""

import json
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from dslo_jax.errors import CheckpointError
from dslo_jax.weights import open_weights, read_config


def write_raw(path: Path, header: object, data: bytes = b"") -> Path:
    """A safetensors file made by hand; ``header`` is JSON text or an object."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(start: int, end: int, dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": [(end - start) // 4], "data_offsets": [start, end]}


def write_sharded(folder: Path, places: dict) -> None:
    save_file({"a": np.zeros(2, np.float32)}, folder / "one.safetensors")
    save_file({"b": np.ones(3, np.float32)}, folder / "two.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))


def code_of(folder: Path, *words: str) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_weights(folder)
    assert all(word in str(caught.value) for word in words), caught.value
    return caught.value.code


def test_bfloat16_is_read_in_a_fresh_process(tmp_path):
    # safetensors alone fails here: only jax tells NumPy what bfloat16 is.
    data = np.array([1, 2.5], np.float32).view(np.uint32) >> 16
    header = {"a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}
    data = data.astype(np.uint16).tobytes()
    write_raw(tmp_path / "model.safetensors", header, data)
    script = (
        "import sys, pathlib\n"
        "from dslo_jax.weights import open_weights\n"
        "import dslo_jax.hub\n"
        "assert 'torch' not in sys.modules and 'huggingface_hub' not in sys.modules\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge.backends_are_initialized()\n"
        "print(open_weights(pathlib.Path(sys.argv[1]))['a'].tolist())\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "[1.0, 2.5]\n", done.stderr


def test_the_plain_file_is_preferred(tmp_path):
    for number, name in enumerate(("model.fp16", "model", "model.bf16")):
        values = np.full(1, number, np.float32)
        save_file({"a": values}, tmp_path / f"{name}.safetensors")
    assert open_weights(tmp_path)["a"] == 1


def test_shards_are_read_where_the_index_says(tmp_path):
    write_sharded(tmp_path, {"a": "one.safetensors", "b": "two.safetensors"})
    weights = open_weights(tmp_path)
    assert sorted(weights) == ["a", "b"]
    assert len(weights) == 2
    np.testing.assert_array_equal(weights["b"], np.ones(3))


@pytest.mark.parametrize(
    ("places", "code"),
    [
        ({"a": "one.safetensors", "b": "three.safetensors"}, "W08"),
        ({"a": "../one.safetensors", "b": "two.safetensors"}, "W08"),
        ({"a": "/etc/passwd"}, "W08"),
        ({"a": "one.safetensors\0"}, "W08"),
        ({"a": "x" * 5000}, "W08"),
        ({"a": ["one.safetensors"]}, "W08"),
        ({"a": "one.safetensors", "c": "two.safetensors"}, "W08"),
        ({"a": "two.safetensors", "b": "one.safetensors"}, "W08"),
        (["one.safetensors"], "W08"),
    ],
)
def test_a_bad_index_is_refused(tmp_path, places, code):
    write_sharded(tmp_path, places)
    assert code_of(tmp_path, "index.json") == code


def test_a_tensor_in_two_shards_is_refused(tmp_path):
    write_sharded(tmp_path, {"a": "one.safetensors", "b": "two.safetensors"})
    save_file(
        {"a": np.ones(2, np.float32), "b": np.ones(3)}, tmp_path / "two.safetensors"
    )
    assert code_of(tmp_path, "'a' is in two shards") == "W04"


def test_links_of_a_download_cache_are_followed(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    write_sharded(tmp_path / "blobs", {"a": "one.safetensors", "b": "two.safetensors"})
    for path in (tmp_path / "blobs").iterdir():
        (tmp_path / "snapshot" / path.name).symlink_to(path)
    assert len(open_weights(tmp_path / "snapshot")) == 2


def test_nothing_usable_is_said_by_name(tmp_path):
    assert code_of(tmp_path, "holds no files; looked for model.safetensors") == "W01"
    assert code_of(tmp_path / "absent", "no model folder") == "W01"
    (tmp_path / "tf_model.h5").write_bytes(b"anything")
    assert code_of(tmp_path, "holds tf_model.h5; looked for") == "W01"
    name = "diffusion_pytorch_model.non_ema.safetensors"
    save_file({"a": np.zeros(2, np.float32)}, tmp_path / name)
    words = (name, "diffusion_pytorch_model.safetensors", "not their average")
    assert code_of(tmp_path, *words) == "W01"
    assert list(open_weights(tmp_path / name)) == ["a"]  # asked for by its name


@pytest.mark.parametrize("content", [None, "", "{", "[1]", "\xff", "[" * 100_000])
def test_a_config_must_be_an_object(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content, encoding="latin-1")
    with pytest.raises(CheckpointError, match=re.escape(str(tmp_path))) as caught:
        read_config(tmp_path)
    assert caught.value.code == "W08"


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"


@pytest.mark.parametrize(
    ("content", "code", "word"),
    [
        (LFS, "W03", "git lfs pull"),
        (b"<!DOCTYPE html><html></html>", "W03", "web page"),
        (b"\xef\xbb\xbf\r\n<html>", "W03", "web page"),
        (b'{"error":"not found"}', "W03", "web page"),
        (b"", "W04", "truncated"),
        (b"\0" * 7, "W04", "truncated"),
        (b"\0" * 8, "W04", "damaged"),
        (b"\xff" * 64, "W04", "truncated"),
    ],
)
def test_other_files_are_recognised(tmp_path, content, code, word):
    (tmp_path / "model.safetensors").write_bytes(content)
    assert code_of(tmp_path, word) == code


@pytest.mark.parametrize(
    ("header", "word"),
    [
        (b'{"a":%b,"a":%b}' % ((json.dumps(entry(0, 4)).encode(),) * 2), "'a' appears"),
        (b'{"a":{"dtype":"F32","dtype":"F16"}}', "'dtype' appears twice"),
        ({"a": entry(0, 4), "b": entry(0, 4)}, "damaged"),  # overlapping
        ({"a": entry(0, 8)}, "damaged"),  # past the end
        ({}, "damaged"),  # bytes that belong to no tensor
        ({"a": entry(0, 4) | {"shape": [2]}}, "damaged"),
        ({"a": entry(0, 4) | {"shape": [2**62, 4]}}, "damaged"),
        ({"a": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}, "F8_E4M3"),
        ({"a": {"dtype": "F4", "shape": [8], "data_offsets": [0, 4]}}, "F4"),
        (b"[" * 100_000, "damaged"),
        (b"[1]", "damaged"),
        (b'{"a":' + b"9" * 5000 + b"}", "damaged"),
    ],
)
def test_damaged_headers_are_refused(tmp_path, header, word):
    write_raw(tmp_path / "model.safetensors", header, bytes(4))
    assert code_of(tmp_path, word) == "W04"


def test_a_header_of_more_than_a_table_is_refused(tmp_path):
    write_raw(tmp_path / "model.safetensors", b"{}".ljust(9_000_000))
    assert code_of(tmp_path, "a header of 9000000 bytes") == "W04"


def test_truncated_weights_are_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"a": np.zeros(100, np.float32)}, path)
    path.write_bytes(path.read_bytes()[:-1])
    assert code_of(tmp_path, "damaged") == "W04"


def test_a_header_whose_length_reads_as_markup_is_weights(tmp_path):
    # 0x3C20 = 15392 bytes of header: the file begins with " <".
    body = json.dumps({"a": entry(0, 4)}).encode()
    write_raw(tmp_path / "model.safetensors", body.ljust(0x3C20), bytes(4))
    assert (tmp_path / "model.safetensors").read_bytes()[:2] == b" <"
    assert list(open_weights(tmp_path)) == ["a"]


def test_tensors_come_back_as_they_were_saved(tmp_path):
    saved = {
        "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.arange(3, dtype=np.float16),
    }
    save_file(saved, tmp_path / "model.safetensors")
    weights = open_weights(tmp_path)
    assert weights.keys() == saved.keys()
    for key, value in saved.items():
        np.testing.assert_array_equal(weights[key], value, strict=True)
