"""The files around the tensors: zip, the old format of PyTorch, msgpack of Flax."""

import io
import struct
import warnings
import zipfile
from pathlib import Path

import jax.numpy as jnp
import msgpack
import numpy as np
import pytest
import torch
from flax import serialization

from dslo_jax.errors import CheckpointError
from dslo_jax.weights import open_weights


TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.arange(4)}


def refusal(path: Path, word: str) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        open_weights(path)
    assert word in str(caught.value)
    assert str(path) in str(caught.value)
    return caught.value


def saved(*, new: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save(TENSORS, file, _use_new_zipfile_serialization=new)
    return file.getvalue()


def entries() -> dict[str, bytes]:
    """The entries of a zip file of torch.save."""
    with zipfile.ZipFile(io.BytesIO(saved())) as file:
        return {name: file.read(name) for name in file.namelist()}


def write_entries(
    path: Path, content: dict[str, bytes], compression: int = zipfile.ZIP_STORED
) -> None:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in content.items():
            file.writestr(name, data)


# ---- zip -----------------------------------------------------------------------------


def test_zip_files_of_other_programs_are_read(path):
    write_entries(path, entries())
    found = open_weights(path)
    assert {*found} == {*TENSORS}
    np.testing.assert_array_equal(found["a"], TENSORS["a"].numpy())


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"archive/byteorder": b"big"}, "not little-endian"),
        ({"archive/data.pkl": None}, "not one of PyTorch"),
        ({"other/data.pkl": b"N."}, "not one of PyTorch"),
        ({"archive/data/0": None}, "'0' is missing"),
        ({"archive/data/0": bytes(23)}, "has 23 bytes, 24 were promised"),
        ({"archive/data/1": bytes(33)}, "has 33 bytes, 32 were promised"),
        ({"archive/data.pkl": b""}, "a pickle that does not end"),
    ],
)
def test_entries_must_be_those_of_torch(path, change, word):
    content = entries() | change
    write_entries(path, {k: v for k, v in content.items() if v is not None})
    assert refusal(path, word).code == "W04"


def test_compressed_entries_are_refused_before_they_are_unpacked(path):
    write_entries(path, entries(), zipfile.ZIP_DEFLATED)
    assert refusal(path, "compressed").code == "W04"
    bomb = entries() | {"archive/data.pkl": bytes(50_000_000)}
    write_entries(path, bomb, zipfile.ZIP_DEFLATED)
    assert refusal(path, "compressed").code == "W04"
    write_entries(path, entries() | {"archive/data.pkl": bytes(20_000_000)})
    assert refusal(path, "more than a table").code == "W04"


def test_code_of_an_archive_may_be_compressed_or_anything(path):
    write_entries(path, entries())
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/code/__torch__.py", b"import os\n" * 1000)
        file.writestr("../../etc/passwd", b"root")
        file.writestr("/absolute", b"")
    assert {*open_weights(path)} == {*TENSORS}


def test_two_entries_of_one_name_are_refused(path):
    write_entries(path, entries())
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as file:
        warnings.simplefilter("ignore")
        file.writestr("archive/data/0", bytes(24))
    assert refusal(path, "two entries are called 'archive/data/0'").code == "W04"


def directory_of(content: bytes) -> tuple[int, int]:
    """Where the directory of a zip file of Python begins, and its end record."""
    end = content.rindex(b"PK\5\6")
    return struct.unpack_from("<L", content, end + 16)[0], end


def spoil(offset: int, kind: str, value: int):
    """Change a field of the first entry in the directory."""

    def change(content: bytearray) -> bytearray:
        start, _ = directory_of(content)
        struct.pack_into(kind, content, start + offset, value)
        return content

    return change


def spoil_end(offset: int, kind: str, value: int):
    """Change a field of the record at the end."""

    def change(content: bytearray) -> bytearray:
        struct.pack_into(kind, content, directory_of(content)[1] + offset, value)
        return content

    return change


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (spoil(0, "<L", 0), "damaged"),
        (spoil(8, "<H", 1), "encrypted"),
        (spoil(10, "<H", 8), "compressed"),
        (spoil(20, "<L", 2**31), "outside the file"),
        (spoil(20, "<L", 1000), "overlap"),
        (spoil(24, "<L", 1), "compressed"),
        (spoil(20, "<L", 2**32 - 1), "a size in its directory is missing"),
        (spoil(28, "<H", 60_000), "damaged"),
        (spoil(34, "<H", 1), "on another disk"),
        (spoil(38, "<L", 0x10), "a folder that has bytes"),
        (spoil(42, "<L", 1), "not where the directory says"),
        (spoil(42, "<L", 2**32 - 2), "cut short"),
        (spoil(46, "<B", 255), "another name"),
        (spoil_end(4, "<H", 1), "several disks"),
        (spoil_end(8, "<H", 1), "several disks"),
        (spoil_end(10, "<H", 60_000), "several disks"),
        (spoil_end(12, "<L", 2**31), "directory is damaged"),
        (spoil_end(12, "<L", 2**32 - 1), "end of its directory is damaged"),
        (spoil_end(16, "<L", 0), "directory is damaged"),
        (lambda content: content[:-1], "directory at its end is missing"),
        (lambda content: content[: len(content) // 2], "cut short"),
        (lambda content: content[:4], "cut short"),
        (lambda content: content + b"more" * 20_000, "directory at its end is missing"),
    ],
)
def test_damaged_zip_files_are_told(path, change, word):
    write_entries(path, entries())
    path.write_bytes(change(bytearray(path.read_bytes())))
    assert refusal(path, word).code == "W04"


def test_an_entry_inside_another_is_refused(path):
    """The bytes of one entry hold a second, which the directory lists as well."""
    content = entries()
    write_entries(path, {"archive/data/0": content["archive/data/0"]})
    inner = path.read_bytes()
    local = inner[: directory_of(inner)[0]]
    write_entries(path, {"x": local} | content)
    whole = bytearray(path.read_bytes())
    start, _ = directory_of(whole)
    place = start
    while whole[place + 46 : place + 60] != b"archive/data/0":
        name, extra, note = struct.unpack_from("<3H", whole, place + 28)
        place += 46 + name + extra + note
    struct.pack_into("<L", whole, place + 42, 31)  # behind the header of "x"
    path.write_bytes(whole)
    assert refusal(path, "overlap").code == "W04"


# ---- the old format of torch.save ----------------------------------------------------


def test_the_old_format_is_read(path):
    path.write_bytes(saved(new=False))
    found = open_weights(path)
    for key, value in TENSORS.items():
        np.testing.assert_array_equal(found[key], value.numpy())


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        (b"M\xe9\x03.", b"M\xe8\x03.", "its version is unknown"),
        (b"little_endianq\x02\x88", b"little_endianq\x02\x89", "not little-endian"),
        (b"\x06\0\0\0\0\0\0\0\0\0\0\0", b"\x05\0\0\0\0\0\0\0\0\0\0\0", "cut short"),
        (b"FloatStorage", b"HalfStorage\n"[:11] + b"x", "FloatStorage"),
    ],
)
def test_damaged_old_files_are_told(path, old, new, word):
    content = saved(new=False)
    assert old in content
    path.write_bytes(content.replace(old, new))
    if word == "FloatStorage":
        assert refusal(path, "HalfStoragex").code == "W05"
    else:
        assert refusal(path, word).code == "W04"


def test_old_files_that_are_cut_are_told(path):
    content = saved(new=False)
    for end in (20, 25, 200, len(content) - 1, len(content) - 100):
        path.write_bytes(content[:end])
        assert refusal(path, "is damaged").code == "W04"


# ---- msgpack of Flax -----------------------------------------------------------------

TREE = {
    "params": {
        "dense": {"kernel": np.arange(6.0).reshape(2, 3), "bias": np.zeros(3)},
        "conv": {"kernel": np.arange(2 * 3 * 4 * 5, dtype=np.float32)},
        "norm": {"scale": np.ones(3, np.float16)},
        "embed": {"embedding": jnp.ones((2, 2), jnp.bfloat16)},
        "scale": np.float32(2),
        "step": 300,
        "negative": -300,
        "name": "run",
        "flags": [],
        "nothing": None,
    }
}


@pytest.fixture
def flax(tmp_path):
    return tmp_path / "flax_model.msgpack"


def write_tree(path: Path, **changes: object) -> None:
    tree = {"params": TREE["params"] | {"flags": True} | changes}
    path.write_bytes(serialization.msgpack_serialize(tree))


def test_a_tree_is_read_in_the_layout_of_torch(flax):
    conv = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    write_tree(flax, conv={"kernel": conv})
    found = open_weights(flax)
    assert {*found} == {
        *("dense.weight", "dense.bias", "conv.weight", "norm.weight"),
        *("embed.weight", "weight"),
    }
    np.testing.assert_array_equal(found["dense.weight"], np.arange(6).reshape(2, 3).T)
    np.testing.assert_array_equal(found["conv.weight"], conv.transpose(3, 2, 0, 1))
    assert found["norm.weight"].dtype == np.float16
    assert found["embed.weight"].dtype == jnp.bfloat16
    assert found["weight"] == 2
    assert found["weight"].shape == ()


def test_diffusers_names_of_lists(flax):
    kernel = {"kernel": np.ones((2, 2))}
    blocks = {"down_blocks_0": {"attentions_12": {"to_out_0": kernel}}}
    write_tree(flax, time_embedding={"linear_1": kernel}, **blocks)
    found = open_weights(flax)
    assert "down_blocks.0.attentions.12.to_out.0.weight" in found
    assert "time_embedding.linear_1.weight" in found


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"a": np.ones(3, np.complex64)}, "'complex64', an unusable type"),
        ({"a": 1j}, "an extension of type 2"),
        ({"a": [1, 2]}, "is a list"),
        ({"dense.bias": np.ones(3)}, "'params.dense.bias' appears twice"),
        ({"a" * 2000: 1}, "a name of 2000 bytes"),
        ({"dense": {"kernel": np.ones((2, 2)), "weight": np.ones(1)}}, "two of its"),
    ],
)
def test_other_trees_are_refused(flax, changes, word):
    write_tree(flax, **changes)
    assert refusal(flax, word).code == "W04"


def test_arrays_in_pieces_are_refused(flax, monkeypatch):
    monkeypatch.setattr(serialization, "MAX_CHUNK_SIZE", 16)
    write_tree(flax)
    assert refusal(flax, "written in pieces").code == "W04"


def test_maps_without_end_are_refused(flax, monkeypatch):
    flax.write_bytes(b"\x81\xa1a" * 100_000 + b"\xc0")
    assert refusal(flax, "nested deeper").code == "W04"
    monkeypatch.setattr("dslo_jax.weights.msgpack_file._MAX_VALUES", 1000)
    flax.write_bytes(b"\xdf\xff\xff\xff\xff" + b"\xa0\xc0" * 1001)
    assert refusal(flax, "too many").code == "W04"


def array(shape, dtype, data) -> bytes:
    packed = msgpack.packb((shape, dtype, data))
    return msgpack.packb({"a": msgpack.ExtType(1, packed)})


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (array((2,), "float32", bytes(7)), "has 7 bytes"),
        (array((2**40, 2**40), "float32", b""), "has 0 bytes"),
        (array((-1,), "float32", b""), "negative where integer"),
        (array((1.0,), "float32", b""), "fixed where integer"),
        (array((1,) * 17, "float32", bytes(4)), "has 17 axes"),
        (array((1,), "float" * 10, bytes(4)), "a name of 50 bytes"),
        (array((1,), "float32", "text"), "str where bin"),
        (array((1,), b"float32", bytes(4)), "bin where str"),
        (array([1], "float32", bytes(4)) + b"\0", "bytes follow"),
        (array([1], "float32", bytes(4))[:-1], "cut short"),
        (msgpack.packb({"a": msgpack.ExtType(1, b"\xc0")}), "fixed where list"),
        (msgpack.packb({"a": msgpack.ExtType(1, b"\x92\x90\x90")}), "not an array as"),
        (b"\x81\xa1a\xc7\x05\x01\x93\x90\xa4bool\xc4\x01\1", "not end where"),
        (b"\x81\xa1a\xc1", "0xc1 is not the beginning"),
        (b"\x82\xa0\x01\x01\x01", "integer where str"),
        (b"\x81\xa1\xff\x01", "damaged"),
        (b"\x81\xa1", "cut short"),
        (b"\x81\xa1a\xc6\xff\xff\xff\xff", "cut short"),
    ],
)
def test_damaged_trees_are_told(flax, content, word):
    flax.write_bytes(content)
    assert refusal(flax, word).code == "W04"


# ---- other files ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["model.safetensors", "pytorch_model.bin", "flax_model.msgpack", "a.pt"]
)
@pytest.mark.parametrize(
    ("content", "code", "word"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid", "W03", "git lfs pull"),
        (b"<!DOCTYPE html>", "W03", "web page"),
        (b"\x89HDF\r\n\x1a\n", "W04", "TensorFlow"),
        (b"\x80\x04N.", "W05", "a pickle that torch.save did not write"),
        (b"\x1f\x8b\x08", "W04", "of none of the formats"),
        (b"", "W04", "truncated"),
        (b"\x80", "W04", "truncated"),
    ],
)
def test_the_content_counts_not_the_name(tmp_path, name, content, code, word):
    (tmp_path / name).write_bytes(content)
    assert refusal(tmp_path / name, word).code == code
    with pytest.raises(CheckpointError, match=code):
        open_weights(tmp_path)


def test_any_format_is_read_under_any_name(tmp_path, path):
    torch.save(TENSORS, tmp_path / "model.safetensors")
    assert {*open_weights(tmp_path)} == {*TENSORS}
    write_tree(path)
    assert "dense.weight" in open_weights(path)
