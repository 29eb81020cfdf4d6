"""Sizes that pages of a Parquet file claim, checked before pyarrow believes them.

pyarrow makes room for a page before it reads the page, as much as its header claims: a
file of 2 kB could take 2 GiB. The header is a struct in Thrift's compact protocol. Its
fields 2 and 3 are the bytes of the page without and with compression
(``parquet.thrift`` of apache/parquet-format).
"""

import io
from collections.abc import Iterator


_MOST_HEADER = 64 * 1024  # bytes; it holds statistics, which may be long
# Photos are compressed already, so that pages of them become hardly smaller.
_MOST_RATIO = 16
_ALWAYS = 256 * 1024 * 1024  # bytes that a page may take whatever its ratio
_MOST_DEPTH = 8
_UNCOMPRESSED, _COMPRESSED = 2, 3
# Kinds of values in the compact protocol.
_BOOLEANS, _BYTE, _INTEGERS, _DOUBLE, _BINARY = (1, 2), 3, (4, 5, 6), 7, 8
_LISTS, _STRUCT = (9, 10), 12


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
        content = file.read(min(_MOST_HEADER, end - place))
        sizes, length = _header(content)
        packed, whole = sizes[_COMPRESSED], sizes[_UNCOMPRESSED]
        place += length + packed
        if packed < 0 or place > end:
            raise ValueError(f"a page claims {packed} bytes, more than there are")
        if not 0 <= whole <= max(_ALWAYS, _MOST_RATIO * packed):
            raise ValueError(f"a page of {packed} bytes claims to hold {whole}")


def _header(content: bytes) -> tuple[dict[int, int], int]:
    """The whole numbers of a header by their fields, and its length in bytes."""
    try:
        reader = _Compact(content)
        numbers = dict(reader.fields(0))
        sizes = {key: numbers[key] for key in (_UNCOMPRESSED, _COMPRESSED)}
        return sizes, reader.place
    except LookupError as error:
        raise ValueError("the header of a page is damaged") from error


class _Compact:
    """Reads values of Thrift's compact protocol, as far as they are whole numbers."""

    def __init__(self, content: bytes):
        self._content, self.place = content, 0

    def fields(self, depth: int) -> Iterator[tuple[int, int]]:
        """The fields of a struct; only whole numbers have a value, others are 0."""
        field = 0
        while head := self._byte():
            field = field + (head >> 4) if head >> 4 else self._number()
            yield field, self._value(head & 15, depth)

    def _value(self, kind: int, depth: int) -> int:
        if kind in _INTEGERS:
            return self._number()
        if kind in (_BYTE, _DOUBLE):
            self.place += 1 if kind == _BYTE else 8
        elif kind == _BINARY:
            length = self._varint()  # which moves the place itself
            self.place += length
        elif kind in _LISTS and depth < _MOST_DEPTH:
            head = self._byte()
            for _ in range(head >> 4 if head >> 4 < 15 else self._varint()):
                self._value(head & 15, depth + 1)
                self.place += (
                    head & 15 in _BOOLEANS
                )  # alone in a list, they take a byte
                if self.place > len(self._content):
                    raise IndexError(self.place)
        elif kind == _STRUCT and depth < _MOST_DEPTH:
            for _ in self.fields(depth + 1):
                pass
        elif kind not in _BOOLEANS:
            raise KeyError(kind)
        return 0

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
