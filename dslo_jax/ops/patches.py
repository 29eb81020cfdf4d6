"""Photos as sequences of patches: many shapes of photos in arrays of few lengths.

An array of a photo has a shape of its own, and a program is compiled for every shape. A
sequence of patches only has a length, and is padded to one of a few lengths. Where a
patch lies in its photo is data: the program computes it from the grid of the photo.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, UInt8


class Patches(NamedTuple):
    """Patches of photos, row by row, in sequences of the same length.

    A sequence that is longer than its photo repeats the last patch. The repetitions
    are called padding.

    Attributes:
        pixels: RGB of every patch; 0 to 255 from ``cut_patches``, in [0, 1] for a
            network.
        grid: Number of rows and of columns of every photo, in patches.
    """

    pixels: (
        Float[Array, "batch patches side side 3"]
        | UInt8[Array | np.ndarray, "batch patches side side 3"]
    )
    grid: Int32[Array | np.ndarray, "batch 2"]

    @property
    def is_real(self) -> Bool[Array, "batch patches"]:
        """False for the padding."""
        number = jnp.arange(self.pixels.shape[1], dtype=jnp.int32)
        return number[None] < jnp.prod(self.grid, axis=1, keepdims=True)

    @property
    def places(self) -> tuple[Int32[Array, "batch patches"], Int32[Array, "..."]]:
        """Row and column of every patch; the padding lies where the last patch lies."""
        return places_of(self.grid, self.pixels.shape[1])


def places_of(
    grid: Int32[Array | np.ndarray, "batch 2"], length: int
) -> tuple[Int32[Array, "batch {length}"], Int32[Array, "batch {length}"]]:
    """Row and column of every patch; the padding lies where the last patch lies.

    Args:
        grid: Number of rows and of columns of every photo, in patches.
        length: Length of the sequences.
    """
    number = jnp.arange(length, dtype=jnp.int32)
    rows, columns = grid[:, :1], grid[:, 1:]
    number = jnp.minimum(number[None], rows * columns - 1)
    return number // columns, number % columns


def cut_patches(
    photo: UInt8[np.ndarray, "height width 3"], side: int, length: int
) -> Patches:
    """Cut a photo into a sequence of patches, on the host.

    Args:
        photo: RGB from 0 to 255. Pixels below and to the right of the last whole patch
            are left out.
        side: Side of a patch in pixels.
        length: Length of the sequence; at least the number of patches.

    Returns:
        A batch of one photo.

    Raises:
        ValueError: The photo has no patch, or more than ``length``.
    """
    rows, columns = photo.shape[0] // side, photo.shape[1] // side
    if not 0 < rows * columns <= length:
        raise ValueError(
            f"`photo` is {photo.shape[0]} x {photo.shape[1]}, which is {rows} x "
            f"{columns} patches of {side} x {side}; expected from 1 to {length} patches"
        )
    whole = photo[: rows * side, : columns * side]
    patches = whole.reshape(rows, side, columns, side, 3).swapaxes(1, 2)
    patches = patches.reshape(-1, side, side, 3)
    padding = ((0, length - len(patches)), (0, 0), (0, 0), (0, 0))
    pixels = np.pad(patches, padding, mode="edge")
    return Patches(pixels[None], np.array([[rows, columns]], np.int32))


def resize_patches(
    values: Float[Array, "patches channels"],
    grid: Int32[Array, " 2"],
    size: tuple[int, int],
) -> Float[Array, "new_patches channels"]:
    """Resample values of patches to another grid, as ``resize(..., "bilinear")`` does.

    Args:
        values: Values of the patches of a photo, row by row; padding is not read.
        grid: Number of rows and of columns of the photo; may be traced.
        size: Number of rows and of columns wanted.

    Returns:
        Float32 values of the new patches, row by row.
    """
    values = values.astype(jnp.float32)
    rows, columns = (
        _neighbours(jnp.arange(size[axis], dtype=jnp.int32), grid[axis], size[axis])
        for axis in range(2)
    )
    mixed = jnp.zeros((*size, values.shape[-1]), jnp.float32)
    for row, down in rows:
        for column, across in columns:
            share = down[:, None] * across[None]
            place = row[:, None] * grid[1] + column[None]
            mixed += share[..., None] * values[place]
    return mixed.reshape(-1, values.shape[-1])


def resample_patches(
    values: Float[Array, "batch patches channels"],
    grid: Int32[Array, "#batch 2"],
    places: tuple[Int32[Array, "batch new"], Int32[Array, "batch new"]],
    size: Int32[Array, "#batch 2"],
) -> Float[Array, "batch new channels"]:
    """As ``resize_patches``, to grids that differ from photo to photo.

    Args:
        values: Values of the patches of photos, row by row; padding is not read.
        grid: Number of rows and of columns of every photo.
        places: Row and column of every new patch.
        size: Number of rows and of columns of the new patches of every photo.

    Returns:
        Float32 values of the new patches.
    """
    values = values.astype(jnp.float32)
    rows, columns = (
        _neighbours(places[axis], grid[:, axis, None], size[:, axis, None])
        for axis in range(2)
    )
    mixed = jnp.zeros((*places[0].shape, values.shape[-1]), jnp.float32)
    for row, down in rows:
        for column, across in columns:
            place = row * grid[:, 1:] + column
            taken = jnp.take_along_axis(values, place[..., None], axis=1)
            mixed += (down * across)[..., None] * taken
    return mixed


def _neighbours(
    place: Int32[Array, "*new"],
    length: Int32[Array, "*lengths"],
    size: Int32[Array, "*lengths"] | int,
) -> list[tuple[Int32[Array, "*new"], Float[Array, "*new"]]]:
    """The two samples around each wanted one, and their shares.

    The position ``(i + 0.5) * length / size - 0.5`` is a fraction of two integers, so
    it is split into its whole part and the rest without rounding.
    """
    position = (2 * place + 1) * length - size
    whole, rest = jnp.divmod(position, 2 * size)
    share = rest.astype(jnp.float32) / jnp.asarray(2 * size, jnp.float32)
    last = length - 1
    low, high = jnp.clip(whole, 0, last), jnp.clip(whole + 1, 0, last)
    return [(low, 1 - share), (high, share)]
