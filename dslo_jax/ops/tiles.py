"""The labels of pixels, computed in tiles of one shape for all photos.

Pixels of one cell have the same neighbours. A *piece* is a rectangle of pixels of one
cell, with the values of the neighbours. A *unit* is ``SLOTS`` consecutive pixels of a
piece, row by row; the slots behind the last pixel of a piece are computed and dropped.
A *tile* holds units of any pieces, of any photos of a batch, so that the compiled
program depends on neither the size of a photo nor the number of photos: only on the
number of classes that a piece has room for.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int32, UInt8

from dslo_jax import tuning
from dslo_jax.ops.labels import PixelLabels, keep_labels
from dslo_jax.ops.weights import Form, average, neighbour_weights, steps


SLOTS = 64
"""Pixels of a unit: few are wasted at the end of a piece, and vectors are full."""

UNITS = 4096
"""Units of a tile, a power of two: 262,144 slots."""


class Tile(NamedTuple):
    """Units and the pieces that they belong to.

    Attributes:
        pixels: Colours of the slots; None for bilinear labels, which need none.
        piece: Piece of each unit.
        start: Place of a unit's first pixel in its piece, row by row.
        used: Number of units; those behind are not computed.
        width: Pixels in a row of the piece.
        origin: Row and column of the piece's first pixel, from the centre of its cell,
            in cells.
        step: Height and width of a pixel, in cells.
        mean: Mean colour of the piece's cell, from 0 to 1.
        colours: Mean colours of the neighbours, minus ``mean``.
        inside: Whether a neighbour lies inside the grid.
        values: Values of the neighbours.
        classes: Row of each class in the maps, in ascending order.
        count: Number of classes; those behind are padding.
    """

    pixels: UInt8[Array | np.ndarray, "units slots 3"] | None
    piece: Int32[Array | np.ndarray, " units"]
    start: Int32[Array | np.ndarray, " units"]
    used: Int32[Array | np.ndarray, ""]
    width: Int32[Array | np.ndarray, " pieces"]
    origin: Float[Array | np.ndarray, "pieces 2"]
    step: Float[Array | np.ndarray, "pieces 2"]
    mean: Float[Array | np.ndarray, "pieces 3"]
    colours: Float[Array | np.ndarray, "pieces neighbours 3"]
    inside: Bool[Array | np.ndarray, "pieces neighbours"]
    values: Float[Array | np.ndarray, "pieces classes neighbours"]
    classes: Int32[Array | np.ndarray, "pieces classes"]
    count: Int32[Array | np.ndarray, " pieces"]


def units_together(num_classes: int, platform: str) -> int:
    """Number of units that one step of the loop over a tile computes.

    Args:
        num_classes: Classes that a piece has room for.
        platform: Platform of the device, such as ``"cpu"``.

    Returns:
        A power of two, at most ``UNITS``.
    """
    units = max(1, tuning.slot_numbers(platform) // (SLOTS * (num_classes + 25)))
    return min(UNITS, 1 << (units.bit_length() - 1))


@partial(jax.jit, static_argnames=("form", "together"))
def label_tile(
    tile: Tile,
    variances: Float[Array | np.ndarray, " 2"],
    *,
    form: Form,
    together: int,
) -> PixelLabels:
    """Compute the labels of a tile.

    Args:
        tile: The units.
        variances: Of distance in squared cells, and of colour in squared RGB distance;
            not used by bilinear labels.
        form: ``"hat"`` for bilinear labels; see ``weights.form_of``.
        together: Units of a step; see ``units_together``.

    Returns:
        Labels and ties ``[units slots]``; of no meaning in slots that hold no pixel.
    """
    shape = len(tile.piece), SLOTS
    empty = PixelLabels(jnp.zeros(shape, jnp.int32), jnp.zeros(shape, bool))
    radius = (int(np.sqrt(tile.inside.shape[1])) - 1) // 2
    places = jnp.asarray(steps(radius))

    def body(index, done):  # `index` is an int under `jax.disable_jit`
        first = index * together
        found = _label_units(tile, first, places, variances, form, together)
        return PixelLabels(
            *(
                lax.dynamic_update_slice_in_dim(whole, part, first, 0)
                for whole, part in zip(done, found, strict=True)
            )
        )

    turns = (tile.used + together - 1) // together
    return lax.fori_loop(jnp.int32(0), turns.astype(jnp.int32), body, empty)


def _label_units(tile, first, places, variances, form, together):
    def units(table):
        return lax.dynamic_slice_in_dim(table, first, together)

    piece = units(tile.piece)
    own = _places(tile, piece, units(tile.start))
    inside = tile.inside[piece]
    around = jnp.broadcast_to(places, (together, *places.shape))
    if form != "hat":
        spatial, colour = 1 / jnp.sqrt(variances)
        pixels = units(tile.pixels).swapaxes(1, 2).astype(jnp.float32) / 255
        pixels -= tile.mean[piece][:, :, None]
        own = jnp.concatenate([own * spatial, pixels * colour], axis=1)
        near = tile.colours[piece] * colour
        around = jnp.concatenate([around * spatial, near], axis=2)
    maps = average(
        tile.values[piece], inside, neighbour_weights(around, inside, own, form)
    )
    rows = jnp.arange(maps.shape[1], dtype=jnp.int32)[None]
    real = rows < tile.count[piece][:, None]
    labels, tied = jax.vmap(keep_labels)(maps, real)
    return PixelLabels(jnp.take_along_axis(tile.classes[piece], labels, axis=1), tied)


def _places(tile, piece, start):
    """Row and column of every slot from the centre of its cell: ``[units 2 slots]``."""
    slot = start[:, None] + jnp.arange(SLOTS, dtype=jnp.int32)[None]
    slot = slot.astype(jnp.float32)
    width = tile.width[piece][:, None].astype(jnp.float32)
    # Integers below 2^12, and away from the next one by 1 / (2 width): exact.
    row = jnp.floor((slot + 0.5) / width)
    place = jnp.stack([row, slot - row * width], axis=1)
    return tile.origin[piece][:, :, None] + place * tile.step[piece][:, :, None]
