"""Resizing photos for networks.

There are three resamplers, because published implementations use three: Pillow's
antialiased bilinear filter (image processors of Hugging Face), OpenCV's two-tap
``INTER_LINEAR`` (mmseg) and OpenCV's ``INTER_AREA`` (M2N2). All have pixel centres at
half-integers and return 8-bit pixels.
"""

from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from dslo_jax.areas import area_means


ResizeMethod = Literal["antialias", "bilinear", "area"]

MAX_LONG = 2048
"""Upper limit of the longer side of a photo for CLIP, in pixels."""
_STRIP = 64  # rows of pixels that are filtered at once


def resize_photo(
    pixels: UInt8[np.ndarray, "height width 3"],
    size: tuple[int, int],
    *,
    method: ResizeMethod = "antialias",
) -> UInt8[np.ndarray, "new_height new_width 3"]:
    """Resample a photo to any size and aspect.

    ``"antialias"`` is Pillow's bilinear filter, which becomes wider as a side shrinks.
    ``"bilinear"`` interpolates between the two nearest pixels of each axis, also when a
    side shrinks. It is within one grey level of OpenCV's ``INTER_LINEAR``, which
    computes in fixed point. ``"area"`` is the mean over the area of a new pixel,
    fractions of pixels included. It equals OpenCV's ``INTER_AREA`` where both sides
    shrink, and is within one grey level of it where both grow. (Where one shrinks and
    the other grows, OpenCV does not average.) Pillow's box filter would differ by more
    than 100 grey levels on noise, because it does not count fractions of pixels.

    Args:
        pixels: The photo, 0 to 255.
        size: New height and width in pixels, at least 1.
        method: One of the three resamplers above.

    Returns:
        The photo in its new size, within the range of the old one.

    Raises:
        ValueError: The size or the method is not usable.
    """
    if min(size) < 1:
        raise ValueError(f"`size` is {size}, expected a height and width of 1 or more")
    if size == pixels.shape[:2]:
        return pixels.copy()
    if method == "antialias":
        return _antialias(pixels, size)
    if method == "bilinear":
        resampled = _two_taps(_two_taps(pixels, size[0], axis=0), size[1], axis=1)
    elif method == "area":
        resampled = area_means(pixels, size)
    else:
        raise ValueError(
            f"`method` is {method!r}, expected 'antialias', 'bilinear' or 'area'"
        )
    return np.floor(resampled + 0.5).astype(np.uint8)


def short_side_size(
    size: tuple[int, int], short_side: int, patch: int
) -> tuple[int, int]:
    """Size of a photo for a network: a given short side, and nearly the same aspect.

    Both sides are multiplied by ``min(2048 / long, short_side / short)``, as in
    mmseg, and then rounded down to whole patches, because a patch embedding drops a
    partial patch. Each side has at least one patch.

    Args:
        size: Height and width of the photo in pixels, at least 1.
        short_side: Wanted length of the shorter side in pixels.
        patch: Side of a patch in pixels.

    Returns:
        Height and width, multiples of ``patch``.

    Raises:
        ValueError: An argument is below 1.
    """
    if min(*size, short_side, patch) < 1:
        raise ValueError(
            f"`size` {size}, `short_side` {short_side} and `patch` {patch} must all be "
            "1 or more"
        )
    factor = min(MAX_LONG / max(size), short_side / min(size))
    height, width = (max(int(side * factor + 0.5) // patch, 1) * patch for side in size)
    return height, width


def _antialias(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pillow's bilinear filter: first the rows, in strips, then the columns.

    Pillow itself filters and rounds in this order, so the result is the same. A strip
    stays in the cache; Pillow copies a whole photo before it begins.
    """
    height, width = size
    narrow = np.empty((len(pixels), width, 3), np.uint8)
    for top in range(0, len(pixels), _STRIP):
        strip = pixels[top : top + _STRIP]
        narrow[top : top + _STRIP] = _filter(strip, (len(strip), width))
    return _filter(narrow, (height, width))


def _filter(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.array(image.resize((size[1], size[0]), Image.Resampling.BILINEAR))


def _two_taps(values: np.ndarray, size: int, *, axis: int) -> np.ndarray:
    """Linear interpolation between the two pixel centres around each new centre."""
    old = values.shape[axis]
    centre = np.clip((np.arange(size) + 0.5) * (old / size) - 0.5, 0, old - 1)
    low = np.floor(centre).astype(np.intp)
    high = np.minimum(low + 1, old - 1)
    share = _along((centre - low).astype(np.float32), axis)
    below = np.take(values, low, axis).astype(np.float32)
    return below + share * (np.take(values, high, axis).astype(np.float32) - below)


def _along(values: np.ndarray, axis: int) -> np.ndarray:
    """A vector shaped so that it multiplies rows (0) or columns (1)."""
    return values[:, None, None] if axis == 0 else values[None, :, None]
