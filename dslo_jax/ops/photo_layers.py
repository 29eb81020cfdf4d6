"""A photo as a stack of layers: what the host does around ``layers.py``."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8, UInt16

from dslo_jax import tuning
from dslo_jax.areas import area_means
from dslo_jax.ops.cells import CellLayout, cell_layout
from dslo_jax.ops.labels import PixelLabels
from dslo_jax.ops.layers import TIED, Layers


class Call(NamedTuple):
    """The layers of every photo that are computed in one call.

    Attributes:
        first: Number of layers before.
        count: Number of layers, one of ``tuning.LAYERS``.
    """

    first: int
    count: int


def divide_layers(total: int) -> Iterator[Call]:
    """Divide the layers of a photo among few calls of few sizes.

    Args:
        total: Number of layers.

    Yields:
        The calls; the last one may go beyond the last layer.
    """
    first, largest = 0, tuning.LAYERS[-1]
    while first < total:
        left = min(total - first, largest)
        count = next(size for size in tuning.LAYERS if size >= left)
        yield Call(first, count)
        first += count


class PhotoLayers:
    """The layers of a photo, for one grid.

    Slot ``(row, column)`` of every cell is in layer ``row * slots_x + column``. A cell
    with fewer pixels repeats its last one; see ``CellLayout``.

    Args:
        pixels: The photo.
        grid: Rows and columns of the maps.
        coloured: Whether the weights need colours, as bilateral ones do.
    """

    def __init__(
        self,
        pixels: UInt8[np.ndarray, "height width 3"],
        grid: tuple[int, int],
        *,
        coloured: bool,
    ):
        self._pixels, self._coloured = pixels, coloured
        self._layout: CellLayout = cell_layout(pixels.shape[:2], grid)
        self._made: dict[Call, Layers] = {}

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the maps."""
        return self._layout.grid

    @property
    def total(self) -> int:
        """Number of layers."""
        slots_y, slots_x = self._layout.slots
        return slots_y * slots_x

    @cached_property
    def means(self) -> Float32[np.ndarray, "3 h w"] | None:
        """Mean colour of every cell, in [0, 1]; ``None`` if colours are not needed."""
        if not self._coloured:
            return None
        means = area_means(self._pixels, self._layout.grid) / 255
        return np.moveaxis(means, 2, 0).astype(np.float32)

    def make_all(self) -> None:
        """Make all layers now and keep them, so that ``cut`` takes no time."""
        _ = self.means
        for call in divide_layers(self.total):
            self._made[call] = self.cut(call)

    def cut(self, call: Call) -> Layers:
        """The layers of a call; those behind the last are zeros."""
        if call in self._made:
            return self._made[call]
        (h, w), (_, width) = self._layout.grid, self._layout.slots
        rows, columns = self._layout.rows, self._layout.columns
        dy = np.zeros((call.count, h), np.float32)
        dx = np.zeros((call.count, w), np.float32)
        pixels = None
        if self._coloured:
            pixels = np.zeros((call.count, 3, h, w), np.uint8)
        last = min(call.first + call.count, self.total)
        for row in range(call.first // width, -(-last // width)):
            begin, end = max(row * width, call.first), min((row + 1) * width, last)
            here = slice(begin - call.first, end - call.first)
            slots = slice(begin - row * width, end - row * width)
            dy[here] = rows.offsets[:, row]
            dx[here] = columns.offsets[:, slots].T
            if pixels is not None:
                line = self._pixels[rows.pixels[:, row]]
                cells = line.take(columns.pixels[:, slots], axis=1)
                pixels[here] = cells.transpose(2, 3, 0, 1)
        return Layers(pixels, dy, dx)

    def put_back(self, codes: UInt16[np.ndarray, "layers h w"]) -> PixelLabels:
        """Put the labels of all layers in their places.

        Args:
            codes: From ``label_layers``; those behind the last layer are dropped.
        """
        slots = codes[: self.total].reshape(*self._layout.slots, *self._layout.grid)
        image = self._layout.unfold(np.ascontiguousarray(slots.transpose(2, 0, 3, 1)))
        return PixelLabels((image % TIED).astype(np.int32), image >= TIED)


def cut_batch(photos: Sequence[PhotoLayers], call: Call) -> Layers:
    """The layers of a call of several photos with the same grid."""
    cuts = [photo.cut(call) for photo in photos]
    pixels = [cut.pixels for cut in cuts if cut.pixels is not None]
    return Layers(
        np.stack(pixels) if pixels else None,
        np.stack([cut.dy for cut in cuts]),
        np.stack([cut.dx for cut in cuts]),
    )
