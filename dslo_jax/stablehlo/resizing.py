"""Photos of one size resized inside a program, to the grey levels of the host.

``images.resize_photo`` resizes on the host. Pillow's filter and means over areas are
sums of integers, so a program can give the same grey levels on every platform. It adds
products of single bytes: they are exact in the least precise product of any platform
(bfloat16), and so are sums of some hundreds of them in float32.
"""

from functools import reduce

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, UInt8, UInt32

from dslo_jax.images.resizing import ResizeMethod
from dslo_jax.ops.resize import resize_weights


_FILTER_BITS = 22
"""Fraction bits of the weights of Pillow's filter (python-pillow/Pillow,
``src/libImaging/Resample.c``: ``PRECISION_BITS``)."""

_MOST_TAPS = 258
"""So many products of two bytes have an exact sum in float32."""

Photos = UInt8[Array, "batch height width 3"]
Resized = UInt8[Array, "batch new_height new_width 3"]


def resize_photos(
    photos: Photos, size: tuple[int, int], *, method: ResizeMethod
) -> Resized:
    """Resize photos as ``images.resize_photo`` does.

    Args:
        photos: Photos of one size, 0 to 255.
        size: New height and width in pixels.
        method: As for ``images.resize_photo``. The grey levels of ``"antialias"`` and
            ``"area"`` are the same; those of ``"bilinear"`` may differ by one.

    Raises:
        ValueError: The photos are too large for exact sums.
    """
    if photos.shape[1:3] == size:
        return photos
    if method == "area":
        sums, total = _area_sums(photos, size)
        return _rounded(sums, total)
    if method == "bilinear":
        tall = _interpolated(photos.astype(jnp.float32), size[0], axis=1)
        wide = _interpolated(tall, size[1], axis=2)
        return jnp.floor(wide + 0.5).astype(jnp.uint8)
    # Pillow filters the rows first, and rounds to whole grey levels in between.
    return _filtered(_filtered(photos, size[1], axis=2), size[0], axis=1)


def mean_colours(photos: Photos, grid: tuple[int, int]) -> Float[Array, "batch 3 h w"]:
    """Mean colour over every cell of a grid, in [0, 1], as ``areas.area_means``."""
    sums, total = _area_sums(photos, grid)
    whole, rest = sums // total, sums % total
    means = whole.astype(jnp.float32) + rest.astype(jnp.float32) / total
    return jnp.moveaxis(means / 255, 3, 1)


def _area_sums(
    photos: Photos, size: tuple[int, int]
) -> tuple[UInt32[Array, "batch rows columns 3"], int]:
    """The sums of the pixels of each cell by integer weights; the sum of the weights.

    See ``areas.py``: the unit is one pixel divided by the number of cells, without
    factors that both have in common.
    """
    sums, total, most = photos, 1, 255
    for axis, cells in zip((1, 2), size, strict=True):
        length = photos.shape[axis]
        unit = np.gcd(length, cells)
        weights = resize_weights(length, cells, "area").astype(np.float64)
        weights = np.rint(weights * (length // unit)).astype(np.int64)
        sums = _summed(weights, sums, axis, most)
        total, most = total * int(length // unit), most * int(length // unit)
    return sums, total


def _rounded(
    sums: UInt32[Array, "batch rows columns 3"], total: int
) -> UInt8[Array, "batch rows columns 3"]:
    """The quotients, rounded to the nearest integer, halves up."""
    whole, rest = sums // total, sums % total
    return (whole + (rest >= total - rest).astype(jnp.uint32)).astype(jnp.uint8)


def _filtered(photos: Photos, size: int, *, axis: int) -> Resized:
    """Pillow's bilinear filter along one axis, in its fixed-point arithmetic."""
    if photos.shape[axis] == size:
        return photos
    sums = _summed(_filter_weights(photos.shape[axis], size), photos, axis, 255)
    half = 1 << (_FILTER_BITS - 1)
    return jnp.minimum((sums + half) >> _FILTER_BITS, 255).astype(jnp.uint8)


def _filter_weights(length: int, size: int) -> Int[np.ndarray, "size length"]:
    """Weights of Pillow's filter: a triangle that is wider where a side shrinks."""
    step = length / size
    width = max(step, 1.0)
    weights = np.zeros((size, length), np.int64)
    for row in range(size):
        centre = (row + 0.5) * step
        first = max(int(centre - width + 0.5), 0)
        last = min(int(centre + width + 0.5), length)
        places = np.arange(first, last)
        taps = np.maximum(1 - np.abs((places - centre + 0.5) / width), 0)
        weights[row, places] = (taps / taps.sum() * 2**_FILTER_BITS + 0.5).astype(int)
    return weights


def _interpolated(
    values: Float[Array, "batch height width 3"], size: int, *, axis: int
) -> Float[Array, "batch new_height new_width 3"]:
    """Linear interpolation between the two nearest pixels along one axis."""
    length = values.shape[axis]
    centre = np.clip((np.arange(size) + 0.5) * (length / size) - 0.5, 0, length - 1)
    low = np.floor(centre).astype(np.int32)
    high = np.minimum(low + 1, length - 1)
    others = tuple(other for other in range(4) if other != axis)
    share = np.expand_dims((centre - low).astype(np.float32), others)
    below, above = (jnp.take(values, place, axis, mode="clip") for place in (low, high))
    return below + share * (above - below)


def _summed(
    weights: Int[np.ndarray, "size length"],
    values: UInt8[Array, "*shape"] | UInt32[Array, "*shape"],
    axis: int,
    most: int,
) -> UInt32[Array, "*new_shape"]:
    """Exact sums of integers along an axis; they must be below 2^32.

    Args:
        weights: Weights of each sum, at least 0.
        values: The integers.
        axis: The axis.
        most: The greatest possible integer.

    Raises:
        ValueError: A sum has too many terms, or does not fit into 32 bits.
    """
    taps = int((weights > 0).sum(axis=1).max())
    if taps > _MOST_TAPS or most * int(weights.sum(axis=1).max()) >= 2**32:
        raise ValueError(
            f"the sums over {weights.shape[1]} pixels for {weights.shape[0]} new ones "
            "are too large for 32 bits; make the photo smaller, or give it sides that "
            "are multiples of the new ones"
        )

    def byte(numbers, place):
        return ((numbers >> (8 * place)) & 255).astype("uint8")

    parts = []
    for high in range(_num_bytes(int(weights.max()))):
        for low in range(_num_bytes(most)):
            part = jnp.tensordot(
                jnp.asarray(byte(weights, high)).astype(jnp.float32),
                byte(values, low).astype(jnp.float32),
                axes=((1,), (axis,)),
                precision=lax.Precision.DEFAULT,  # enough for bytes
            )
            parts.append(part.astype(jnp.uint32) << (8 * (high + low)))
    return jnp.moveaxis(reduce(jnp.add, parts), 0, axis)


def _num_bytes(number: int) -> int:
    return max(1, -(-number.bit_length() // 8))
