"""The directory of a zip file, read strictly and without unpacking anything.

Only zip files as PyTorch and NumPy write them are read: one disk, no encryption, names
in UTF-8. No entry is ever written to the disk; its name is only used to find it.
"""

import struct
from io import BufferedIOBase
from typing import NamedTuple


_MAX_DIRECTORY_BYTES = 1 << 22
_MAX_COMMENT_BYTES = 0xFFFF
_END = struct.Struct("<4s4H2LH")
_END64_PLACE = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s4x2H8x2L4H2x2L")
_LOCAL = struct.Struct("<4s22x2H")
_IS_FOLDER = 0x10
_FULL32, _FULL16 = 0xFFFFFFFF, 0xFFFF


class ZipEntry(NamedTuple):
    """One entry of a zip file.

    Attributes:
        offset: Position of its first byte in the file.
        size: Number of its bytes in the file.
        stored: Whether the bytes are stored without compression.
        deflated: Whether the bytes are compressed by DEFLATE.
        unpacked: Number of its bytes when unpacked, as the directory says.
    """

    offset: int
    size: int
    stored: bool
    deflated: bool
    unpacked: int


class _Listed(NamedTuple):
    """An entry of the directory; ``local`` is the position of the entry's header."""

    name: bytes
    local: int
    size: int
    stored: bool
    deflated: bool
    unpacked: int


def read_directory(file: BufferedIOBase, size: int) -> dict[str, ZipEntry]:
    """List the entries of a zip file.

    Args:
        file: The file, open for reading.
        size: Its length in bytes.

    Returns:
        The entries by name.

    Raises:
        ValueError: The file is cut short or damaged, entries overlap, or a name appears
            twice.
    """
    start, length, count = _find_directory(file, size)
    listed = _entries(_read(file, start, length), count)
    entries: dict[str, ZipEntry] = {}
    free = 0  # end of the last entry so far
    for entry in sorted(listed, key=lambda entry: entry.local):
        mark, named, extra = _LOCAL.unpack(_read(file, entry.local, _LOCAL.size))
        offset = entry.local + _LOCAL.size + named + extra
        if mark != b"PK\x03\x04" or named != len(entry.name):
            raise ValueError("an entry is not where the directory says")
        if entry.local < free or offset + entry.size > start:
            raise ValueError("entries overlap, or lie outside the file")
        if _read(file, entry.local + _LOCAL.size, named) != entry.name:
            raise ValueError("an entry has another name than in the directory")
        free = offset + entry.size
        name = entry.name.decode("utf-8")
        if name in entries:
            raise ValueError(f"two entries are called {name!r}")
        entries[name] = ZipEntry(
            offset, entry.size, entry.stored, entry.deflated, entry.unpacked
        )
    return entries


def _find_directory(file: BufferedIOBase, size: int) -> tuple[int, int, int]:
    """Find the directory: its position, length in bytes, and number of entries."""
    tail_start = max(0, size - _END.size - _MAX_COMMENT_BYTES)
    tail = _read(file, tail_start, size - tail_start)
    place = tail.rfind(b"PK\x05\x06")
    if place < 0 or len(tail) - place < _END.size:
        raise ValueError("it is cut short: the directory at its end is missing")
    end = tail_start + place
    _, disk, first, here, count, length, start, _ = _END.unpack_from(tail, place)
    if _FULL32 in (length, start) or _FULL16 in (here, count):
        where = _END64_PLACE.unpack(
            _read(file, end - _END64_PLACE.size, _END64_PLACE.size)
        )
        if where[0] != b"PK\x06\x07" or where[1] != 0 or where[3] != 1:
            raise ValueError("the end of its directory is damaged")
        end = where[2]
        record = _END64.unpack(_read(file, end, _END64.size))
        mark, _, _, _, disk, first, here, count, length, start = record
        if mark != b"PK\x06\x06":
            raise ValueError("the end of its directory is damaged")
    if disk or first or here != count:
        raise ValueError("it is a part of an archive on several disks")
    if start + length > end or length > _MAX_DIRECTORY_BYTES:
        raise ValueError("its directory is damaged or too large")
    return start, length, count


def _entries(directory: bytes, count: int) -> list[_Listed]:
    entries = []
    place = 0
    for _ in range(count):
        if len(directory) - place < _ENTRY.size:
            raise ValueError("its directory is cut short")
        mark, flags, method, packed, size, named, extra, noted, disk, kind, local = (
            _ENTRY.unpack_from(directory, place)
        )
        place += _ENTRY.size
        name = directory[place : place + named]
        place += named
        more = directory[place : place + extra]
        place += extra + noted
        if mark != b"PK\x01\x02" or flags & 1 or place > len(directory):
            raise ValueError("its directory is damaged, or entries are encrypted")
        size, packed, local, disk = _large(more, size, packed, local, disk)
        if disk or (kind & _IS_FOLDER and packed):
            raise ValueError("an entry is on another disk, or a folder that has bytes")
        stored, deflated = method == 0 and packed == size, method == 8
        entries.append(_Listed(name, local, packed, stored, deflated, size))
    if place != len(directory):
        raise ValueError("its directory has another length than it says")
    return entries


def _large(
    extra: bytes, size: int, packed: int, local: int, disk: int
) -> tuple[int, int, int, int]:
    """Read numbers of more than 32 bits from the extra field, in this order."""
    numbers = [size, packed, local, disk]
    wanted = [
        number == (_FULL16 if i == 3 else _FULL32) for i, number in enumerate(numbers)
    ]
    place = 0
    while place + 4 <= len(extra) and any(wanted):
        kind, length = struct.unpack_from("<2H", extra, place)
        field = extra[place + 4 : place + 4 + length]
        place += 4 + length
        if kind != 1:
            continue
        for i in range(4):
            width = 4 if i == 3 else 8
            if wanted[i] and len(field) >= width:
                numbers[i] = int.from_bytes(field[:width], "little")
                field = field[width:]
                wanted[i] = False
    if any(wanted):
        raise ValueError("a size in its directory is missing")
    size, packed, local, disk = numbers
    return size, packed, local, disk


def _read(file: BufferedIOBase, offset: int, count: int) -> bytes:
    if not 0 <= offset < 1 << 62:  # no file is that large
        raise ValueError("it is cut short")
    file.seek(offset)
    data = file.read(count)
    if len(data) != count:
        raise ValueError("it is cut short")
    return data
