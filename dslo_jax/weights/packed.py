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
        start: Position of its first byte in the file.
        size: Number of its bytes in the file.
    """

    start: int
    size: int


def unpack(
    path: Path, packed: Packed, skip: int, count: int
) -> UInt8[np.ndarray, " bytes"]:
    """Unpack a part of a compressed run.

    Args:
        path: The file.
        packed: The run.
        skip: Number of unpacked bytes before the part; they are thrown away.
        count: Number of unpacked bytes of the part.

    Returns:
        The bytes; fewer if the run ends before.

    Raises:
        ValueError: The run is damaged.

    Memory:
        The result and two MiB, whatever the size of the unpacked run.
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
