"""Reading one photo, from a file or from memory, as upright 8-bit sRGB pixels.

Every fault of a picture is an ``ImageError``:

=======  ==================================================================
``I01``  there is no such file, or it is a folder, pipe or device
``I02``  not an image, or an image format that is not read
``I03``  an image that is truncated or damaged
``I04``  more pixels than allowed, checked before decoding
``I05``  too small
``I06``  an array whose shape, type or range is ambiguous
``I07``  a label map that holds no class ids
``I08``  a result that would be written outside its output folder
=======  ==================================================================
"""

import difflib
import io
import os
import re
import stat
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from dslo_jax.errors import ImageError
from dslo_jax.images.conversion import image_of_array, to_srgb


MAX_PIXELS = 64_000_000
MIN_SIDE = 2
_EXTREME_ASPECT = 20

# Only these decoders of Pillow read files, because any decoder may have security holes.
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
_SIGNATURES = (
    (rb"\xff\xd8\xff", "JPEG"),
    (rb"\x89PNG", "PNG"),
    (rb"GIF8", "GIF"),
    (rb"RIFF....WEBP", "WebP"),
    (rb"II\*\0|MM\0\*", "TIFF"),
    (rb"BM", "BMP"),
    (rb"....ftypavi[fs]", "AVIF"),
    (rb"....jP  |\xff\x4f\xff\x51", "JPEG 2000"),
    (rb"P[1-7]\s", "PNM"),
)
_HEIC = rb"....ftyp(hei|hev|mif1|msf1)"
_WEB_PAGE = rb"\s*(<!doctype|<html|<head|<\?xml)"
_ORIENTATION = 0x0112


class Photo(NamedTuple):
    """A photo, ready for the networks.

    Attributes:
        pixels: Upright sRGB, 0 to 255, owned by this photo.
        path: The file it came from; None for pictures in memory.
        notes: A note for each conversion, in their order.
        exif_applied: Whether the pixels were turned as their EXIF orientation says.
    """

    pixels: UInt8[np.ndarray, "height width 3"]
    path: Path | None
    notes: tuple[str, ...]
    exif_applied: bool


def read_photo(source: object, *, max_pixels: int = MAX_PIXELS) -> Photo:
    """Read a photo from a file, from encoded bytes, or from memory.

    EXIF orientation, ICC profile, transparency (on white), palettes, grey, CMYK, LAB,
    16-bit and float pixels are converted, each with a note. The first of several frames
    or pages is read. Photos with an extreme aspect get a note.

    Args:
        source: A path; the ``bytes`` of an image file; a PIL image; or an array, or
            anything with ``__array__``: uint8 or float in [0, 1], ``[height, width,
            3]``, grey or RGBA, channels first only where that is unambiguous.
        max_pixels: Upper limit of height times width, checked before decoding. Pillow
            itself refuses more than about 179 million.

    Returns:
        The photo; its pixels share no memory with ``source``.

    Raises:
        ImageError: ``I01`` to ``I06``, as listed at the top of this file.

    Example:
        >>> read_photo(np.zeros((4, 6), np.uint8)).notes
        ('grey repeated to three channels',)
    """
    if isinstance(source, str | os.PathLike):
        path, name = Path(source), repr(os.fspath(source))
        with _open_file(path) as file:
            image = open_image(file, name, max_pixels=max_pixels)
            return _photo_of(image, name)._replace(path=path)
    if isinstance(source, bytes):
        name = f"an image of {len(source)} bytes"
        image = open_image(io.BytesIO(source), name, max_pixels=max_pixels)
        return _photo_of(image, name)
    name = f"the {type(source).__name__}"
    image, notes = (
        (source, []) if isinstance(source, Image.Image) else image_of_array(source)
    )
    _check_size(image, name, max_pixels)
    photo = _photo_of(image, name)
    return photo._replace(notes=(*notes, *photo.notes))


def open_image(
    file: io.BufferedReader | io.BytesIO, name: str, *, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Read the header of an image file, without decoding it.

    Args:
        file: An open file at its start; it must stay open while the image is used.
        name: Name of the file for errors.
        max_pixels: Upper limit of height times width.

    Returns:
        A lazy PIL image of one of the allowed formats.

    Raises:
        ImageError: ``I02`` to ``I05``.
    """
    start = file.read(64)
    num_bytes = file.seek(0, io.SEEK_END)
    file.seek(0)
    try:
        image = Image.open(file, formats=_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        claimed = re.search(r"\d+", str(error))
        raise _too_many_pixels(
            name, f"{claimed[0] if claimed else 'too many'}", max_pixels
        ) from error
    except Exception as error:  # a decoder may raise anything on bad bytes
        raise _no_image(name, start, num_bytes) from error
    _check_size(image, name, max_pixels)
    return image


def no_such_path(path: Path) -> ImageError:
    """The error about a path that does not exist, with similar names in its folder."""
    try:
        siblings = os.listdir(path.parent)
    except (OSError, ValueError):
        siblings = []
    nearest = difflib.get_close_matches(path.name, siblings, 3)
    hint = f"; did you mean {' or '.join(map(repr, nearest))}?" if nearest else ""
    return ImageError(
        "I01", f"there is no file {str(path)!r} (from {os.getcwd()!r}){hint}"
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
        raise ImageError("I01", f"cannot open {str(path)!r}: {error}") from error
    remedy = "name a photo inside it" if kind == "a folder" else "give a regular file"
    raise ImageError("I01", f"{str(path)!r} is {kind}, not a photo; {remedy}")


def _photo_of(image: Image.Image, name: str) -> Photo:
    """Decode an image, turn it upright and convert it."""
    # Pillow keeps only the high byte of 16-bit colour. This can be seen in the layout
    # of the file before it is decoded, and not in the result.
    deep = any(";16" in str(tile) for tile in getattr(image, "tile", ()))
    notes = ["16-bit colour cut to 8 bit"] if deep and image.mode[0] != "I" else []
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
        frames = getattr(image, "n_frames", 1)
        upright = ImageOps.exif_transpose(image)
        rgb, conversions = to_srgb(upright)
    except ImageError:
        raise
    except Exception as error:  # a decoder may raise anything on bad bytes
        raise ImageError(
            "I03",
            f"{name} is a {image.format or image.mode} image that is cut short or "
            f"damaged: {error}; copy or export it again",
        ) from error
    turned = upright.size != image.size or orientation in range(2, 9)
    if frames > 1:
        notes.append(f"frame {image.tell() + 1} of {frames}")
    if turned:
        notes.append("EXIF orientation applied")
    if max(rgb.size) > _EXTREME_ASPECT * min(rgb.size):
        notes.append(f"extreme aspect, {rgb.height} x {rgb.width} px")
    return Photo(np.array(rgb), None, (*notes, *conversions), turned)


def _check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    size = f"{image.height} x {image.width}"
    if image.height * image.width > max_pixels:
        raise _too_many_pixels(
            name, f"{size} = {image.height * image.width}", max_pixels
        )
    if min(image.size) < MIN_SIDE:
        raise ImageError(
            "I05",
            f"{name} is {size} px; both sides must be {MIN_SIDE} px or more",
        )


def _too_many_pixels(name: str, claimed: str, max_pixels: int) -> ImageError:
    return ImageError(
        "I04",
        f"{name} has {claimed} pixels, the limit is {max_pixels}; make it smaller, or "
        "raise the limit if you trust it",
    )


def _no_image(name: str, start: bytes, num_bytes: int) -> ImageError:
    """The error about an empty file, a web page, another format or a damaged image."""
    if num_bytes == 0:
        return ImageError("I02", f"{name} is empty (0 bytes); copy it again")
    for pattern, kind in _SIGNATURES:
        if re.match(pattern, start, re.DOTALL):
            return ImageError(
                "I03",
                f"{name} starts like {kind} but cannot be read: {num_bytes} bytes, cut "
                "short, damaged or of a rare kind; export it again as JPEG or PNG",
            )
    if re.match(_HEIC, start, re.DOTALL):
        found, remedy = "a HEIC photo", "export it as JPEG or PNG"
    elif re.match(_WEB_PAGE, start, re.IGNORECASE):
        found, remedy = "a web page", "download the photo itself"
    else:
        found, remedy = "not an image", f"expected one of {', '.join(_FORMATS)}"
    return ImageError(
        "I02", f"{name} is {found} (starts with {start[:24]!r}); {remedy}"
    )
