"""Safetensors files: what their headers say, and their tensors one at a time."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax  # noqa: F401  NumPy knows bfloat16 from jax, which has to come before a read
import numpy as np
from safetensors import SafetensorError, safe_open

from dslo_jax.errors import CheckpointError


_MAX_HEADER_BYTES = 100_000_000  # what the safetensors library allows
_TYPES = tuple("F64 F32 F16 BF16 I64 I32 I16 I8 U64 U32 U16 U8 BOOL".split())  # noqa: SIM905


class Weights(Mapping[str, np.ndarray]):
    """The tensors of one checkpoint folder, read one at a time.

    Every tensor is a fresh copy and no file stays open between two reads.

    Args:
        files: Where each tensor lives, key to file.
    """

    def __init__(self, files: Mapping[str, Path]):
        self._files = dict(files)

    def __getitem__(self, key: str) -> np.ndarray:
        with safe_open(self._files[key], framework="numpy") as tensors:
            return tensors.get_tensor(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def tensor_keys(path: Path) -> tuple[str, ...]:
    """Check the header of a safetensors file and list its tensors.

    The library checks offsets, overlaps and sizes. It accepts duplicate keys, and
    types that NumPy cannot hold; both are refused here.
    """
    with path.open("rb") as file:
        start = file.read(256)
        length = int.from_bytes(start[:8], "little")
        available = path.stat().st_size - 8
        if length > min(available, _MAX_HEADER_BYTES):
            raise _not_safetensors(path, start, length, available)
        file.seek(8)
        text = file.read(length)
    try:
        header = json.loads(text, object_pairs_hook=_refuse_duplicates)
        with safe_open(path, framework="numpy") as tensors:
            keys = tuple(tensors.keys())
        for key in keys:
            if header[key]["dtype"] not in _TYPES:
                raise ValueError(f"{key} is {header[key]['dtype']}, an unusable type")
    except (ValueError, RecursionError, SafetensorError) as error:
        raise CheckpointError("W04", f"{path} is damaged: {error}") from error
    return keys


def _not_safetensors(
    path: Path, start: bytes, length: int, available: int
) -> CheckpointError:
    """What a file is whose first eight bytes are no plausible header length."""
    if start.startswith(b"version https://git-lfs"):
        return CheckpointError(
            "W03", f"{path} is a git-lfs pointer, not weights; run: git lfs pull"
        )
    if start.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"<", b"{"):
        return CheckpointError(
            "W03", f"{path} is a web page or a message, not weights; download it again"
        )
    return CheckpointError(
        "W04",
        f"{path} is truncated or is not safetensors: its header claims {length} bytes, "
        f"{max(available, 0)} follow; download it again",
    )


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key, value in pairs:
        if key in content:
            raise ValueError(f"the key {key!r} appears twice in the header")
        content[key] = value
    return content
