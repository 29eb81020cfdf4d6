"""The labels of photos of one size, folded into layers inside the program.

``ops.PhotoLayers`` does the same on the host for photos of any sizes.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int32, Shaped, UInt8

from dslo_jax import ops, tuning
from dslo_jax.ops.cells import CellLayout, cell_layout
from dslo_jax.ops.layers import TIED
from dslo_jax.ops.options import UpsamplingOptions
from dslo_jax.stablehlo.resizing import mean_colours


def label_photos(
    values: Float[Array, "batch active patches"],
    counts: Int32[Array, " batch"],
    photos: UInt8[Array, "batch height width 3"],
    grid: tuple[int, int],
    options: UpsamplingOptions,
) -> ops.PixelLabels:
    """Compute the labels of all pixels of photos of one size.

    Args:
        values: Maps of the active classes; rows from ``counts`` on are padding.
        counts: Number of active classes of each photo.
        photos: The photos, 0 to 255.
        grid: Rows and columns of the maps.
        options: Options of the upsampling: bilateral or bilinear.

    Returns:
        Row of ``values`` of every pixel, and whether it is tied.
    """
    batch, height, width, _ = photos.shape
    layout = cell_layout((height, width), grid)
    (slots_y, slots_x), (h, w) = layout.slots, grid
    total = slots_y * slots_x
    label, together = _programs(values.shape, total, grid)
    coloured = options.upsampling != "bilinear"
    codes = label(
        values,
        counts,
        mean_colours(photos, grid) if coloured else None,
        _fold(layout, photos if coloured else None, batch, -total % together),
        jnp.array([options.spatial_variance, options.range_variance], jnp.float32),
    )
    slots = codes[:, :total].reshape(batch, slots_y, slots_x, h, w)
    image = slots.transpose(0, 3, 1, 4, 2).reshape(batch, h * slots_y, w * slots_x)
    image = _take(image, layout.rows.slot_of_pixel, 1)
    image = _take(image, layout.columns.slot_of_pixel, 2)
    return ops.PixelLabels((image % TIED).astype(jnp.int32), image >= TIED)


def _programs(
    shape: tuple[int, ...], total: int, grid: tuple[int, int]
) -> tuple[Callable[..., Any], int]:
    """The function that labels layers on any platform.

    Also the number of which the number of layers must be a multiple.
    """
    batch, classes, patches = shape
    layers = min(tuning.LAYERS[-1], 1 << (total - 1).bit_length())
    together = {
        platform: ops.layers_together(layers, batch, classes, patches, platform)
        for platform in ("cpu", "gpu", "tpu")
    }
    programs = {
        platform: partial(ops.label_layers, grid=grid, together=each)
        for platform, each in together.items()
    }
    label = partial(
        tuning.by_platform,
        cpu=programs["cpu"],
        gpu=programs["gpu"],
        other=programs["tpu"],
    )
    return label, max(together.values())  # all of them are powers of 2


def _fold(
    layout: CellLayout,
    photos: UInt8[Array, "batch height width 3"] | None,
    batch: int,
    padding: int,
) -> ops.Layers:
    """The layers of photos, and so many layers of zeros behind them."""
    (slots_y, slots_x), (h, w) = layout.slots, layout.grid
    behind = ((0, padding), (0, 0))
    dy = np.pad(np.repeat(layout.rows.offsets.T, slots_x, axis=0), behind)
    dx = np.pad(np.tile(layout.columns.offsets.T, (slots_y, 1)), behind)
    pixels = None
    if photos is not None:
        cells = _take(photos, layout.rows.pixels.ravel(), 1)
        cells = _take(cells, layout.columns.pixels.ravel(), 2)
        cells = cells.reshape(batch, h, slots_y, w, slots_x, 3)
        pixels = cells.transpose(0, 2, 4, 5, 1, 3).reshape(batch, -1, 3, h, w)
        pixels = jnp.pad(pixels, ((0, 0), (0, padding), *[(0, 0)] * 3))
    copies = (batch, 1, 1)
    return ops.Layers(pixels, jnp.tile(dy, copies), jnp.tile(dx, copies))


def _take(
    values: Shaped[Array, "*shape"], places: Int[np.ndarray, " new"], axis: int
) -> Shaped[Array, "*new_shape"]:
    """The entries of an axis at some places; nothing is moved if these are all."""
    if np.array_equal(places, np.arange(values.shape[axis])):
        return values
    return jnp.take(values, places, axis, mode="clip")
