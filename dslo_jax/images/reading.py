"""Reading one photo, from a file or from memory, as upright 8-bit sRGB pixels.

Every fault of a picture is an ``ImageError``:

=======  ==================================================================
``I01``  there is no such file, or it is a folder, a device, or on the web
``I02``  not an image, or an image format that is not read
``I03``  an image that is truncated or damaged
``I04``  more pixels than allowed, checked before decoding
``I05``  too small
``I06``  an array whose shape, type or range is ambiguous
``I07``  a label map that holds no class ids
``I08``  a result that would be written outside its output folder
``I09``  a mask that does not fit its photo or its classes
``I10``  a page that the file does not have
=======  ==================================================================
"""

import hashlib
import io
import os
import re
import stat
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from dslo_jax.errors import ImageError, cause_of, similar_files
from dslo_jax.images.conversion import image_of_array, to_srgb
from dslo_jax.images.formats import (
    MAX_PIXELS,
    check_size,
    damaged,
    decoded,
    read_encoded,
)


_EXTREME_ASPECT = 20
_ORIENTATION = 0x0112  # the EXIF tag that says how to turn the stored pixels
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# A drive such as C: is one letter. ``Path`` makes one slash of two.
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/|data:", re.IGNORECASE)


class Photo(NamedTuple):
    """A photo, ready for the networks.

    Attributes:
        pixels: Upright sRGB, 0 to 255, owned by this photo.
        path: The file it came from, with the place inside an archive or a table; None
            for pictures in memory.
        notes: A note for each conversion, in their order.
        exif_applied: Whether the pixels were turned as their EXIF orientation says.
        sha256: Digest of the encoded bytes, as 64 hexadecimal digits; None for arrays
            and PIL images.
    """

    pixels: UInt8[np.ndarray, "height width 3"]
    path: Path | None
    notes: tuple[str, ...]
    exif_applied: bool
    sha256: str | None = None


@runtime_checkable
class Findable(Protocol):
    """A photo that was found and not yet read, such as a ``FoundPhoto``."""

    @property
    def origin(self) -> str:
        """Where it is, for messages."""
        ...

    def read(self, *, max_pixels: int) -> Photo:
        """Read it."""
        ...


def read_photo(
    source: object,
    *,
    max_pixels: int = MAX_PIXELS,
    page: int = 0,
    upright: bool = True,
) -> Photo:
    """Read a photo from a file, from encoded bytes, or from memory.

    EXIF orientation, ICC profile, transparency (on white), palettes, grey, CMYK, LAB,
    16-bit and float pixels are converted, each with a note. Photos with an extreme
    aspect get a note. Metadata that are damaged or too large are ignored, with a note.
    A file is read once.

    Args:
        source: A ``Photo``, which is returned as it is; a path; a ``FoundPhoto``; an
            image file as ``bytes``, or open in binary mode, from its current position
            on; a PIL image; or an array, or anything with ``__array__``: uint8 or float
            in [0, 1], ``[height, width, 3]``, grey or RGBA, channels first only where
            that is unambiguous.
        max_pixels: Upper limit of height times width, checked before decoding. Pillow
            itself refuses more than about 179 million.
        page: Which page of a TIFF, or frame of an animation, from 0.
        upright: Whether the orientation that EXIF states is applied.

    Returns:
        The photo; its pixels share no memory with a ``source`` that is no ``Photo``.

    Raises:
        ImageError: ``I01`` to ``I06``, and ``I10``, as listed at the top of this file.

    Example:
        >>> read_photo(np.zeros((4, 6), np.uint8)).notes
        ('grey repeated to three channels',)
    """
    if isinstance(source, Photo):
        return source
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        name = repr(os.fspath(source))
        content = read_file(path, max_pixels=max_pixels)
        return photo_of(
            content, name, path, max_pixels=max_pixels, page=page, upright=upright
        )
    file: Any = source
    if isinstance(source, bytes | bytearray):
        name, content = f"an image of {len(source)} bytes", bytes(source)
    elif callable(getattr(source, "read", None)) and not isinstance(source, Findable):
        name = f"the {type(source).__name__}"
        content = read_encoded(file, name, max_pixels=max_pixels)
    else:
        if page != 0 or not upright:
            raise ValueError("`page` and `upright` are for files and bytes alone")
        if isinstance(source, Findable):
            return source.read(max_pixels=max_pixels)
        return _photo_in_memory(source, max_pixels)
    return photo_of(
        content, name, None, max_pixels=max_pixels, page=page, upright=upright
    )


def photo_of(
    content: bytes,
    name: str,
    path: Path | None,
    *,
    max_pixels: int = MAX_PIXELS,
    page: int = 0,
    upright: bool = True,
) -> Photo:
    """The photo of an image file that was read.

    Args:
        content: The bytes of the file.
        name: Name of the file for errors.
        path: Where it came from.
        max_pixels: Upper limit of height times width, checked before decoding.
        page: Which page or frame, from 0.
        upright: Whether the orientation that EXIF states is applied.

    Raises:
        ImageError: ``I02`` to ``I06``, and ``I10``.
    """
    photo, notes = decoded(
        content,
        name,
        lambda image: _converted(image, upright=upright),
        max_pixels=max_pixels,
        page=page,
    )
    digest = hashlib.sha256(content).hexdigest()
    return photo._replace(path=path, notes=(*photo.notes, *notes), sha256=digest)


def read_file(path: Path, *, max_pixels: int = MAX_PIXELS) -> bytes:
    """Read a regular file that begins like an image.

    Raises:
        ImageError: There is no such file, or it is not regular (``I01``); it is no
            image (``I02``), or larger than any image of ``max_pixels`` (``I04``).
    """
    with _open_file(path) as file:
        return read_encoded(file, repr(str(path)), max_pixels=max_pixels)


def is_address(path: Path) -> bool:
    """Whether a path is an address on the web or in a cloud, such as ``s3://...``."""
    return _ADDRESS.match(str(path)) is not None


def no_such_path(path: Path) -> ImageError:
    """The error about a path that does not exist, with similar names in its folder."""
    if is_address(path):
        address = re.sub(":/+", "://", str(path), count=1)[:80]
        return ImageError(
            "I01",
            f"{address!r} is an address, and nothing is downloaded; download the photo "
            "first, then name its file",
        )
    near = similar_files(path)
    return ImageError(
        "I01",
        f"there is no file {str(path)!r} (from {os.getcwd()!r}){near and '; '}{near}",
    )


def irregular_kind(mode: int) -> str | None:
    """Kind of a path that is not a regular file; ``None`` for a regular file."""
    if stat.S_ISREG(mode):
        return None
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "a device")


def _open_file(path: Path) -> io.BufferedReader:
    """Open a regular file; a pipe would block and a device would never end."""
    try:
        kind = irregular_kind(path.stat().st_mode)
        if kind is None:
            return path.open("rb")
    except FileNotFoundError as error:
        raise no_such_path(path) from error
    except (OSError, ValueError) as error:
        if is_address(path):  # it may be too long for a path
            raise no_such_path(path) from error
        raise ImageError(
            "I01",
            f"cannot open {str(path)!r}: {cause_of(error)}; correct its path or "
            "its permissions",
        ) from error
    remedy = "name a photo inside it" if kind == "a folder" else "give a regular file"
    raise ImageError("I01", f"{str(path)!r} is {kind}, not a photo; {remedy}")


def _photo_in_memory(source: object, max_pixels: int) -> Photo:
    """The photo of a PIL image, at its current frame, or of an array."""
    name = f"the {type(source).__name__}"
    image, notes = (
        (source, []) if isinstance(source, Image.Image) else image_of_array(source)
    )
    check_size(image, name, max_pixels)
    try:
        photo = _converted(image, upright=True)
    except ImageError:
        raise
    except Exception as error:  # a decoder may raise anything on bad bytes
        raise damaged(name, error) from error
    return photo._replace(notes=(*notes, *photo.notes))


def _converted(image: Image.Image, *, upright: bool) -> Photo:
    """Decode an image, turn it upright and convert it."""
    # Pillow keeps only the high byte of 16-bit colour. This can be seen in the layout
    # of the file before it is decoded, and not in the result.
    deep = any(";16" in str(tile) for tile in getattr(image, "tile", ()))
    notes = ["16-bit colour cut to 8 bit"] if deep and image.mode[0] != "I" else []
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        notes.append(f"frame {image.tell() + 1} of {frames}")
    image, orientation = _decode(image, upright)
    turned = orientation in _TURNS
    if turned:
        notes.append("EXIF orientation applied")
    elif orientation is None:
        notes.append("EXIF cannot be read, ignored")
    rgb, conversions = to_srgb(image)
    if max(rgb.size) > _EXTREME_ASPECT * min(rgb.size):
        notes.append(f"extreme aspect, {rgb.height} x {rgb.width} px")
    return Photo(np.array(rgb), None, (*notes, *conversions), turned)


def _decode(image: Image.Image, upright: bool) -> tuple[Image.Image, int | None]:
    """Decode an image, and turn it as EXIF says if ``upright``.

    Returns:
        The decoded image, and the orientation that was applied: 1 is none, and ``None``
        says that EXIF cannot be read.
    """
    # Pillow turns a TIFF itself while it decodes. EXIF of a PNG may follow the pixels.
    before = _orientation(image) if image.format == "TIFF" else 1
    if not upright and before in _TURNS:
        image.getexif()[_ORIENTATION] = 1
    image.load()
    if not upright:
        return image.copy(), 1
    after = _orientation(image)
    if after in _TURNS:
        return image.transpose(_TURNS[after]), after
    return image, before if before in _TURNS else after


def _orientation(image: Image.Image) -> int | None:
    """What EXIF says, 1 if it says nothing, or ``None`` if it cannot be read."""
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # any garbage may be where EXIF should be
        return None
    return orientation if orientation in _TURNS else 1
