"""NumPy's ``.npz``: a zip file with an array in each entry, stored or compressed.

An array begins with a header, a Python dictionary as text. The header is compared with
the one form that NumPy writes, and never evaluated. Arrays of objects are pickles, and
refused.
"""

import math
import re
import struct
from io import BufferedIOBase
from pathlib import Path

import numpy as np

from dslo_jax.errors import CheckpointError
from dslo_jax.weights.packed import Packed, unpack
from dslo_jax.weights.stored import DTYPES, StoredTensor, Table, damage_in
from dslo_jax.weights.zip_directory import ZipEntry, read_directory


_LOCAL = struct.Struct("<4s22xH2x")
_MAGIC = b"\x93NUMPY"
_LENGTHS = {b"\1\0": "<H", b"\2\0": "<I", b"\3\0": "<I"}  # of the header, by version
_LONGEST_HEADER = 1 << 12
_MAX_AXES = 16
_MAX_TENSORS = 100_000
_MAX_GROWTH = 4  # trained numbers hardly compress: what unpacks to more is a bomb
_HEADER = re.compile(
    r"\{'descr': '([<|>])(O|[a-zA-Z]\d{1,4})', 'fortran_order': (True|False), "
    r"'shape': \(((?:\d{1,18},)?|\d{1,18}(?:, \d{1,18})+)\), \} *\n"
)
_TYPES = {dtype.str[1:]: dtype for name, dtype in DTYPES.items() if name != "bfloat16"}


def is_npz(start: bytes, size: int) -> bool:
    """Whether a file is a zip file whose first entry is called like an array.

    Args:
        start: How the file begins.
        size: Length of the file in bytes.
    """
    if size < _LOCAL.size or not start.startswith(b"PK\x03\x04"):
        return False
    _, length = _LOCAL.unpack_from(start)
    return start[_LOCAL.size : _LOCAL.size + length].endswith(b".npy")


def read_npz(path: Path) -> Table:
    """List the arrays of an ``.npz``, by the names that ``np.savez`` was given.

    Raises:
        CheckpointError: The file is damaged, holds something else than arrays of
            numbers, or unpacks to many times its size (``W04``); or an array is a
            pickle of objects (``W05``).
    """
    size = path.stat().st_size
    with path.open("rb") as file, damage_in(path):
        entries = read_directory(file, size)
        if len(entries) > _MAX_TENSORS:
            raise ValueError(f"it has {len(entries)} arrays, too many for weights")
        if sum(each.unpacked for each in entries.values()) > _MAX_GROWTH * size:
            raise ValueError(f"it unpacks to over {_MAX_GROWTH} times its size")
        return {
            _name(key): _tensor(file, path, key, entry)
            for key, entry in entries.items()
        }


def _name(key: str) -> str:
    if not key.endswith(".npy"):
        raise ValueError(f"its entry {key[:40]!r} is no array")
    return key.removesuffix(".npy")


def _tensor(
    file: BufferedIOBase, path: Path, key: str, entry: ZipEntry
) -> StoredTensor:
    """Find the numbers of an entry; only its header is read."""
    if not entry.stored and not entry.deflated:
        raise ValueError(f"{key[:40]!r} is packed in a way that NumPy does not use")
    packed = Packed(entry.offset, entry.size) if entry.deflated else None
    if packed is None:
        file.seek(entry.offset)
        start = file.read(min(entry.size, _LONGEST_HEADER))
    else:
        start = unpack(path, packed, 0, _LONGEST_HEADER).tobytes()
    length, dtype, shape, is_fortran = _header(start, path, key)
    if entry.unpacked != length + dtype.itemsize * math.prod(shape):
        raise ValueError(f"{key[:40]!r} has another size than its shape {shape}")
    order = shape[::-1] if is_fortran else shape
    offset = length if packed else entry.offset + length
    tensor = StoredTensor.contiguous(path, offset, dtype, order)
    tensor = tensor._replace(packed=packed)
    return tensor.transposed(*reversed(range(len(shape)))) if is_fortran else tensor


def _header(
    start: bytes, path: Path, key: str
) -> tuple[int, np.dtype, tuple[int, ...], bool]:
    """Length of the header, type, shape, and whether the first axis runs fastest."""
    name = repr(key[:40])
    form = _LENGTHS.get(start[6:8])
    if not start.startswith(_MAGIC) or form is None:
        raise ValueError(f"{name} is no array of NumPy")
    begin = 8 + struct.calcsize(form)
    if len(start) < begin:
        raise ValueError(f"{name} is cut short")
    end = begin + struct.unpack_from(form, start, 8)[0]
    text = start[begin:end].decode("latin-1")
    found = _HEADER.fullmatch(text)
    if end > len(start) or found is None:
        raise ValueError(f"{name} has a header that is none of an array of numbers")
    order, kind, fortran, sizes = found.groups()
    if kind == "O":
        raise CheckpointError(
            "W05", f"{path} holds {name}, a pickle of objects; it was not opened"
        )
    if order == ">" or kind not in _TYPES:
        raise ValueError(f"{name} is {order}{kind}, an unusable type")
    shape = tuple(int(n) for n in sizes.split(",") if n.strip())
    if len(shape) > _MAX_AXES:
        raise ValueError(f"{name} has {len(shape)} axes")
    return end, _TYPES[kind], shape, fortran == "True"
