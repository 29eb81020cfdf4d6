"""Bytes that a file holds compressed by DEFLATE, as in zip files."""

import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8


_CHUNK = 1 << 20


class Packed(NamedTuple):
    """A compressed run of a file.

    Attributes:
        start: Where it begins in the file.
        size: How many bytes it takes there.
    """

    start: int
    size: int


def unpack(
    path: Path, packed: Packed, skip: int, count: int
) -> UInt8[np.ndarray, " bytes"]:
    """Bytes of a compressed run; what comes before them is unpacked and let go.

    Args:
        path: The file.
        packed: Where the run lies.
        skip: How many unpacked bytes come before.
        count: How many are wanted.

    Returns:
        The bytes; fewer where the run ends before.

    Raises:
        ValueError: The run is damaged.

    Memory:
        The result and two MiB, whatever the run would unpack to.
    """
    found = np.empty(count, np.uint8)
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    place, left = -skip, packed.size
    with path.open("rb") as file:
        file.seek(packed.start)
        while place < count and left and not stream.eof:
            waiting = file.read(min(left, _CHUNK))
            if not waiting:
                break
            left -= len(waiting)
            while waiting and place < count:
                piece = _inflate(stream, waiting)
                waiting = stream.unconsumed_tail
                part = piece[max(-place, 0) : count - place]
                start = max(place, 0)
                found[start : start + len(part)] = np.frombuffer(part, np.uint8)
                place += len(piece)
    return found[: max(min(place, count), 0)]


def _inflate(stream: "zlib._Decompress", data: bytes) -> bytes:
    try:
        return stream.decompress(data, _CHUNK)
    except zlib.error as error:
        raise ValueError(f"compressed bytes are damaged: {error}") from error
