"""Loading checkpoints: files that are read, files that are refused, exact values."""

import json
import re
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings, strategies as st
from safetensors.numpy import save_file

from dslo_jax.errors import CheckpointError
from dslo_jax.weights import (
    load_module,
    open_weights,
    read_config,
    save_module,
)


class Sample(nnx.Module):
    """One layer of every layout, and a parameter outside any layer."""

    def __init__(self, rngs: nnx.Rngs):
        self.dense = nnx.Linear(3, 5, rngs=rngs)
        self.conv = nnx.Conv(2, 4, (3, 5), rngs=rngs)
        self.norm = nnx.LayerNorm(6, rngs=rngs)
        self.tokens = nnx.Embed(7, 8, rngs=rngs)
        self.logit_scale = nnx.Param(jnp.float32(2.5))
        self.count = nnx.Variable(jnp.arange(3, dtype=jnp.int32))


class Linear(nnx.Module):
    def __init__(self, *, rngs):
        self.dense = nnx.Linear(3, 2, use_bias=False, rngs=rngs)


def weights_of_sample() -> dict[str, np.ndarray]:
    """A tensor for each parameter of ``Sample``, in the layout of the file."""
    shapes = {
        "dense.weight": (5, 3),
        "dense.bias": (5,),
        "conv.weight": (4, 2, 3, 5),
        "conv.bias": (4,),
        "norm.weight": (6,),
        "norm.bias": (6,),
        "tokens.weight": (7, 8),
        "logit_scale": (),
    }
    rng = np.random.default_rng(0)
    weights = {
        key: np.asarray(rng.normal(size=shape), np.float32)
        for key, shape in shapes.items()
    }
    return weights | {"count": np.arange(3, dtype=np.int32)}


def weights_of_linear(**changes) -> dict[str, np.ndarray]:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    return {"dense.weight": values} | changes


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


# ---- round trip ----------------------------------------------------------------------


def test_a_saved_module_loads_with_identical_weights(tmp_path):
    weights = weights_of_sample()
    save_module(load_module(Sample, weights), tmp_path, {"model_type": "sample"})
    assert read_config(tmp_path) == {"model_type": "sample"}
    loaded = open_weights(tmp_path)
    assert loaded.keys() == weights.keys()
    for key, value in weights.items():
        assert loaded[key].dtype == value.dtype
        assert loaded[key].shape == value.shape
        np.testing.assert_array_equal(loaded[key], value, err_msg=key)


def test_non_floating_parameters_keep_their_type(tmp_path):
    module = load_module(Sample, weights_of_sample(), dtype=jnp.bfloat16)
    assert module.count[...].dtype == jnp.int32
    assert module.dense.kernel[...].dtype == jnp.bfloat16
    save_module(module, tmp_path, {}, dtype=jnp.float16)
    types = {str(value.dtype) for value in open_weights(tmp_path).values()}
    assert types == {"int32", "float16"}


def test_the_layout_is_that_of_torch():
    torch = pytest.importorskip("torch")
    weights = weights_of_sample()
    module = load_module(Sample, weights)
    x = np.random.default_rng(0).normal(size=(1, 5, 6, 2)).astype(np.float32)
    y = torch.nn.functional.conv2d(
        torch.from_numpy(x).permute(0, 3, 1, 2),
        torch.from_numpy(weights["conv.weight"]),
        torch.from_numpy(weights["conv.bias"]),
        padding=(1, 2),
    )
    want = y.permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(module.conv(jnp.asarray(x)), want, atol=1e-5)
    want = x[0, 0, :3].T @ weights["dense.weight"].T + weights["dense.bias"]
    got = module.dense(jnp.asarray(x[0, 0, :3].T))
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_a_saved_clip_is_the_clip_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    clip = pytest.importorskip("dslo_jax.models.clip")
    small = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    small |= {"num_attention_heads": 2, "projection_dim": 12}
    config = transformers.CLIPConfig(
        text_config=small | {"vocab_size": 50},
        vision_config=small | {"image_size": 16, "patch_size": 8},
        projection_dim=12,
    )
    transformers.set_seed(0)
    source, copy = tmp_path / "source", tmp_path / "copy"
    model = transformers.CLIPModel(config)
    model.save_pretrained(source)
    save_module(clip.load_clip(source), copy, read_config(source))
    again = transformers.CLIPModel.from_pretrained(copy).state_dict()
    for key, value in model.state_dict().items():
        np.testing.assert_array_equal(again[key].numpy(), value.numpy(), err_msg=key)


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16, jnp.bfloat16])
@pytest.mark.parametrize("stored", [jnp.float32, jnp.bfloat16])
def test_every_floating_type_is_converted_once(tmp_path, kind, stored):
    values = np.linspace(-3, 3, 6).reshape(2, 3).astype(kind)
    save_file({"dense.weight": values}, tmp_path / "model.safetensors")
    module = load_module(Linear, open_weights(tmp_path), dtype=stored)
    assert module.dense.kernel.dtype == stored
    np.testing.assert_array_equal(module.dense.kernel[...], values.T.astype(stored))


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


def test_a_convolution_of_one_pixel_is_a_linear_map():
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    module = load_module(Linear, {"dense.weight": values[:, :, None, None]})
    np.testing.assert_array_equal(module.dense.kernel[...], values.T)


def test_parameters_go_to_the_device_and_the_files_are_closed(tmp_path):
    save_module(load_module(Sample, weights_of_sample()), tmp_path, {})
    device = jax.devices()[-1]
    weights = open_weights(tmp_path)
    module = load_module(Sample, weights, device=device)
    assert all(
        leaf.devices() == {device} for leaf in jax.tree.leaves(nnx.state(module))
    )
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert str(tmp_path) not in maps.read_text()


def test_few_tensors_are_held_on_the_host():
    class Stack(nnx.Module):
        def __init__(self, *, rngs):
            self.blocks = nnx.List(
                nnx.Linear(1024, 1024, use_bias=False, rngs=rngs) for _ in range(12)
            )

    class Made(dict):
        def __getitem__(self, key):
            return np.ones((1024, 1024), np.float16)

    keys = Made.fromkeys(f"blocks.{i}.weight" for i in range(12))
    tracemalloc.start()
    module = load_module(Stack, keys)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # The tensor in half and in float32, which of its numbers are finite, the tensor
    # before, which JAX may not have let go yet, and small things. What JAX copied is
    # not traced, and what is transposed it must copy.
    tensor = 1024 * 1024 * 4
    assert peak < 3 * tensor
    assert len(jax.tree.leaves(nnx.state(module))) == 12


# ---- both directions, all faults at once ---------------------------------------------


def test_all_structural_faults_come_in_one_error():
    weights = {
        "dense.weight": np.zeros((5, 4), np.float32),
        "conv.weight": np.zeros((4, 2, 3, 5), np.int8),
        "conv.bias": np.zeros(4, np.float32),
        "norm.weight": np.full(6, np.nan, np.float32),
        "norm.bias": np.zeros(6, np.float32),
        "token.weight": np.zeros((7, 8), np.float32),
        "logit_scale": np.zeros((), np.float32),
        "count": np.zeros(3, np.int64),
    }
    with pytest.raises(CheckpointError) as caught:
        load_module(Sample, weights)
    text = str(caught.value)
    assert caught.value.code == "W04"
    assert "dense.weight: shape (5, 4) in the file, (5, 3) in the network" in text
    assert "conv.weight: int8 in the file, float32 in the network" in text
    assert "dense.bias: needed by the network" in text
    assert "tokens.weight: needed by the network" in text
    assert "token.weight: in the file, unknown to the network" in text
    assert "norm.weight: 6 of 6 are NaN or infinite" in text
    assert len(text.splitlines()) == 7


def test_many_faults_are_counted():
    weights = weights_of_linear(**{f"extra.{i}": np.zeros(1) for i in range(20)})
    with pytest.raises(CheckpointError, match="and 8 more"):
        load_module(Linear, weights)


def test_ignored_keys_are_a_written_list():
    weights = weights_of_linear(position_ids=np.arange(3))
    with pytest.raises(CheckpointError, match="position_ids: in the file"):
        load_module(Linear, weights)
    with pytest.raises(CheckpointError, match="position_ids: in the file"):
        load_module(Linear, weights, ignored=(r"position",))  # the whole key must match
    load_module(Linear, weights, ignored=(r"position_.*",))


def test_a_rename_may_not_fill_a_parameter_twice():
    weights = weights_of_linear(**{"old.weight": np.zeros((2, 3), np.float32)})
    with pytest.raises(
        CheckpointError, match=r"old.weight: the same parameter as dense"
    ):
        load_module(Linear, weights, rename=lambda key: key.replace("old", "dense"))


def test_non_finite_weights_are_named_and_counted():
    weights = weights_of_linear()
    weights["dense.weight"][0, :2] = np.nan, np.inf
    with pytest.raises(
        CheckpointError, match=r"dense.weight: 2 of 6 are NaN"
    ) as caught:
        load_module(Linear, weights)
    assert caught.value.code == "W07"


def test_an_overflow_of_the_conversion_is_found():
    weights = weights_of_linear()
    weights["dense.weight"][0, 0] = 1e6
    with pytest.raises(CheckpointError, match="1 of 6 overflow float16") as caught:
        load_module(Linear, weights, dtype=jnp.float16)
    assert caught.value.code == "W07"
    load_module(Linear, weights, dtype=jnp.bfloat16)


# ---- which file is opened ------------------------------------------------------------


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


# ---- hostile and damaged files -------------------------------------------------------

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


VALID = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.arange(3, dtype=np.float16),
}


def open_or_refuse(folder: Path, content: bytes) -> None:
    """Whatever the bytes are: an error of ours, or tensors that can be read."""
    (folder / "model.safetensors").write_bytes(content)
    code, size = "read", 0
    try:
        weights = open_weights(folder)
        size = sum(weights[key].nbytes for key in weights)
    except CheckpointError as error:
        code = error.code
    assert code in ("read", "W03", "W04")
    assert size <= len(content)


def change_bytes(folder: Path, changes: list[tuple[int, int]], cut: int) -> None:
    path = folder / "valid"
    if not path.exists():
        save_file(VALID, path)
    content = bytearray(path.read_bytes())
    for position, value in changes:
        content[position % len(content)] ^= value
    open_or_refuse(folder, bytes(content[: len(content) - cut]))


# Most changes hit the header, the first 160 bytes or so.
CHANGES = st.lists(
    st.tuples(st.integers(0, 199), st.integers(1, 255)), min_size=0, max_size=4
)
CUTS = st.one_of(st.just(0), st.integers(0, 199))


@pytest.fixture(scope="module")
def fuzz_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def test_unchanged_bytes_give_equal_tensors(fuzz_folder):
    change_bytes(fuzz_folder, [], 0)
    weights = open_weights(fuzz_folder)
    assert weights.keys() == VALID.keys()
    for key, value in VALID.items():
        np.testing.assert_array_equal(weights[key], value)


@settings(max_examples=100, derandomize=True, deadline=None, database=None)
@given(changes=CHANGES, cut=CUTS)
def test_changed_bytes_are_refused_or_read(fuzz_folder, changes, cut):
    change_bytes(fuzz_folder, changes, cut)


@settings(max_examples=100, derandomize=True, deadline=None, database=None)
@given(
    dtype=st.sampled_from(["F32", "BF16", "I64", "C64", "F8_E5M2", "F6_E2M3", "x", ""]),
    shape=st.lists(st.integers(-1, 2**63), max_size=3),
    offsets=st.lists(st.integers(-1, 30), min_size=1, max_size=3),
    metadata=st.none() | st.just({"format": "pt"}) | st.just({"format": 1}),
)
def test_changed_fields_are_refused_or_read(
    fuzz_folder, dtype, shape, offsets, metadata
):
    header = {"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}
    if metadata is not None:
        header["__metadata__"] = metadata
    path = write_raw(fuzz_folder / "fields", header, bytes(24))
    open_or_refuse(fuzz_folder, path.read_bytes())


@pytest.mark.slow
@settings(max_examples=20_000, derandomize=True, deadline=None, database=None)
@given(changes=CHANGES, cut=CUTS)
def test_changed_bytes_are_refused_or_read_at_length(fuzz_folder, changes, cut):
    change_bytes(fuzz_folder, changes, cut)
