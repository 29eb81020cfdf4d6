"""Opening encoded images: which formats are read, and how far damage is tolerated.

A format is recognised by the first bytes of a file, and only its own decoder then reads
the file, because any decoder may have security holes.
"""

import importlib
import io
import itertools
import re
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar, runtime_checkable

from PIL import Image

from dslo_jax.errors import ImageError
from dslo_jax.images.metadata import with_less_metadata


MAX_PIXELS = 64_000_000
MIN_SIDE = 2

_START = 64  # bytes that tell the format
# The first bytes of each format, and Pillow's name of its decoder.
_SIGNATURES = (
    (rb"\xff\xd8\xff", "JPEG"),
    (rb"\x89PNG", "PNG"),
    (rb"GIF8", "GIF"),
    (rb"RIFF....WEBP", "WEBP"),
    (rb"II[*+]\0|MM\0[*+]|MM\*\0|II\0\*", "TIFF"),
    (rb"BM", "BMP"),
    (rb"....jP  |\xff\x4f\xff\x51", "JPEG2000"),
    (rb"P[0-7fFy]\s", "PPM"),
    (rb"....ftyp.*avi[fs]", "AVIF"),
    (rb"....ftyp(hei|hev|mif1|msf1)", "HEIC"),
)
_PAGES = ("TIFF", "MPO", "HEIC")  # each page has a size of its own
_WEB_PAGE = rb"\s*(<!doctype|<html|<head|<\?xml)"
# Uncompressed pixels take up to 16 bytes; the rest is room for metadata and pages.
_BYTES_PER_PIXEL = 32
_MOST_METADATA = 64 * 1024 * 1024
_BLOCK = 1024 * 1024
_LEAST_PAGE = 10  # bytes; the directory of a page of a TIFF alone takes more

Result = TypeVar("Result")


@runtime_checkable
class Readable(Protocol):
    """Anything that bytes can be read from, seekable or not."""

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` bytes; none at the end."""
        ...


def read_encoded(file: Readable, name: str, *, max_pixels: int = MAX_PIXELS) -> bytes:
    """Read an image file to its end, if it begins like an image.

    Args:
        file: Open for reading bytes. It need not be seekable.
        name: Name of the file for errors.
        max_pixels: Upper limit of height times width, which also limits the bytes.

    Returns:
        The bytes from the current position to the end.

    Raises:
        ImageError: It cannot be read (``I01``), is no image (``I02``), or is larger
            than any image with ``max_pixels`` pixels (``I04``).
    """
    limit = _BYTES_PER_PIXEL * max_pixels + _MOST_METADATA
    try:
        blocks = _blocks(file, limit, name)
        start = next(blocks, b"")
        if _format_of(start) is None:
            raise _no_image(name, start)
        content = b"".join([start, *blocks])
    except ImageError:
        raise
    except Exception as error:  # streams of other libraries may raise anything
        raise ImageError("I01", f"cannot read {name}: {error}") from error
    if len(content) > limit:
        raise ImageError(
            "I04",
            f"{name} has more than {limit} bytes, which no image of {max_pixels} "
            "pixels needs; make it smaller, or raise max_pixels if you trust it",
        )
    return content


def decoded(
    content: bytes,
    name: str,
    use: Callable[[Image.Image], Result],
    *,
    max_pixels: int = MAX_PIXELS,
    page: int = 0,
) -> tuple[Result, tuple[str, ...]]:
    """Decode an image, also where its metadata are too large or damaged.

    If the image cannot be decoded as it is, it is tried again with less and less
    metadata. The pixels themselves must be whole.

    Args:
        content: An image file.
        name: Name of the file for errors.
        use: Decodes the lazy image and returns what is wanted of it.
        max_pixels: Upper limit of height times width, checked before decoding.
        page: Which page or frame, from 0.

    Returns:
        What ``use`` returned, and a note if metadata were left out.

    Raises:
        ImageError: ``I02`` to ``I05``; there is no such page (``I10``); or an error
            that ``use`` raised.
    """
    fault: ImageError | None = None
    for attempt in itertools.chain([content], with_less_metadata(content)):
        try:
            image = _open(io.BytesIO(attempt), name, max_pixels)
            if image.format not in _PAGES:  # frames are decoded on the way to a later
                check_size(image, name, max_pixels)
            _turn_to(image, page, name)
            check_size(image, name, max_pixels)
            result = use(image)
        except ImageError as error:
            if fault is not None:
                continue
            if error.code != "I03":
                raise
            fault = error
        except Exception as error:  # a decoder may raise anything on bad bytes
            fault = fault or damaged(name, error)
        else:
            left_out = "damaged or too large metadata ignored"
            return result, () if fault is None else (left_out,)
    assert fault is not None  # every attempt failed
    raise fault


def num_pages(content: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> int:
    """How many pages or frames an image file has, at least 1; none is decoded.

    Raises:
        ImageError: ``I02`` to ``I05``, or it claims more than its bytes can hold
            (``I03``).
    """
    count, _ = decoded(
        content,
        name,
        lambda image: getattr(image, "n_frames", 1),
        max_pixels=max_pixels,
    )
    if count > max(1, len(content) // _LEAST_PAGE):
        raise damaged(name, f"it claims {count} pages in {len(content)} bytes")
    return count


def check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    """Raise ``ImageError`` for too many pixels (``I04``) or too few (``I05``)."""
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


def damaged(name: str, reason: object) -> ImageError:
    """The error about an image whose pixels are not whole."""
    return ImageError(
        "I03", f"{name} is cut short or damaged: {reason}; copy or export it again"
    )


def _open(file: io.BytesIO, name: str, max_pixels: int) -> Image.Image:
    """Read the header of an image file; the image is decoded when it is used."""
    start = file.read(_START)
    num_bytes = file.seek(0, io.SEEK_END)
    file.seek(0)
    kind = _format_of(start)
    if kind is None:
        raise _no_image(name, start)
    try:
        if kind == "HEIC":
            image = _open_heic(file, name)
        else:
            image = Image.open(file, formats=[kind])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        claimed = re.search(r"\d+", str(error))
        raise _too_many_pixels(
            name, f"{claimed[0] if claimed else 'too many'}", max_pixels
        ) from error
    except ImageError:
        raise
    except Exception as error:  # a decoder may raise anything on bad bytes
        raise ImageError(
            "I03",
            f"{name} starts like {kind} but cannot be read: {num_bytes} bytes, cut "
            "short, damaged or of a rare kind; export it again as JPEG or PNG",
        ) from error
    return image


def _open_heic(file: io.BytesIO, name: str) -> Image.Image:
    try:
        plugin = importlib.import_module("pillow_heif")
    except ImportError as error:
        raise ImageError(
            "I02",
            f'{name} is a HEIC photo; to read it: pip install "dslo-jax[heic]"; or '
            "export it as JPEG or PNG",
        ) from error
    # It is not registered with Pillow, whose state belongs to the whole process.
    image: Image.Image = plugin.HeifImageFile(file)
    image.format = "HEIC"
    return image


def _turn_to(image: Image.Image, page: int, name: str) -> None:
    """Go to a page; page 0 of a HEIC file is the photo that it calls the main one."""
    if page == 0:
        return
    count, main = getattr(image, "n_frames", 1), image.tell()
    if not 0 < page < count:
        raise ImageError(
            "I10",
            f"{name} has no page {page}; its pages are 0 to {count - 1}"
            if count > 1
            else f"{name} has no page {page}; its only page is 0",
        )
    others = [number for number in range(page + 1) if number != main]
    image.seek(others[page - 1])


def _format_of(start: bytes) -> str | None:
    """Name of the format of a file that begins with these bytes."""
    matching = (k for pattern, k in _SIGNATURES if re.match(pattern, start, re.DOTALL))
    return next(matching, None)


def _blocks(file: Readable, limit: int, name: str) -> Iterator[bytes]:
    """The start of a file, then the rest in blocks, up to one byte above the limit.

    Streams may give fewer bytes than they are asked for; the start is whole.
    """
    start, missing = b"", limit + 1
    while missing > 0:
        size = min(missing, _BLOCK) if len(start) == _START else _START - len(start)
        block = file.read(size)
        if block is not None and not isinstance(block, bytes):
            raise ImageError(
                "I06",
                f"{name} gives {type(block).__name__} instead of bytes; open it in "
                "binary mode, as in open(path, 'rb')",
            )
        if not block:
            break
        missing -= len(block)
        if len(start) == _START:
            yield block
        elif len(start := start + block) == _START:
            yield start
    if len(start) < _START:
        yield start


def _too_many_pixels(name: str, claimed: str, max_pixels: int) -> ImageError:
    return ImageError(
        "I04",
        f"{name} has {claimed} pixels, the limit is {max_pixels}; make it smaller, or "
        "raise max_pixels if you trust it",
    )


def _no_image(name: str, start: bytes) -> ImageError:
    """The error about an empty file, a web page or another format."""
    if not start:
        return ImageError("I02", f"{name} is empty (0 bytes); copy it again")
    if re.match(_WEB_PAGE, start, re.IGNORECASE):
        found, remedy = "a web page", "download the photo itself"
    else:
        kinds = ", ".join(kind for _, kind in _SIGNATURES)
        found, remedy = "not an image", f"expected one of {kinds}"
    return ImageError(
        "I02", f"{name} is {found} (starts with {start[:24]!r}); {remedy}"
    )
