"""Pickles of PyTorch, written instruction by instruction."""

import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from dslo_jax.errors import CheckpointError
from dslo_jax.weights import open_weights


NUMBERS = np.arange(6, dtype=np.float32)


KEPT = {"data/0": NUMBERS.tobytes(), "version": b"3\n"}


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    data = value.to_bytes(16, "little", signed=True)
    return b"\x8a\x10" + data


def numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(kind: str = "FloatStorage", key: str = "0", count: int = 6) -> bytes:
    said = text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu")
    return b"(" + said + number(count) + b"tQ"


def tensor(
    shape: tuple[int, ...] = (2, 3),
    strides: tuple[int, ...] = (3, 1),
    offset: int = 0,
    of: bytes | None = None,
) -> bytes:
    sizes = number(offset) + numbers(shape) + numbers(strides)
    more = b"\x89ccollections\nOrderedDict\n)R"
    start = b"ctorch._utils\n_rebuild_tensor_v2\n("
    return start + (of or storage()) + sizes + more + b"tR"


def state_dict(value: bytes, key: bytes = text("a")) -> bytes:
    return b"\x80\x02}(" + key + value + b"u."


def write_zip(path: Path, pickled: bytes, **entries: bytes) -> Path:
    """A file of torch.save with this pickle, and one storage of six numbers."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/data.pkl", pickled)
        for name, data in (KEPT | entries).items():
            file.writestr(f"a/{name}", data)
    return path


def module(fields: bytes) -> bytes:
    return b"c__torch__.a\nB\n)\x81}(" + fields + b"ub"


def refusal(path: Path, *words: str) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        open_weights(path)
    assert all(word in str(caught.value) for word in (*words, path.name)), caught.value
    return caught.value
