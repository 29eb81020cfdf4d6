"""Class ids from the pixels of a mask, as the file stores them.

Decoders make pictures: they stretch 4 bits to 8, turn two levels into black and white,
and look colours up. Class ids are the numbers before that.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer
from PIL import Image

from dslo_jax.errors import ImageError
from dslo_jax.images.formats import MAX_PIXELS, decoded
from dslo_jax.images.reading import read_file


_EXPECTED = "expected class ids in a palette or grey PNG of up to 16 bits"
_MOST_COLOURS = 256
_LOSSY = ("jpeg", "tiff_jpeg", "webp")
# TIFF tags
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339


def read_label_ids(
    path: Path, *, max_pixels: int = MAX_PIXELS
) -> Integer[np.ndarray, "height width"]:
    """Read the class ids of a mask.

    Args:
        path: A PNG, BMP or TIFF, with a palette or grey, of 1 to 16 bits.
        max_pixels: Upper limit of height times width, checked before decoding.

    Returns:
        The stored numbers, ``uint8`` or ``uint16``: palette indices or grey values,
        never colours, and never stretched.

    Raises:
        ImageError: The file is missing (``I01``), no image or damaged (``I02`` to
            ``I05``), or holds colours, transparency or numbers that are not clear
            (``I07``).
    """
    name = f"the mask {str(path)!r}"
    content = read_file(path, max_pixels=max_pixels)
    ids, _ = decoded(
        content,
        name,
        lambda image: _ids(image, content, name),
        max_pixels=max_pixels,
    )
    return ids


def _ids(image: Image.Image, content: bytes, name: str) -> np.ndarray:
    read = _READERS.get(image.format or "")
    if read is None:
        raise _no_ids(name, f"is a {image.format}, which does not keep ids exactly")
    if getattr(image, "n_frames", 1) > 1:
        raise _no_ids(name, "holds several pages")
    if image.mode.startswith(("RGB", "CMYK", "YCbCr", "LAB")):
        raise _colours(image, name)
    return read(image, content, name)


def _png(image: Image.Image, content: bytes, name: str) -> np.ndarray:
    depth = content[24]  # the header is always the first chunk
    if image.mode == "LA":
        return _opaque(image, name)
    return _unstretched(image, depth)


def _bmp(image: Image.Image, content: bytes, name: str) -> np.ndarray:
    place = 24 if content[14] == 12 else 28  # the header of OS/2 is shorter
    bits = int.from_bytes(content[place : place + 2], "little")
    # A grey palette of fewer levels than the bits have is beyond Pillow.
    if image.mode == "P" or (image.mode, bits) in (("1", 1), ("L", 8)):
        return _unstretched(image, bits)
    raise _no_ids(name, f"is a BMP of {bits} bits in mode {image.mode}")


def _tiff(image: Image.Image, content: bytes, name: str) -> np.ndarray:
    tags = getattr(image, "tag_v2", {})
    bits, sample_format = tags.get(_BITS, (1,)), tags.get(_SAMPLE_FORMAT, (1,))
    if image.info.get("compression") in _LOSSY:
        raise _no_ids(name, "is compressed in a way that does not keep ids exactly")
    if tags.get(_PHOTOMETRIC, 0) == 0:
        raise _no_ids(name, "is a TIFF in which 0 means white; its ids are not clear")
    if image.mode == "LA":
        return _opaque(image, name)
    if len(bits) > 1 or bits[0] > 16 or sample_format[0] != 1:
        raise _no_ids(name, f"is a TIFF of {bits} bits in mode {image.mode}")
    return _unstretched(image, bits[0])


_READERS: dict[str, Callable[[Image.Image, bytes, str], np.ndarray]] = {
    "PNG": _png,
    "BMP": _bmp,
    "TIFF": _tiff,
}


def _unstretched(image: Image.Image, bits: int) -> np.ndarray:
    """The numbers of a palette or grey image; grey of 2 and 4 bits was multiplied."""
    values = np.array(image)
    if image.mode == "L" and bits < 8:
        return values // (255 // (2**bits - 1))
    return values.astype(np.uint16 if values.dtype.itemsize > 1 else np.uint8)


def _opaque(image: Image.Image, name: str) -> np.ndarray:
    """Grey values beside which nothing is transparent."""
    values = np.array(image)
    if (values[..., 1] != 255).any():
        raise _no_ids(name, "has transparent pixels, so their ids are not clear")
    return values[..., 0]


def _colours(image: Image.Image, name: str) -> ImageError:
    """The error about a mask in which colours stand for classes."""
    found: Any = image.convert("RGB").getcolors(_MOST_COLOURS)
    if found is None:
        return _no_ids(name, f"holds more than {_MOST_COLOURS} colours")
    if all(len(set(colour)) == 1 for _, colour in found):
        return _no_ids(
            name,
            f"holds {len(found)} shades of grey in three equal channels; if they are "
            "ids, save one channel alone",
        )
    return _no_ids(
        name, f"holds {len(found)} colours; replace each colour by the id of its class"
    )


def _no_ids(name: str, reason: str) -> ImageError:
    return ImageError("I07", f"{name} {reason}; {_EXPECTED}")
