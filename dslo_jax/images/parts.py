"""Where a photo lies that is no file of its own, and how it is read from there.

Each kind of place is a part: it has a ``label`` that follows the path of the file in
messages, and reads the photo. Parts hold plain values, so they may go to other threads
and processes.
"""

import sys
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from dslo_jax.errors import ImageError, cause_of
from dslo_jax.images.formats import read_encoded
from dslo_jax.images.naming import safe_name
from dslo_jax.images.reading import Photo, photo_of, read_photo
from dslo_jax.images.tables import read_value


class Page(NamedTuple):
    """A page of a TIFF, or a frame of an animation, from 0."""

    number: int

    @property
    def label(self) -> str:
        """The number, as on the command line."""
        return f"#{self.number}"

    def read(self, path: Path, max_pixels: int) -> Photo:
        """Read the page."""
        return read_photo(path, max_pixels=max_pixels, page=self.number)


class Stdin(NamedTuple):
    """The one image that standard input holds."""

    label: str = ""

    def read(self, path: Path, max_pixels: int) -> Photo:
        """Read standard input to its end."""
        name = "standard input"
        if sys.stdin is None or sys.stdin.isatty():
            raise ImageError(
                "I01",
                f"{name} is a terminal; pipe an image into it, as in: cat a.jpg | "
                "dslo segment -",
            )
        content = read_encoded(sys.stdin.buffer, name, max_pixels=max_pixels)
        return photo_of(content, name, path, max_pixels=max_pixels)


class Member(NamedTuple):
    """A member of a tar archive: its name, and where its bytes are."""

    name: str
    offset: int
    size: int

    @property
    def label(self) -> str:
        """The name below that of the archive, and safe."""
        return "/" + safe_name(PurePosixPath(self.name))

    def read(self, path: Path, max_pixels: int) -> Photo:
        """Read the member, without reading those before it."""
        name = repr(f"{path}{self.label}")
        try:
            with path.open("rb") as archive:
                archive.seek(self.offset)
                window = _Window(archive, self.size)
                content = read_encoded(window, name, max_pixels=max_pixels)
        except OSError as error:
            raise ImageError(
                "I01", f"cannot open {str(path)!r}: {cause_of(error)}"
            ) from error
        if window.missing:
            raise ImageError(
                "I03",
                f"{name} is cut short, as its archive is {window.missing} bytes too "
                "short; copy the archive again",
            )
        where = Path(f"{path}{self.label}")
        return photo_of(content, name, where, max_pixels=max_pixels)


class Row(NamedTuple):
    """An image in a column of a Parquet file: a row, from 0."""

    column: str
    number: int

    @property
    def label(self) -> str:
        """The row below the name of the file."""
        return f"/{self.number}"

    def read(self, path: Path, max_pixels: int) -> Photo:
        """Read the value and decode it."""
        name = f"row {self.number} of column {self.column!r} of {str(path)!r}"
        content = read_value(path, self.column, self.number)
        if content is None:
            raise ImageError(
                "I02",
                f"{name} holds no image bytes; a table must hold the images "
                "themselves, not only their paths",
            )
        where = Path(f"{path}{self.label}")
        return photo_of(content, name, where, max_pixels=max_pixels)


class Unreadable(NamedTuple):
    """The rest of a file of photos that cannot be read, so that it is not lost."""

    code: str
    reason: str
    label: str = ""

    def read(self, path: Path, max_pixels: int) -> Photo:
        """Raise the error."""
        raise ImageError(self.code, self.reason)


Part = Page | Stdin | Member | Row | Unreadable


class _Window:
    """The next bytes of a file as a stream of their own."""

    def __init__(self, file: Any, size: int):
        self._file, self.missing = file, size

    def read(self, size: int, /) -> bytes:
        content = self._file.read(min(size, self.missing))
        self.missing -= len(content)
        return content
