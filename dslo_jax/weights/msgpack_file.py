"""Flax checkpoints: the tree of arrays that ``flax.serialization`` writes as msgpack.

The file is read once, from tag to tag, and the numbers of the arrays are skipped. Only
the structures that Flax writes are known: nested maps with names as keys, and arrays.
"""

import math
from io import BufferedIOBase
from pathlib import Path
from typing import NamedTuple

from dslo_jax.weights.stored import DTYPES, StoredTensor, Table, damage_in


_MAX_DEPTH = 64
_MAX_NAME = 1024
_MAX_VALUES = 100_000
_MAX_AXES = 16
# The types that Flax adds to msgpack: an array, and a number as NumPy holds it.
_ARRAYS = (1, 3)
_CHUNKED = "__msgpack_chunked_array__"


class _Tag(NamedTuple):
    """The kind of a value, and its length in entries or bytes; or a whole number."""

    kind: str
    size: int


_FIXED = {0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8}  # nil, false, true, two floats
_INTEGERS = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
_SIZED = {
    **{0xC4: ("bin", 1), 0xC5: ("bin", 2), 0xC6: ("bin", 4)},
    **{0xC7: ("ext", 1), 0xC8: ("ext", 2), 0xC9: ("ext", 4)},
    **{0xD9: ("str", 1), 0xDA: ("str", 2), 0xDB: ("str", 4)},
    **{0xDC: ("list", 2), 0xDD: ("list", 4), 0xDE: ("map", 2), 0xDF: ("map", 4)},
}


def is_msgpack(start: bytes) -> bool:
    """Whether a file begins with a map whose first key is a name."""
    first = start[0] if start else 0
    head = {0xDE: 3, 0xDF: 5}.get(first, 1 if 0x80 < first < 0x90 else len(start))
    return start[head : head + 1] >= b"\xa0" and (
        start[head] < 0xC0 or start[head] in (0xD9, 0xDA, 0xDB)
    )


def read_msgpack(path: Path) -> Table:
    """List the arrays of a Flax checkpoint by their paths, with ``.`` between names.

    Raises:
        CheckpointError: The file is damaged, or holds more than maps of arrays
            (``W04``).
    """
    with path.open("rb") as file, damage_in(path):
        return _Walk(path, file, path.stat().st_size).table()


class _Walk:
    """One pass through a file; anything unexpected is a ``ValueError``."""

    def __init__(self, path: Path, file: BufferedIOBase, size: int):
        self._path = path
        self._file = file
        self._size = size

    def table(self) -> Table:
        tables: Table = {}
        values = 0
        open_maps = [["", self._expect("map")]]  # of each map: its name, entries left
        while open_maps:
            prefix, left = open_maps[-1]
            if left == 0:
                open_maps.pop()
                continue
            open_maps[-1][1] = left - 1
            values += 1
            name = prefix + self._text(_MAX_NAME)
            tag = self._tag()
            if name.rpartition(".")[2] == _CHUNKED:
                raise ValueError("it holds an array of over 1 GiB, written in pieces")
            if len(name) > _MAX_NAME or values > _MAX_VALUES:
                raise ValueError("its names are too long, or too many")
            if tag.kind == "map":
                if len(open_maps) >= _MAX_DEPTH:
                    raise ValueError(f"maps are nested deeper than {_MAX_DEPTH}")
                open_maps.append([f"{name}.", tag.size])
            elif tag.kind == "ext":
                if name in tables:
                    raise ValueError(f"{name!r} appears twice")
                tables[name] = self._array(name, tag.size)
            elif tag.kind == "list":
                raise ValueError(f"{name!r} is a list, not an array")
            elif tag.kind != "integer":  # settings of a run, not weights
                self._skip(tag.size)
        if self._file.tell() != self._size:
            raise ValueError("bytes follow behind its end")
        return tables

    def _array(self, name: str, size: int) -> StoredTensor:
        """Read an array: its shape, the name of its type, and where its bytes are."""
        kind = self._read(1)[0]
        end = self._file.tell() + size
        if kind not in _ARRAYS:
            raise ValueError(f"{name!r} is an extension of type {kind}, not an array")
        if self._expect("list") != 3:
            raise ValueError(f"{name!r} is not an array as Flax writes it")
        axes = self._expect("list")
        if axes > _MAX_AXES:
            raise ValueError(f"{name!r} has {axes} axes")
        shape = tuple(self._expect("integer") for _ in range(axes))
        dtype = self._text(16)
        length = self._expect("bin")
        if dtype not in DTYPES:
            raise ValueError(f"{name!r} is {dtype!r}, an unusable type")
        if length != math.prod(shape) * DTYPES[dtype].itemsize:
            raise ValueError(f"{name!r} of shape {shape} has {length} bytes of {dtype}")
        offset = self._file.tell()
        self._skip(length)
        if offset + length != end:
            raise ValueError(f"{name!r} does not end where it should")
        return StoredTensor.contiguous(self._path, offset, DTYPES[dtype], shape)

    def _expect(self, kind: str) -> int:
        found = self._tag()
        if found.kind != kind:
            raise ValueError(f"{found.kind} where {kind} was expected")
        return found.size

    def _text(self, longest: int) -> str:
        length = self._expect("str")
        if length > longest:
            raise ValueError(f"a name of {length} bytes")
        return self._read(length).decode("utf-8")

    def _tag(self) -> _Tag:
        byte = self._read(1)[0]
        if byte < 0x80:
            return _Tag("integer", byte)
        if byte >= 0xE0:  # a small negative number, which is no length
            return _Tag("negative", 0)
        if byte < 0xC0:
            kind = "map" if byte < 0x90 else "list" if byte < 0xA0 else "str"
            return _Tag(kind, byte & (0x1F if kind == "str" else 0x0F))
        if byte in _FIXED:
            return _Tag("fixed", _FIXED[byte])
        if byte in _INTEGERS:
            data = self._read(_INTEGERS[byte])
            number = int.from_bytes(data, "big", signed=byte >= 0xD0)
            return _Tag("integer", number) if number >= 0 else _Tag("negative", 0)
        if byte in _SIZED:
            kind, width = _SIZED[byte]
            return _Tag(kind, int.from_bytes(self._read(width), "big"))
        if 0xD4 <= byte <= 0xD8:
            return _Tag("ext", 1 << (byte - 0xD4))
        raise ValueError(f"the byte {byte:#x} is not the beginning of a value")

    def _read(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) != count:
            raise ValueError("it is cut short")
        return data

    def _skip(self, count: int) -> None:
        position = self._file.tell() + count
        if position > self._size:
            raise ValueError("it is cut short")
        self._file.seek(position)
