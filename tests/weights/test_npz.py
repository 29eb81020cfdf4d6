"""``.npz`` files against NumPy, which writes them; and what must not be read."""

import io
import struct
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoints.clip import save_clip
from checkpoints.vit import save_vit
from flax import nnx

from dslo_jax.errors import CheckpointError
from dslo_jax.hub import check_folder
from dslo_jax.models.clip import load_clip
from dslo_jax.models.vit import load_vit
from dslo_jax.weights import open_weights
from dslo_jax.weights.formats import read_table


RNG = np.random.default_rng(0)
ARRAYS = {
    "model.a.weight": RNG.normal(size=(5, 7)).astype(np.float32),
    "fortran": np.asfortranarray(RNG.normal(size=(3, 4, 5))),
    "half": RNG.normal(size=17).astype(np.float16),
    "scalar": np.float32(2.5),
    "empty": np.zeros((0, 3), np.float32),
    "whole": RNG.integers(-9, 9, (2, 3)),
    "bytes": RNG.integers(0, 255, 11, np.uint8),
    "flags": RNG.random(6) > 0.5,
}
WRITERS = (np.savez, np.savez_compressed)


def npy(header: bytes, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    length = struct.pack("<H" if version == b"\x01\x00" else "<I", len(header))
    return b"\x93NUMPY" + version + length + header + data


def header(descr="<f4", order="False", shape="(2,)") -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n"
    return text.encode()


def write(path, entries, *, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in entries.items():
            file.writestr(name, content)


def refusal(path) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        [tensor.read() for tensor in read_table(path).values()]
    return caught.value


@pytest.mark.parametrize("save", WRITERS)
def test_what_numpy_writes_is_what_is_read(tmp_path, save):
    path = tmp_path / "weights"  # the content tells, not the name
    with path.open("wb") as file:
        save(file, **ARRAYS)
    found = open_weights(path)
    with np.load(path, allow_pickle=False) as expected:
        assert set(found) == set(expected)
        for key, value in expected.items():
            assert found[key].dtype == value.dtype
            np.testing.assert_array_equal(found[key], value, strict=True)


@pytest.mark.parametrize("save", WRITERS)
def test_networks_load_from_folder_and_file(tmp_path, save):
    for kind, write_network, load in (
        ("clip", save_clip, load_clip),
        ("vit", lambda f, seed: save_vit(f, "dinov2", seed=seed), load_vit),
    ):
        folder = tmp_path / kind
        write_network(folder, seed=4)
        original = folder / "model.safetensors"
        tensors = dict(open_weights(original))
        expected = load(folder)
        original.unlink()
        save(folder / "exported.npz", **tensors)
        check_folder(folder, kind)
        for place in (folder, folder / "exported.npz"):
            same_parameters(load(place), expected)


def same_parameters(found, expected):
    jax.tree.map(np.testing.assert_array_equal, *map(nnx.state, (found, expected)))


@pytest.mark.parametrize("version", [b"\x01\x00", b"\x02\x00", b"\x03\x00"])
def test_every_version_of_the_header(tmp_path, version):
    data = np.array([1, 2], np.float32)
    write(tmp_path / "a.npz", {"a.npy": npy(header(), data.tobytes(), version)})
    np.testing.assert_array_equal(open_weights(tmp_path / "a.npz")["a"], data)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY\x01\x00",
        npy(header(), b"1234567"),  # a byte too few
        npy(header(), b"123456789"),  # and too many
        npy(header(shape="(-2,)"), b"12345678"),
        npy(header(shape="(2, __import__('os').getpid())"), b"12345678"),
        npy(header(shape="(2)"), b"12345678"),
        npy(header(shape="(" + "1, " * 20 + "2)"), b"12345678"),
        npy(header(shape="(999999999999999999, 999999999999999999)")),
        npy(header(descr=">f4"), b"12345678"),
        npy(header(descr="|V2"), b"1234"),
        npy(header(descr="<U1"), b"12345678"),
        npy(header(descr="<c8"), b"1" * 16),
        npy(header(order="1"), b"12345678"),
        npy(header() + header(), b"12345678"),
        npy(header(), b"12345678", b"\x04\x00"),
        npy(b" " * 60000 + header(), b"12345678"),
    ],
)
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_what_numpy_does_not_write_is_refused(tmp_path, content, method):
    write(tmp_path / "a.npz", {"a.npy": content}, method=method)
    assert refusal(tmp_path / "a.npz").code == "W04"


def test_objects_are_a_pickle_and_not_opened(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.array([{}, print], object))
    error = refusal(tmp_path / "a.npz")
    assert error.code == "W05"
    assert "not opened" in str(error)


def test_bfloat16_is_named(tmp_path):
    """NumPy writes it as two bytes of nothing in particular."""
    np.savez(tmp_path / "a.npz", a=np.ones(3, jnp.bfloat16))
    assert "V2, an unusable type" in str(refusal(tmp_path / "a.npz"))


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(10**6, np.float32))
    error = refusal(tmp_path / "a.npz")
    assert error.code == "W04"
    assert "unpacks to over 4 times its size" in str(error)


def test_a_directory_that_lies_about_a_compressed_size(tmp_path):
    content = npy(header(shape="(2000,)"), RNG.bytes(8000))
    write(tmp_path / "a.npz", {"a.npy": content}, method=zipfile.ZIP_DEFLATED)
    raw = (tmp_path / "a.npz").read_bytes()
    cut = raw.replace(
        struct.pack("<L", len(content)), struct.pack("<L", len(content) + 4)
    )
    longer = cut.replace(b"(2000,)", b"(2001,)")
    for changed in (cut, longer):
        (tmp_path / "a.npz").write_bytes(changed)
        assert refusal(tmp_path / "a.npz").code == "W04"


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_ways_of_packing_are_refused(tmp_path, method):
    array = io.BytesIO()
    np.save(array, np.ones(3))
    write(tmp_path / "a.npz", {"a.npy": array.getvalue()}, method=method)
    assert "a way that NumPy does not use" in str(refusal(tmp_path / "a.npz"))


def test_an_entry_that_is_no_array(tmp_path):
    write(tmp_path / "a.npz", {"a.npy": npy(header(), b"12345678"), "b.txt": b"hi"})
    assert "'b.txt' is no array" in str(refusal(tmp_path / "a.npz"))


def test_a_network_of_foreign_names_is_told(tmp_path):
    save_vit(tmp_path, "dinov2", seed=1)
    (tmp_path / "model.safetensors").unlink()
    np.savez(tmp_path / "a.npz", **{"params/Transformer/encoder_norm/bias": np.ones(3)})
    with pytest.raises(CheckpointError, match=r"W04.*\n.*params/Transformer"):
        load_vit(tmp_path)
