"""Patches beside a patch, where the grid of every photo is data."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int32

from dslo_jax.models.dense_clip.variant import DenseInput


def neighbour(
    photos: DenseInput, step: tuple[int, int]
) -> tuple[Bool[Array, "#batch patches"], Int32[Array, "#batch patches"]]:
    """The patch that lies some rows and columns from each patch.

    Args:
        photos: Says where the patches lie.
        step: Rows and columns to go.

    Returns:
        Whether it is inside the photo, and its number; 0 where it is outside.
    """
    rows, columns = (
        place + shift for place, shift in zip(photos.places, step, strict=True)
    )
    height, width = photos.grid[:, :1], photos.grid[:, 1:]
    is_inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    return is_inside, jnp.where(is_inside, rows * width + columns, 0)
