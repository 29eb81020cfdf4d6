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
from jaxtyping import Array, Bool, Float, UInt8

from dslo_jax.areas import area_means
from dslo_jax.ops.cells import GuideCells, by_rows, cell_layout
from dslo_jax.ops.labels import PixelLabels
from dslo_jax.ops.pixels import Canvas, Colours, label_photos
from dslo_jax.ops.resize import resize
from dslo_jax.ops.tiles import Tile, label_tile, units_together
from dslo_jax.ops.weights import Form, average, form_of, neighbour_weights, steps


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


def bilinear_labels(
    values: Float[Array | np.ndarray, "classes h w"],
    size: tuple[int, int],
    active: Bool[Array | np.ndarray, " classes"] | None = None,
) -> PixelLabels:
    """Labels of ``bilinear_upsample``, computed as ``joint_bilateral_labels`` are.

    Args:
        values: Maps on the patch grid.
        size: ``(height, width)`` of the photo.
        active: Classes that may win; default: all.

    Returns:
        ``[height width]`` labels and ties, on the host.
    """
    # A pixel needs its own cell and one neighbour on each axis; the weight of the other
    # neighbour is 0. Renormalising at the edge is the same as repeating the edge.
    return _labels(Canvas(_chosen(values, active), size), active, "hat", (1, 1), 1)


def joint_bilateral_upsample(
    values: Float[Array, "classes h w"],
    guide: Float[Array | np.ndarray, "height width 3"],
    *,
    spatial_variance: float = 1.0,
    range_variance: float = 0.1,
    radius: int = 2,
) -> Float[Array, "classes height width"]:
    """Joint bilateral upsampling over neighbouring cells (Eq. 23).

    Every size of photo is compiled separately.

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
        spatial_variance,
        range_variance,
        radius=radius,
        form=form_of(spatial_variance, range_variance),
    )
    return jnp.asarray(layout.unfold(maps))


def joint_bilateral_labels(
    values: Float[Array | np.ndarray, "classes h w"],
    photo: UInt8[np.ndarray, "height width 3"],
    active: Bool[Array | np.ndarray, " classes"] | None = None,
    *,
    spatial_variance: float = 1.0,
    range_variance: float = 0.1,
    radius: int = 2,
) -> PixelLabels:
    """Labels of ``joint_bilateral_upsample``.

    Cells whose label the maps alone decide cost nothing; the pixels of the others are
    computed in tiles. The same programs serve photos of all sizes and all variances.

    Args:
        values: Maps on the patch grid.
        photo: The photo, 0 to 255, on the host.
        active: Classes that may win; default: all.
        spatial_variance: As in ``joint_bilateral_upsample``.
        range_variance: As in ``joint_bilateral_upsample``.
        radius: As in ``joint_bilateral_upsample``.

    Returns:
        ``[height width]`` labels and ties, on the host. Other memory: a few MiB.

    Raises:
        ValueError: A variance or the radius is not positive.
    """
    _check(spatial_variance, range_variance, radius)
    chosen = _chosen(values, active)
    colours = Colours(photo, area_means(photo, chosen.shape[1:]))
    canvas = Canvas(chosen, photo.shape[:2], colours)
    form = form_of(spatial_variance, range_variance)
    variances = spatial_variance, range_variance
    return _labels(canvas, active, form, variances, radius)


def _chosen(values, active) -> np.ndarray:
    chosen = np.asarray(values, np.float32)
    return chosen if active is None else chosen[np.asarray(active)]


def _labels(canvas, active, form: Form, variances, radius: int) -> PixelLabels:
    platform = jax.default_backend()

    def run(tile: Tile) -> PixelLabels:
        together = units_together(tile.classes.shape[1], platform)
        found = label_tile(
            tile, np.array(variances, np.float32), form=form, together=together
        )
        return jax.device_get(found)

    (found,) = label_photos([canvas], run, radius=radius)
    if active is None:
        return found
    (rows,) = np.nonzero(np.asarray(active))
    return found._replace(labels=rows.astype(np.int32)[found.labels])


@partial(jax.jit, static_argnames=("radius", "form"))
def _joint(
    values: Float[Array, "classes h w"],
    cells: GuideCells,
    spatial_variance: ArrayLike,
    range_variance: ArrayLike,
    *,
    radius: int,
    form: Form,
) -> Float[Array, "classes h slots_y w slots_x"]:
    """Average neighbouring cells with weights per slot, one row of cells at a time.

    All slots of a cell have the same neighbours, so a cell is two small products.
    """
    h, slots_y, w, slots_x, _ = cells.colors.shape
    span = 2 * radius + 1
    border = ((radius, radius), (radius, radius))
    inside = np.pad(np.ones((h, w), bool), radius)
    padded = jnp.pad(values.astype(jnp.float32), ((0, 0), *border))
    means = jnp.pad(cells.means, (*border, (0, 0)))
    columns = np.arange(w)[:, None] + np.arange(span)
    spatial = 1 / jnp.sqrt(jnp.float32(spatial_variance))
    colour = 1 / jnp.sqrt(jnp.float32(range_variance))
    places = jnp.broadcast_to(steps(radius) * spatial, (w, span**2, 2))

    def row(inputs):
        index, dy, colors, own_means = inputs

        def near(table, axis):
            rows = lax.dynamic_slice_in_dim(table, index, span, axis)
            return jnp.moveaxis(jnp.take(rows, columns, axis + 1), axis + 1, 0)

        mine = own_means[:, None]  # subtracted first: then little is rounded
        around = (near(means, 0).reshape(w, -1, 3) - mine) * colour
        own = (colors.swapaxes(0, 1).reshape(w, -1, 3) - mine) * colour
        place = jnp.stack(jnp.broadcast_arrays(dy[None, :, None], cells.dx[:, None]), 3)
        own = jnp.concatenate([place.reshape(w, -1, 2) * spatial, own], axis=2)
        within = near(jnp.asarray(inside), 0).reshape(w, -1)
        weights = neighbour_weights(
            jnp.concatenate([places, around], axis=2),
            within,
            own.swapaxes(1, 2),
            form,
        )
        return average(near(padded, 1).reshape(w, -1, span**2), within, weights)

    rows = lax.map(row, (jnp.arange(h), cells.dy, cells.colors, cells.means))
    return by_rows(rows, (slots_y, slots_x))


def _check(spatial_variance: float, range_variance: float, radius: int) -> None:
    if spatial_variance <= 0 or range_variance <= 0:
        raise ValueError(
            "variances must be positive, got "
            f"spatial_variance={spatial_variance}, range_variance={range_variance}"
        )
    if radius < 1:
        raise ValueError(f"radius must be at least 1, got {radius}")
