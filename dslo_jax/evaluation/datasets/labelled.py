"""Photos in files, and beside each the file of its truth."""

import hashlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from dslo_jax.errors import ImageError
from dslo_jax.evaluation.datasets.masks import read_truth
from dslo_jax.evaluation.datasets.samples import Sample
from dslo_jax.images import MAX_PIXELS, Photo, read_photo
from dslo_jax.prompts import ClassList


class Entry(NamedTuple):
    """The files of one sample.

    Attributes:
        name: Tells it from the others.
        photo: The photo.
        mask: The image of ids with its truth.
    """

    name: str
    photo: Path
    mask: Path


class LabelledPhotos:
    """Samples that are read one at a time, from any thread.

    Args:
        entries: Their files, sorted by name, which is unique.
        classes: The classes of the truth.
        table: What the values in the masks stand for.
        drawn_on_stored: What to do about a photo whose EXIF orientation turns it by
            180 degrees or mirrors it, so that the size of the mask does not tell what
            it was drawn on: take the pixels as they are stored, or refuse the photo.
        max_pixels: Greatest number of pixels of a photo or a mask.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        classes: ClassList,
        *,
        table: UInt8[np.ndarray, " 256"],
        drawn_on_stored: bool,
        max_pixels: int = MAX_PIXELS,
    ):
        self._entries = tuple(entries)
        self._classes = classes
        self._table = table
        self._drawn_on_stored = drawn_on_stored
        self._max_pixels = max_pixels

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Sample]:
        return map(self.read, range(len(self)))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the samples, sorted, without reading them."""
        return tuple(entry.name for entry in self._entries)

    @property
    def classes(self) -> ClassList:
        """The classes of the truth, each with its synonyms."""
        return self._classes

    def read(self, index: int) -> Sample:
        """Read a photo and its truth.

        Masks know nothing of EXIF. So of the stored and the upright photo, the one
        that has the size of the mask is taken.

        Args:
            index: Place in ``names``.

        Returns:
            The sample; photo and truth have one size.

        Raises:
            ImageError: The photo or the mask is missing (``I01``), no image or damaged
                (``I02`` to ``I05``), the mask holds no ids (``I07``), or it does not
                fit the photo or the classes (``I09``).
        """
        entry = self._entries[index]
        truth = read_truth(
            entry.mask, self._table, len(self._classes), max_pixels=self._max_pixels
        )
        return Sample(entry.name, self._read_photo(entry, truth.shape), truth)

    def digest(self) -> str:
        """sha256 of the classes, of the names, and of the sizes of all files."""
        lines = [
            *map(repr, self._classes.synonyms),
            *(f"{e.name} {_size(e.photo)} {_size(e.mask)}" for e in self._entries),
        ]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def _read_photo(self, entry: Entry, size: tuple[int, ...]) -> Photo:
        read = partial(read_photo, entry.photo, max_pixels=self._max_pixels)
        upright = read()
        photos = [upright]
        if upright.exif_applied:
            photos.insert(0, read(upright=False))
        fitting = [photo for photo in photos if photo.pixels.shape[:2] == size]
        if not fitting:
            height, width, _ = upright.pixels.shape
            raise ImageError(
                "I09",
                f"{str(entry.mask)!r} is {size[0]} x {size[1]}, its photo "
                f"{str(entry.photo)!r} is {height} x {width}; expected the same size",
            )
        if len(fitting) > 1 and not self._drawn_on_stored:
            raise ImageError(
                "I09",
                f"{str(entry.photo)!r} is turned or mirrored by its EXIF orientation, "
                "and its mask fits it either way; save the photo without one",
            )
        return fitting[0]


def _size(path: Path) -> int | None:
    """Bytes in a file; None if it is not there, which reading it will tell."""
    try:
        return path.stat().st_size
    except OSError:
        return None
