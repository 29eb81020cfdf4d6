"""Labels of pixels, and ties between classes, from maps."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32


class PixelLabels(NamedTuple):
    """The best class of every pixel, or of every slot of a ``CellLayout``.

    Args:
        labels: Row of the highest value among the active classes; the lowest such row
            where several share it.
        tied: Whether several share it.
    """

    labels: Int32[Array | np.ndarray, "*pixels"]
    tied: Bool[Array | np.ndarray, "*pixels"]


# A function of the maps of one cell or tile, called before the next ones are computed.
Reduction = Callable[
    [Float[Array, "classes pixels"], Bool[Array, " classes"] | None],
    Array | PixelLabels,
]


def keep_maps(
    maps: Float[Array, "classes pixels"], active: Bool[Array, " classes"] | None
) -> Float[Array, "classes pixels"]:
    """Keep the maps of all classes.

    Args:
        maps: Values of every class.
        active: Not used.

    Returns:
        The maps.
    """
    return maps


def keep_labels(
    maps: Float[Array, "classes pixels"], active: Bool[Array, " classes"] | None
) -> PixelLabels:
    """Keep the best class of each pixel.

    Two plain reductions are used instead of ``jnp.argmax``: they are vectorised, and
    the comparison between them also finds the ties.

    Args:
        maps: Values of every class.
        active: Classes that may win; all if None.

    Returns:
        Labels and ties of every pixel.
    """
    if active is not None:
        maps = jnp.where(active[:, None], maps, -jnp.inf)
    num_classes = maps.shape[0]
    best = maps == maps.max(axis=0, keepdims=True)
    index = jnp.arange(num_classes, dtype=jnp.int32)[:, None]
    return PixelLabels(
        labels=jnp.where(best, index, num_classes).min(axis=0),
        tied=jnp.sum(best, axis=0) > 1,
    )
