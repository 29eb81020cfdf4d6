"""Small checkpoints of every kind; what torch can read as well must be equal."""

import io
import json
import struct
import warnings
import zipfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import torch
from flax import serialization
from safetensors.numpy import save

from dslo_jax.weights import open_weights
from fuzz.target import Base, Found, Target


TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3).T, "b": torch.arange(4).half()}
# Orders and arguments of pickles, then heads of msgpack and zip files.
TOKENS = (
    *(b"cos\nsystem\n", b"cbuiltins\neval\n", b"X\2\0\0\0id\x85R", b"(X\1\0\0\0ao"),
    *(b"r\xff\xff\xff\xff", b"X\xff\xff\xff\x7f", b"\x8a\xff", b"\x95" + b"\xff" * 8),
    *(b"}" * 400, b"]\x94" * 200, b"\x85" * 300, b"(" * 300, b"h\0h\0h\0\x87q\0" * 40),
    *(bytes([order]) for order in b"(.0R\x81bQcQhqr}]Xutse)\x85\x86\x87\x93\x94"),
    *(b"\xdf\xff\xff\xff\xff", b"\x81\xa1a" * 80, b"\xc9\xff\xff\xff\xff\x01"),
    *(b"PK\5\6", b"PK\1\2", b"PK\3\4", b"../../x", b'"dtype":"F8_E5M2"', b'"shape":[]'),
    *(b"[0,0]", b"[-1]", b"9223372036854775808", b"\x93NUMPY\1\0", b"'descr': '|O'"),
)  # fmt: skip


class Tiny(torch.nn.Module):
    """A network of one layer, for a TorchScript archive."""

    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(2, 3)
        self.sizes = [1, 2]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The layer."""
        return self.inner(x)


def torch_file(content: object, *, new: bool = True) -> bytes:
    """What ``torch.save`` writes."""
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=new)
    return file.getvalue()


def npz_file(write: Callable[..., None]) -> bytes:
    """What ``np.savez`` or ``np.savez_compressed`` writes."""
    file = io.BytesIO()
    write(file, **{key: value.numpy() for key, value in TENSORS.items()})
    return file.getvalue()


def script_file() -> bytes:
    """A TorchScript archive."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Tiny()), file)
    return file.getvalue()


def training() -> dict:
    """What a training writes beside the weights."""
    network = Tiny()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    return {
        "epoch": 3,
        "args": Namespace(lr=0.1, names=["a", None]),
        "best": np.float64(1),
        "state_dict": {f"module.{k}": v for k, v in network.state_dict().items()},
        "optimizer": optimizer.state_dict(),
    }


def tree() -> bytes:
    """A file of Flax."""
    dense = {"kernel": np.ones((2, 3), np.float32), "bias": jnp.ones(3, jnp.bfloat16)}
    return serialization.msgpack_serialize({"params": {"dense": dense}, "step": 3})


def inside(content: bytes) -> Base:
    """The pickle of a zip file, which gets into a sound zip file when it is damaged."""
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        entries = {name: file.read(name) for name in file.namelist()}
    (name,) = (name for name in entries if name.endswith("/data.pkl"))

    def put(pickled: bytes) -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as written:
            for key, data in (entries | {name: pickled}).items():
                written.writestr(key, data)
        return file.getvalue()

    return Base(entries[name], put)


def header_of(content: bytes) -> Base:
    """The header of a safetensors file, whose length fits when it is damaged."""
    (length,) = struct.unpack_from("<Q", content)
    header, data = content[8 : 8 + length], content[8 + length :]
    assert json.loads(header)
    return Base(header, lambda h: struct.pack("<Q", len(h)) + h + data, is_json=True)


def bases() -> dict[str, Base]:
    """A file of every kind."""
    tensors = save({key: value.numpy() for key, value in TENSORS.items()})
    zipped, script = torch_file(TENSORS), script_file()
    files = {
        "zip": zipped,
        "legacy": torch_file(TENSORS, new=False),
        "legacy training": torch_file(training(), new=False),
        "archive": script,
        "flax": tree(),
        "safetensors": tensors,
        "npz": npz_file(np.savez),
        "packed npz": npz_file(np.savez_compressed),
    }
    inner = {
        "pickle": inside(zipped),
        "training": inside(torch_file(training())),
        "modules": inside(script),
        "safetensors header": header_of(tensors),
    }
    return {kind: Base(content) for kind, content in files.items()} | inner


def read(content: bytes, folder: Path) -> str | None:
    """Read a checkpoint, and compare it with what torch reads."""
    path = folder / "weights"
    path.write_bytes(content)
    weights = open_weights(path)
    found = {key: weights[key] for key in weights}
    assert sum(value.nbytes for value in found.values()) <= 4 * len(content)
    same = found and content[:8] != b"\x93NUMPY" and equal_in_torch(path, found)
    return "read, as torch" if same else None


def equal_in_torch(path: Path, found: dict[str, np.ndarray]) -> bool:
    """Compare with what torch reads; False for what torch refuses.

    Raises:
        AssertionError: They differ.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, weights_only=True)
    except Exception:
        return False
    for wrapper in ("state_dict", "model_state_dict", "model"):
        if isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    for key, value in found.items():
        wanted = content.get(key, content.get(f"module.{key}"))
        assert wanted is not None, key
        assert str(wanted.dtype) == f"torch.{value.dtype.name}", key
        assert wanted.shape == value.shape, key
        plain = wanted.detach().clone(memory_format=torch.contiguous_format)
        assert plain.flatten().view(torch.uint8).numpy().tobytes() == value.tobytes()
    return True


# The library of safetensors reads a list of the values of an entry, too.
LISTED = json.dumps({"a": ["F32", [1], [0, 4]]}).encode()
LISTED = struct.pack("<Q", len(LISTED)) + LISTED + bytes(4)
FOUND = (Found("a list in the place of an object in a header", LISTED, "W04"),)
TARGET = Target(bases(), read, TOKENS, found=FOUND)
