"""Safetensors files: the positions of their tensors, from their headers."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from dslo_jax.errors import CheckpointError
from dslo_jax.weights.stored import DTYPES, StoredTensor, Table, damage_in


_LONGEST_HEADER = 100_000_000  # limit of the safetensors library
_MAX_HEADER_BYTES = 1 << 23  # its content takes twenty times as much memory in Python
_TYPES = {
    **{"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"},
    **{"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8"},
    **{"U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8"},
    "BOOL": "bool",
}


def is_safetensors(start: bytes, size: int) -> bool:
    """Whether the first eight bytes can be the length of a header.

    Args:
        start: The first bytes of the file.
        size: Length of the file in bytes.
    """
    return size >= 8 and _header_bytes(start) <= min(size - 8, _LONGEST_HEADER)


def read_safetensors(path: Path) -> Table:
    """Check the header of a safetensors file and list its tensors.

    The library checks offsets, overlaps and sizes. It accepts duplicate keys, and types
    that NumPy does not have; both are refused here.

    Raises:
        CheckpointError: The header is damaged (``W04``).
    """
    with path.open("rb") as file:
        length = _header_bytes(file.read(8))
        if length > _MAX_HEADER_BYTES:
            raise CheckpointError(
                "W04", f"{path} has a header of {length} bytes, too many for a table"
            )
        text = file.read(length)
    table = {}
    with damage_in(path, SafetensorError):
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_refuse_duplicates)
        with safe_open(path, framework="numpy") as tensors:
            keys = tuple(tensors.keys())
        for key in keys:
            entry = header[key]
            if not isinstance(entry, dict):  # the library reads lists of values as well
                raise ValueError(f"{key} is described by no object")
            if entry["dtype"] not in _TYPES:
                raise ValueError(f"{key} is {entry['dtype']}, an unusable type")
            table[key] = StoredTensor.contiguous(
                path,
                8 + length + entry["data_offsets"][0],
                DTYPES[_TYPES[entry["dtype"]]],
                tuple(entry["shape"]),
            )
    return table


def _header_bytes(start: bytes) -> int:
    return int.from_bytes(start[:8], "little")


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key, value in pairs:
        if key in content:
            raise ValueError(f"the key {key!r} appears twice in the header")
        content[key] = value
    return content
