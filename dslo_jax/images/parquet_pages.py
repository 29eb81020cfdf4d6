"""Sizes that pages of a Parquet file claim, checked before pyarrow believes them.

pyarrow makes room for a page before it reads the page, as much as its header claims: a
file of 2 kB could take 2 GiB. Headers are structs in Thrift's compact protocol, whose
fields have the numbers of ``parquet.thrift`` (apache/parquet-format). The places of the
pages are read here as well, because pyarrow ends the whole process over some damaged
descriptions of a column.
"""

import io
import operator
from typing import Any


_END = 8  # bytes: the length of the description, and PAR1
_MOST_HEADER = 64 * 1024  # bytes; it holds statistics, which may be long
# Photos are compressed already, so that pages of them become hardly smaller.
_MOST_RATIO = 16
_ALWAYS = 256 * 1024 * 1024  # bytes that a page may take whatever its ratio
_MOST_DEPTH = 12
# Fields of a file, a group of rows, a column of it, what describes that, and a page.
_GROUPS, _COLUMNS, _DESCRIPTION = 4, 1, 3
_PATH, _SIZE, _DATA, _DICTIONARY = 3, 7, 9, 11
_PAGE = 3, 2  # bytes with compression, and without
# Kinds of values in the compact protocol.
_BOOLEANS, _BYTE, _INTEGERS, _DOUBLE, _BINARY = (1, 2), 3, (4, 5, 6), 7, 8
_LISTS, _STRUCT = (9, 10), 12


def check_column(file: io.BufferedIOBase, column: str) -> None:
    """Walk over all pages of a column.

    Args:
        file: The Parquet file.
        column: Name of the column; a struct has several, which all count.

    Raises:
        ValueError: The description of the file is damaged, or as for ``check_pages``.
    """
    end = file.seek(-_END, io.SEEK_END)
    length = int.from_bytes(file.read(4), "little")
    file.seek(max(0, end - length))
    for start, size in _places(file.read(length), column):
        if start < 0 or start + size > end:
            raise ValueError(f"a column claims {size} bytes, more than there are")
        check_pages(file, start, size)


def _places(description: bytes, column: str) -> list[tuple[int, int]]:
    """Where the pages of a column begin in each group of rows, and their bytes."""
    places = []
    try:
        for group in _Compact(description).struct()[_GROUPS]:
            for each in (chunk[_DESCRIPTION] for chunk in group[_COLUMNS]):
                if each[_PATH][0].decode() == column:
                    start = min(each.get(_DICTIONARY) or each[_DATA], each[_DATA])
                    places.append((operator.index(start), operator.index(each[_SIZE])))
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError("the description of the file is damaged") from error
    return places


def check_pages(file: io.BufferedIOBase, start: int, size: int) -> None:
    """Walk over the pages of a column of a group of rows.

    Args:
        file: The Parquet file.
        start: Where the first page begins.
        size: Bytes of all pages with their headers.

    Raises:
        ValueError: A page claims more bytes than there are, or far more than it could
            unpack to.
    """
    place, end = start, start + size
    while place < end:
        file.seek(place)
        packed, whole, length = _header(file.read(min(_MOST_HEADER, end - place)))
        place += length + packed
        if packed < 0 or place > end:
            raise ValueError(f"a page claims {packed} bytes, more than there are")
        if not 0 <= whole <= max(_ALWAYS, _MOST_RATIO * packed):
            raise ValueError(f"a page of {packed} bytes claims to hold {whole}")


def _header(content: bytes) -> tuple[int, int, int]:
    """Bytes of a page with compression and without, and of its header."""
    reader = _Compact(content)
    try:
        fields = reader.struct()
        packed, whole = (operator.index(fields[key]) for key in _PAGE)
    except (LookupError, TypeError) as error:
        raise ValueError("the header of a page is damaged") from error
    return packed, whole, reader.place


class _Compact:
    """Reads Thrift's compact protocol; ``LookupError`` where it is damaged."""

    def __init__(self, content: bytes):
        self._content, self.place = content, 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """The values of a struct by their fields."""
        values: dict[int, Any] = {}
        field = 0
        while head := self._byte():
            field = field + (head >> 4) if head >> 4 else self._number()
            values[field] = self._value(head & 15, depth)
        return values

    def _value(self, kind: int, depth: int) -> Any:
        if kind in _INTEGERS:
            return self._number()
        if kind in _BOOLEANS:
            return kind == _BOOLEANS[0]
        if kind in (_BYTE, _DOUBLE):
            return self._bytes(1 if kind == _BYTE else 8)
        if kind == _BINARY:
            return self._bytes(self._varint())
        if kind == _STRUCT and depth < _MOST_DEPTH:
            return self.struct(depth + 1)
        if kind in _LISTS and depth < _MOST_DEPTH:
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._varint()
            kind = head & 15
            if kind in _BOOLEANS:  # alone in a list, they take a byte
                kind = _BYTE
            if count > len(self._content):
                raise IndexError(count)
            return [self._value(kind, depth + 1) for _ in range(count)]
        raise KeyError(kind)

    def _bytes(self, count: int) -> bytes:
        self.place += count
        if self.place > len(self._content):
            raise IndexError(self.place)
        return self._content[self.place - count : self.place]

    def _number(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    def _byte(self) -> int:
        byte = self._content[self.place]
        self.place += 1
        return byte
