"""Joint bilateral upsampling over every pixel of a disc (Eq. 23, dense variant).

The values are enlarged bilinearly, and the neighbours of a pixel are all pixels within
three standard deviations: 1,793 of them where a cell is 8 pixels wide. The variant by
cells (``upsample.py``) is compared with this one.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Shaped

from dslo_jax.ops.cells import by_rows, check_guide
from dslo_jax.ops.labels import PixelLabels, Reduction, keep_labels, keep_maps
from dslo_jax.ops.resize import resize


_TILE = 8  # pixels per side of a tile
_TILES_PER_STEP = 16
_WEIGHTS_PER_STEP = 1 << 24  # 64 MiB of float32: bounds the tiles of a large window


def dense_bilateral_upsample(
    values: Float[Array, "classes h w"],
    guide: Float[Array | np.ndarray, "height width 3"],
    *,
    spatial_variance: float = 2.0,
    range_variance: float = 0.02,
) -> Float[Array, "classes height width"]:
    """Joint bilateral upsampling over every pixel of a disc (Eq. 23, dense).

    The values are enlarged bilinearly; the disc has a radius of three standard
    deviations, ``3 * sqrt(spatial_variance / 2)`` cells. The default variances mean a
    standard deviation of one cell, and of 0.1 in colour. Every size of photo is
    compiled separately.

    Args:
        values: Maps on the patch grid.
        guide: The photo, RGB in [0, 1].
        spatial_variance: Positive, in squared cells.
        range_variance: Positive, in squared RGB distance.

    Returns:
        Float32 maps at the size of the photo.

    Raises:
        ValueError: A variance is not positive, or the guide is not floating.
    """
    table = _disc(guide, values, spatial_variance, range_variance)
    return _dense(values, guide, table, None, range_variance, reduce=keep_maps)


def dense_bilateral_labels(
    values: Float[Array, "classes h w"],
    guide: Float[Array | np.ndarray, "height width 3"],
    active: Bool[Array, " classes"] | None = None,
    *,
    spatial_variance: float = 2.0,
    range_variance: float = 0.02,
) -> PixelLabels:
    """Labels of ``dense_bilateral_upsample``.

    Args:
        values: Maps on the patch grid.
        guide: The photo, RGB in [0, 1].
        active: Classes that may win; default: all.
        spatial_variance: As in ``dense_bilateral_upsample``.
        range_variance: As in ``dense_bilateral_upsample``.

    Returns:
        ``[height width]`` labels and ties. Memory: the enlarged values of all classes
        are held once.

    Raises:
        ValueError: As in ``dense_bilateral_upsample``.
    """
    table = _disc(guide, values, spatial_variance, range_variance)
    return _dense(values, guide, table, active, range_variance, reduce=keep_labels)


def _disc(
    guide: Shaped[Array | np.ndarray, "height width 3"],
    values: Float[Array, "classes h w"],
    variance: float,
    range_variance: float,
) -> Float[np.ndarray, "window_y window_x tile_y tile_x"]:
    """Spatial weights between the pixels of a tile and those of its window.

    Raises:
        ValueError: A variance is not positive, or the guide is not floating.
    """
    check_guide(guide)
    if variance <= 0 or range_variance <= 0:
        raise ValueError(
            "variances must be positive, got "
            f"spatial_variance={variance}, range_variance={range_variance}"
        )
    limit = 4.5 * variance  # three standard deviations, squared; variance = 2 sigma^2
    squares = []
    for length, cells in zip(guide.shape[:2], values.shape[1:], strict=True):
        reach = int(np.sqrt(limit) * length / cells + 1e-9)
        around = np.arange(-reach, _TILE + reach)
        away = (around[:, None] - np.arange(_TILE)) * cells / length
        squares.append(away**2)
    distance = squares[0][:, None, :, None] + squares[1][None, :, None, :]
    # A pixel exactly on the rim belongs to the disc, whatever the rounding.
    inside = distance <= limit * (1 + 1e-9)
    return np.where(inside, np.exp(-distance / variance), 0).astype(np.float32)


@partial(jax.jit, static_argnames=("reduce",))
def _dense(
    values: Float[Array, "classes h w"],
    guide: Float[Array | np.ndarray, "height width 3"],
    table: Float[Array | np.ndarray, "window_y window_x tile_y tile_x"],
    active: Bool[Array, " classes"] | None,
    range_variance: ArrayLike,
    *,
    reduce: Reduction,
):
    """Average the pixels of a window, for one tile of pixels at a time.

    Several tiles share a batched matrix product. Arrays have the classes first and the
    pixels last, because that order is fast on a CPU.
    """
    height, width, _ = guide.shape
    window = table.shape[:2]
    reach = tuple((length - _TILE) // 2 for length in window)
    tiles = (-(-height // _TILE), -(-width // _TILE))
    border = tuple(
        (reach[axis], reach[axis] + tiles[axis] * _TILE - guide.shape[axis])
        for axis in (0, 1)
    )
    maps = resize(values.astype(jnp.float32), (height, width))
    maps = jnp.concatenate([maps, jnp.ones((1, height, width), jnp.float32)])
    maps = jnp.pad(maps, ((0, 0), *border))
    colors = jnp.pad(guide.astype(jnp.float32), (*border, (0, 0))).transpose(2, 0, 1)
    spatial = table.reshape(-1, _TILE * _TILE)

    def tile(index):
        y, x = _TILE * (index // tiles[1]), _TILE * (index % tiles[1])
        zero = jnp.int32(0)  # a Python 0 would become int64 in double precision mode
        near = lax.dynamic_slice(maps, (zero, y, x), (maps.shape[0], *window))
        around = lax.dynamic_slice(colors, (zero, y, x), (3, *window))
        own = lax.dynamic_slice(
            colors, (zero, y + reach[0], x + reach[1]), (3, _TILE, _TILE)
        )
        red, green, blue = around.reshape(3, -1, 1) - own.reshape(3, 1, -1)
        # The sum is written out, because a sum over the channel axis takes ten times as
        # long on a CPU.
        change = red**2 + green**2 + blue**2
        weights = spatial * jnp.exp(-change / range_variance)
        near = near.reshape(maps.shape[0], -1)
        sums = jnp.einsum("ct,tp->cp", near, weights, precision=lax.Precision.HIGHEST)
        # The weight of a pixel for itself is 1, so only a pixel beyond the edge of the
        # photo can have a smaller sum.
        return reduce(sums[:-1] / jnp.maximum(sums[-1:], 1), active)

    count = tiles[0] * tiles[1]
    per_step = max(1, min(_TILES_PER_STEP, count, _WEIGHTS_PER_STEP // table.size))
    steps = -(-count // per_step)
    # Tiles after the last one would be slices beyond the edge; ``dynamic_slice`` moves
    # them inside it, and ``place`` drops them.
    order = jnp.arange(steps * per_step, dtype=jnp.int32).reshape(steps, per_step)
    done = lax.map(jax.vmap(tile), order)

    def place(x):
        rows = x.reshape(-1, *x.shape[2:])[:count].reshape(*tiles, *x.shape[2:])
        rows = by_rows(rows, (_TILE, _TILE))
        image = rows.reshape(*rows.shape[:-4], tiles[0] * _TILE, tiles[1] * _TILE)
        return image[..., :height, :width]

    return jax.tree.map(place, done)
