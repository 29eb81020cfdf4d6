"""Upsampling from the patch grid to the pixels of a photo of any size (Eq. 23).

Joint bilateral upsampling averages neighbours ``q`` of a pixel ``p`` with weights
``exp(-d^2 / spatial_variance) * exp(-|I_p - I_q|^2 / range_variance)``, with ``d`` in
cells of the grid and colours in [0, 1]. Here the neighbours are the cells around that
of the pixel, and the colour of a cell is the mean of the photo over its area. In
``dense.py`` the neighbours are pixels. Bilinear upsampling ignores the photo.

Neighbours outside the photo are left out, and the weights renormalised. Functions
called ``..._upsample`` return maps. Functions called ``..._labels`` return labels, and
never hold the maps of all classes at full size. Values must be finite.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from dslo_jax.ops.cells import GuideCells, by_rows, cell_layout
from dslo_jax.ops.labels import PixelLabels, Reduction, keep_labels, keep_maps
from dslo_jax.ops.resize import resize


def bilinear_upsample(
    values: Float[Array, "classes h w"], size: tuple[int, int]
) -> Float[Array, "classes height width"]:
    """Enlarge maps bilinearly (``align_corners=False``).

    Args:
        values: Maps on the patch grid.
        size: ``(height, width)`` of the photo.

    Returns:
        Maps at the size of the photo.
    """
    return resize(values, size, "bilinear")


@jax.jit
def bilinear_labels(
    values: Float[Array, "classes h w"],
    cells: GuideCells,
    active: Bool[Array, " classes"] | None = None,
) -> PixelLabels:
    """Labels of ``bilinear_upsample``, by cells.

    Args:
        values: Maps on the patch grid.
        cells: The folded photo; its colours do not matter.
        active: Classes that may win; default: all.

    Returns:
        ``[h slots_y w slots_x]`` labels and ties, for ``CellLayout.unfold``.
    """

    def weigh(dy, colors, means):
        return _hat_weights(dy, cells.dx)

    # A pixel needs its own cell and one neighbour on each axis; the weight of the other
    # neighbour is 0. Renormalising at the edge is the same as repeating the edge.
    return _by_cells(values, cells, active, weigh, 1, keep_labels)


def joint_bilateral_upsample(
    values: Float[Array, "classes h w"],
    guide: Float[Array | np.ndarray, "height width 3"],
    *,
    spatial_variance: float = 1.0,
    range_variance: float = 0.1,
    radius: int = 2,
) -> Float[Array, "classes height width"]:
    """Joint bilateral upsampling over neighbouring cells (Eq. 23).

    Args:
        values: Maps on the patch grid.
        guide: The photo, RGB in [0, 1]; larger or smaller than the grid.
        spatial_variance: Positive, in squared cells.
        range_variance: Positive, in squared RGB distance.
        radius: Neighbours on each side of the pixel's cell; 2 means 5 x 5 cells.

    Returns:
        Float32 maps at the size of the photo, within the range of their values.
        Memory: twice the maps, and the folded photo.

    Raises:
        ValueError: A variance or the radius is not positive, or the guide is not
            floating.
    """
    _check(spatial_variance, range_variance, radius)
    (height, width, _), (_, h, w) = guide.shape, values.shape
    layout = cell_layout((height, width), (h, w))
    maps = _joint(
        values,
        layout.fold(guide),
        None,
        spatial_variance,
        range_variance,
        radius=radius,
        reduce=keep_maps,
    )
    return jnp.asarray(layout.unfold(maps))


def joint_bilateral_labels(
    values: Float[Array, "classes h w"],
    cells: GuideCells,
    active: Bool[Array, " classes"] | None = None,
    *,
    spatial_variance: float = 1.0,
    range_variance: float = 0.1,
    radius: int = 2,
) -> PixelLabels:
    """Labels of ``joint_bilateral_upsample``, by cells.

    One compiled program serves all photos with the same grid and slots.

    Args:
        values: Maps on the patch grid.
        cells: The folded photo.
        active: Classes that may win; default: all.
        spatial_variance: As in ``joint_bilateral_upsample``.
        range_variance: As in ``joint_bilateral_upsample``.
        radius: As in ``joint_bilateral_upsample``.

    Returns:
        ``[h slots_y w slots_x]`` labels and ties, for ``CellLayout.unfold``. Memory:
        5 bytes per slot, and the weights of one row of cells.

    Raises:
        ValueError: A variance or the radius is not positive.
    """
    _check(spatial_variance, range_variance, radius)
    return _joint(
        values,
        cells,
        active,
        spatial_variance,
        range_variance,
        radius=radius,
        reduce=keep_labels,
    )


@partial(jax.jit, static_argnames=("radius", "reduce"))
def _joint(
    values: Float[Array, "classes h w"],
    cells: GuideCells,
    active: Bool[Array, " classes"] | None,
    spatial_variance: ArrayLike,
    range_variance: ArrayLike,
    *,
    radius: int,
    reduce: Reduction,
):
    def weigh(dy, colors, means):
        return _bilateral_weights(
            dy, cells.dx, colors, means, spatial_variance, range_variance
        )

    return _by_cells(values, cells, active, weigh, radius, reduce)


def _by_cells(values, cells, active, weigh, radius, reduce):
    """Average neighbouring cells with weights per slot, one row of cells at a time.

    All slots of a cell have the same neighbours, so a cell is one small matrix product.
    A further map of ones, zero outside the grid like all maps, gives the sum of the
    weights.
    """
    h, slots_y, w, slots_x, _ = cells.colors.shape
    span = 2 * radius + 1
    border = ((radius, radius), (radius, radius))
    ones = jnp.ones((1, h, w), jnp.float32)
    values = jnp.concatenate([values.astype(jnp.float32), ones])
    values = jnp.pad(values, ((0, 0), *border))
    # The border has an infinite colour, so that its weights are 0.
    means = jnp.pad(cells.means, (*border, (0, 0)), constant_values=jnp.inf)
    columns = np.arange(w)[:, None] + np.arange(span)

    def row(inputs):
        index, dy, colors = inputs
        near = lax.dynamic_slice_in_dim(values, index, span, axis=1)[:, :, columns]
        near_means = lax.dynamic_slice_in_dim(means, index, span)[:, columns]
        near = near.transpose(2, 0, 1, 3).reshape(w, -1, span * span)
        weights = weigh(dy, colors.swapaxes(0, 1), near_means.swapaxes(0, 1))
        sums = jnp.einsum(
            "wct,wts->wcs", near, weights, precision=lax.Precision.HIGHEST
        )
        maps = sums[:, :-1] / sums[:, -1:]
        return jax.vmap(reduce, in_axes=(0, None))(maps, active)

    rows = lax.map(row, (jnp.arange(h), cells.dy, cells.colors))
    return jax.tree.map(lambda x: by_rows(x, (slots_y, slots_x)), rows)


def _bilateral_weights(dy, dx, colors, means, spatial_variance, range_variance):
    """Weights ``[w neighbours slots]`` of one row of cells (Eq. 23).

    Args:
        dy: ``[slots_y]``.
        dx: ``[w slots_x]``.
        colors: ``[w slots_y slots_x 3]``.
        means: ``[w span span 3]``, colours of the neighbours.
        spatial_variance: Positive.
        range_variance: Positive.
    """
    w, span = means.shape[:2]
    down, right = _offsets(span, dy, dx)
    exponent = (down**2 + right**2) / spatial_variance
    means, colors = means.reshape(w, -1, 3), colors.reshape(w, -1, 3)
    for channel in range(3):  # a reduction over a last axis of 3 takes twice as long
        change = means[:, :, None, channel] - colors[:, None, :, channel]
        exponent += change**2 / range_variance
    # The greatest weight becomes 1. Otherwise all weights could underflow to 0 when a
    # variance is small.
    return jnp.exp(exponent.min(axis=1, keepdims=True) - exponent)


def _hat_weights(dy, dx):
    """Bilinear weights ``[w 9 slots]`` of one row of cells; arguments as above."""
    down, right = _offsets(3, dy, dx)
    return jnp.maximum(0, 1 - jnp.abs(down)) * jnp.maximum(0, 1 - jnp.abs(right))


def _offsets(span, dy, dx):
    """Offsets of neighbours from slots, in cells: ``[1 or w, neighbours, slots]``.

    Both directions of the neighbours share one axis, and so do those of the slots:
    with an axis for each, the loop takes three times as long on a CPU.
    """
    steps = jnp.arange(span, dtype=jnp.float32) - span // 2
    down = jnp.repeat(steps, span)[:, None] - jnp.repeat(dy, dx.shape[1])[None, :]
    right = jnp.tile(steps, span)[None, :, None] - jnp.tile(dx, dy.size)[:, None, :]
    return down[None], right


def _check(
    spatial_variance: float, range_variance: float, radius: int | None = None
) -> None:
    if spatial_variance <= 0 or range_variance <= 0:
        raise ValueError(
            "variances must be positive, got "
            f"spatial_variance={spatial_variance}, range_variance={range_variance}"
        )
    if radius is not None and radius < 1:
        raise ValueError(f"radius must be at least 1, got {radius}")
