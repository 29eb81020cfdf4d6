"""The labels of the pixels of a batch in one program, for accelerators.

A *layer* holds one pixel of every cell of the grid. A photo is a stack of layers: as
many as its largest cell has pixels (``photo_layers.py``). The pixels of a layer lie as
their cells do, so their neighbours are the maps shifted by whole cells. All is
arithmetic of dense arrays: there are no gathers, which TPUs turn into loops, and no
small matrix products. A call takes a fixed number of layers of each photo, so that its
program does not depend on the sizes of the photos.
"""

from collections.abc import Callable
from functools import partial, reduce
from itertools import product
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int32, UInt8, UInt16

from dslo_jax import tuning


TIED = 1 << 15
"""Added to the label of a tied pixel; labels are below it."""

_OUTSIDE = -1e37
"""Exponent of a neighbour outside the grid: finite, also if two of them are added."""


class Layers(NamedTuple):
    """Some layers of every photo of a batch.

    Attributes:
        pixels: Colours from 0 to 255; None for bilinear labels, which need none.
        dy: Row of the pixels of a row of cells, from the centre of the cell, in cells.
        dx: Column, likewise.
    """

    pixels: UInt8[Array | np.ndarray, "*photos layers 3 h w"] | None
    dy: Float[Array | np.ndarray, "*photos layers h"]
    dx: Float[Array | np.ndarray, "*photos layers w"]


def layers_together(
    layers: int, photos: int, classes: int, patches: int, platform: str
) -> int:
    """Number of layers of each photo that are computed at once.

    Args:
        layers: Layers of a call, a power of two.
        photos: Photos of a call.
        classes: Classes of a photo, and padding.
        patches: Cells of the grid.
        platform: Platform of the device, such as ``"tpu"``.

    Returns:
        A power of two, at most ``layers``.
    """
    each = photos * patches * (classes + 25)
    fitting = max(1, tuning.layer_numbers(platform) // each)
    return min(layers, 1 << (fitting.bit_length() - 1))


@partial(jax.jit, static_argnames=("grid", "together"))
def label_layers(
    values: Float[Array | np.ndarray, "photos classes patches"],
    counts: Int32[Array | np.ndarray, " photos"],
    means: Float[Array | np.ndarray, "photos 3 h w"] | None,
    layers: Layers,
    variances: Float[Array | np.ndarray, " 2"],
    *,
    grid: tuple[int, int],
    together: int,
) -> UInt16[Array, "photos layers h w"]:
    """Compute the labels of some layers of every photo.

    Args:
        values: Maps of the classes.
        counts: Number of classes of each photo; those behind are padding.
        means: Mean colour of every cell, in [0, 1]; None for bilinear labels.
        layers: The layers, a multiple of ``together``.
        variances: Of distance in squared cells, and of colour in squared RGB distance;
            not used by bilinear labels.
        grid: Rows and columns of the maps.
        together: Layers that are computed at once; see ``layers_together``.

    Returns:
        Label of every pixel, a row of ``values``, plus ``TIED`` where several classes
        have the greatest value. Memory: for each pixel that is computed at once 25
        weights and the values of all classes, in float32.
    """
    return jax.vmap(
        partial(_label_photo, grid=grid, together=together),
        in_axes=(0, 0, None if means is None else 0, 0, None),
    )(values, counts, means, layers, variances)


def _label_photo(values, count, means, layers, variances, *, grid, together):
    radius = 1 if means is None else 2
    near = _shifted(values.reshape(-1, *grid), radius)
    colours = None if means is None else _shifted(means, radius)
    real = jnp.arange(len(values), dtype=jnp.int32) < count

    def label(part: Layers) -> UInt16[Array, "layers h w"]:
        if part.pixels is None or colours is None:
            weights = _bilinear_weights(part)
        else:
            pixels = jnp.asarray(part.pixels)
            weights = _bilateral_weights(part, pixels, colours, variances)
        # Not divided by the sum of the weights, which changes no argmax.
        pairs = zip(near, weights, strict=True)
        maps = sum(each[:, None] * weight[None] for each, weight in pairs)
        maps = jnp.where(real[:, None, None], maps, -jnp.inf)
        return _best(maps).reshape(-1, *grid)

    total = layers.dy.shape[0]
    if total == together:
        return label(layers)
    parts = jax.tree.map(lambda x: x.reshape(-1, together, *x.shape[1:]), layers)
    return lax.map(label, parts).reshape(total, *grid)


def _best(maps: Float[Array, "classes layers cells"]) -> UInt16[Array, "layers cells"]:
    """The greatest class of every pixel, the lowest of equal ones; ``TIED`` if equal.

    One reduction reads every value once. In two of them a compiler may compute the maps
    twice, with other roundings: then no value would equal the greatest one.
    """
    count = len(maps)
    rows = lax.broadcasted_iota(jnp.int32, maps.shape, 0)
    first = jnp.float32(-jnp.inf), jnp.int32(count), jnp.bool(False)

    def better(one, other):
        (value, row, tied), (value2, row2, tied2) = one, other
        equal, greater = value2 == value, value2 > value
        return (
            jnp.where(greater, value2, value),
            jnp.where(greater, row2, jnp.where(equal, jnp.minimum(row, row2), row)),
            equal | jnp.where(greater, tied2, tied),
        )

    _, row, tied = lax.reduce((maps, rows, maps != maps), first, better, (0,))
    return (row + jnp.where(tied, TIED, 0)).astype(jnp.uint16)


def _shifted(maps: Float[Array, "maps h w"], radius: int) -> list[Array]:
    """The maps ``[maps cells]`` of every neighbour; 0 outside the grid."""
    count, h, w = maps.shape
    padded = jnp.pad(maps, ((0, 0), (radius, radius), (radius, radius)))
    places = product(range(2 * radius + 1), repeat=2)
    return [padded[:, y : y + h, x : x + w].reshape(count, -1) for y, x in places]


def _bilateral_weights(
    layers: Layers,
    pixels: UInt8[Array, "layers 3 h w"],
    colours: list[Array],
    variances: Float[Array, " 2"],
) -> list[Array]:
    """Weights ``[layers cells]`` of the neighbours; the greatest is 1 (Eq. 23)."""
    spatial, colour = 1 / variances

    def exponent(away: Array) -> Array:
        return -(away**2) * spatial

    flat = pixels.reshape(*pixels.shape[:2], -1).astype(jnp.float32) / 255
    exponents = []
    places = _places(layers, 2, exponent, jnp.add, _OUTSIDE)
    for place, near in zip(places, colours, strict=True):
        # Not a sum over an axis of three, which takes a TPU half as long again.
        change = sum((flat[:, part] - near[part][None]) ** 2 for part in range(3))
        exponents.append(place - change * colour)
    greatest = reduce(jnp.maximum, exponents)
    return [jnp.exp(each - greatest) for each in exponents]


def _bilinear_weights(layers: Layers) -> list[Array]:
    """Weights ``[layers cells]`` of the neighbours; their sum is 1 inside the grid."""

    def hat(away: Array) -> Array:
        return jnp.maximum(0, 1 - jnp.abs(away))

    return _places(layers, 1, hat, jnp.multiply, 0.0)


def _places(
    layers: Layers,
    radius: int,
    weigh: Callable[[Array], Array],
    combine: Callable[[Array, Array], Array],
    outside: float,
) -> list[Array]:
    """Combine a number of the row and one of the column, for every neighbour."""

    def along(offsets: Array) -> list[Array]:
        places = np.arange(offsets.shape[1])
        found = []
        for step in range(-radius, radius + 1):
            inside = _is_inside(places + step)[None]
            found.append(jnp.where(inside, weigh(offsets - step), outside))
        return found

    rows, columns = along(jnp.asarray(layers.dy)), along(jnp.asarray(layers.dx))
    return [
        combine(row[:, :, None], column[:, None]).reshape(len(row), -1)
        for row, column in product(rows, columns)
    ]


def _is_inside(places: np.ndarray) -> Bool[np.ndarray, " places"]:
    return (places >= 0) & (places < len(places))
