"""The pixels of a photo, folded into the cells of a low-resolution grid.

Upsampling from an ``h x w`` grid gives all pixels of one cell the same neighbours. When
pixels are stored cell by cell, the work becomes a batch of small matrix products.
Upsampled maps are computed so; labels are computed in tiles (``pixels.py``) or layers
(``layers.py``). Folding is index arithmetic and happens on the host.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from dslo_jax.ops.resize import resize_weights


class CellAxis(NamedTuple):
    """One axis of a photo, divided into cells.

    A pixel belongs to the cell that contains its centre. A cell with fewer pixels than
    slots repeats its last one; a cell without pixels (an axis shorter than the grid)
    repeats a neighbour's.

    Args:
        pixels: Pixel in each slot.
        offsets: Centre of that pixel minus the centre of the cell, in cells, from
            -0.5 to 0.5.
        slot_of_pixel: Slot of each pixel, counted over the slots of all cells.
    """

    pixels: Int[np.ndarray, "cells slots"]
    offsets: Float[np.ndarray, "cells slots"]
    slot_of_pixel: Int[np.ndarray, " length"]


class GuideCells(NamedTuple):
    """A photo folded into cells, as upsampling needs it.

    Args:
        colors: RGB in [0, 1] of every slot.
        means: Mean colour of the photo over the area of every cell.
        dy: Vertical offset of the slots from the centre of their cell, in cells.
        dx: Horizontal offset.
    """

    colors: Float[Array | np.ndarray, "h slots_y w slots_x 3"]
    means: Float[Array | np.ndarray, "h w 3"]
    dy: Float[Array | np.ndarray, "h slots_y"]
    dx: Float[Array | np.ndarray, "w slots_x"]


@dataclass(frozen=True, eq=False)
class CellLayout:
    """A rule that folds photos of one size into the cells of one grid.

    Made by ``cell_layout``.

    Args:
        size: ``(height, width)`` of the photo.
        grid: ``(h, w)``, cells of the grid.
        slots: ``(slots_y, slots_x)``, slots of every cell.
        rows: The vertical axis.
        columns: The horizontal axis.
    """

    size: tuple[int, int]
    grid: tuple[int, int]
    slots: tuple[int, int]
    rows: CellAxis
    columns: CellAxis

    def fold(self, guide: Float[Array | np.ndarray, "height width 3"]) -> GuideCells:
        """Fold a photo on the host, with NumPy and without compilation.

        Args:
            guide: RGB in [0, 1], float32, of this layout's size.

        Returns:
            The photo by cells. Memory: 12 bytes per slot.

        Raises:
            ValueError: The photo has another size or is not floating.
        """
        if guide.shape[:2] != self.size:
            raise ValueError(
                f"guide is {guide.shape[0]} x {guide.shape[1]}, the layout is for "
                f"{self.size[0]} x {self.size[1]} pixels"
            )
        check_guide(guide)
        guide = guide.astype(np.float32)
        (height, width), (h, w) = self.size, self.grid
        with jax.default_matmul_precision("highest"):
            means = resize_weights(height, h, "area") @ guide.reshape(height, width * 3)
            means = means.reshape(h, width, 3).swapaxes(0, 1).reshape(width, h * 3)
            means = resize_weights(width, w, "area") @ means
        return GuideCells(
            # ``take`` needs a third of the time of indexing with an array, which NumPy
            # does entry by entry on this axis.
            colors=guide[self.rows.pixels].take(self.columns.pixels, axis=2),
            means=means.reshape(w, h, 3).swapaxes(0, 1),
            dy=self.rows.offsets,
            dx=self.columns.offsets,
        )

    def unfold(
        self, cells: Shaped[Array | np.ndarray, "*batch h slots_y w slots_x"]
    ) -> Shaped[Array | np.ndarray, "*batch height width"]:
        """Put the pixels back in their places and drop the repeated ones.

        Args:
            cells: Values of every slot.

        Returns:
            Values of every pixel, as NumPy if they came as NumPy.
        """
        (h, w), (slots_y, slots_x) = self.grid, self.slots
        flat = cells.reshape(*cells.shape[:-4], h * slots_y, w * slots_x)
        by_row = flat[..., self.rows.slot_of_pixel, :]
        return by_row[..., self.columns.slot_of_pixel]


def cell_layout(size: tuple[int, int], grid: tuple[int, int]) -> CellLayout:
    """Divide a photo of any size among the cells of a grid.

    Args:
        size: ``(height, width)`` of the photo; need not be a multiple of the grid and
            may be smaller.
        grid: ``(h, w)``, cells of the grid.

    Returns:
        The layout.

    Raises:
        ValueError: A length is not positive.
    """
    if min(*size, *grid) < 1:
        raise ValueError(f"size and grid must be at least 1, got {size} and {grid}")
    slots = -(-size[0] // grid[0]), -(-size[1] // grid[1])
    return CellLayout(
        size=size,
        grid=grid,
        slots=slots,
        rows=_divide(size[0], grid[0], slots[0]),
        columns=_divide(size[1], grid[1], slots[1]),
    )


def check_guide(guide: Shaped[Array | np.ndarray, "height width 3"]) -> None:
    """Refuse a photo of integers, because colours are expected in [0, 1].

    Args:
        guide: A photo.

    Raises:
        ValueError: It is not floating.
    """
    if not jnp.issubdtype(guide.dtype, jnp.floating):
        raise ValueError(
            f"guide has dtype {guide.dtype}; expected RGB in [0, 1]: divide by 255"
        )


def by_rows(
    x: Shaped[Array, "h w *classes pixels"], slots: tuple[int, int]
) -> Shaped[Array, "*classes h slots_y w slots_x"]:
    """Reorder values per cell for ``CellLayout.unfold``.

    Args:
        x: Values of the slots of every cell, row by row within the cell.
        slots: ``(slots_y, slots_x)``.

    Returns:
        The same values with the classes first, then the slots as rows and columns.
    """
    x = x.reshape(*x.shape[:-1], *slots)
    return jnp.moveaxis(x, (0, -2, 1, -1), (-4, -3, -2, -1))


def _divide(length: int, cells: int, slots: int) -> CellAxis:
    pixels, each = np.arange(length), np.arange(cells)
    cell_of_pixel = (2 * pixels + 1) * cells // (2 * length)  # exact, in integers
    first = np.searchsorted(cell_of_pixel, each, side="left")
    last = np.maximum(np.searchsorted(cell_of_pixel, each, side="right") - 1, first)
    in_slot = np.minimum(first[:, None] + np.arange(slots), last[:, None])
    in_slot = np.minimum(in_slot, length - 1)
    offsets = (in_slot + 0.5) * cells / length - 0.5 - each[:, None]
    return CellAxis(
        pixels=in_slot,
        # The pixel that an empty cell repeats lies outside the cell, where bilinear
        # weights would be 0 / 0.
        offsets=np.clip(offsets, -0.5, 0.5).astype(np.float32),
        slot_of_pixel=cell_of_pixel * slots + pixels - first[cell_of_pixel],
    )
