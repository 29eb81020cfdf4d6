"""Weights of the neighbouring cells of pixels: bilateral (Eq. 23) or bilinear.

A weight is ``exp(-|a - f|^2)`` times a factor of the pixel: ``a`` is the neighbour and
``f`` the pixel, each as three colours and two places, divided by the square roots of
the variances. All that depends on the pixel alone cancels when weights are normalised,
so that ``2 a f - |a|^2`` is as good an exponent. That is a matrix product, which takes
two thirds of the time of the squared differences on a CPU.

The product rounds more: by some 1e-7 of ``|a| |f|``, where the squares round by 1e-7 of
``|a - f|^2``. So ``a`` and ``f`` begin at the mean colour and the centre of the pixel's
own cell, and variances below ``SMALL_VARIANCE`` take the squares.
"""

from typing import Literal

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float


Form = Literal["product", "squares", "hat"]

SMALL_VARIANCE = 0.01
"""From here on exponents stay so small that their rounding is below 1e-5."""

_OUTSIDE = -1e38
"""Exponent of a neighbour outside the grid: finite, because accelerators split numbers
into parts, and an infinite one would leave a NaN."""


def form_of(spatial_variance: float, range_variance: float) -> Form:
    """The form of bilateral weights that is accurate with these variances."""
    small = min(spatial_variance, range_variance) < SMALL_VARIANCE
    return "squares" if small else "product"


def steps(radius: int) -> Float[np.ndarray, "neighbours 2"]:
    """Rows and columns from a cell to its neighbours, row by row, itself included."""
    each = np.arange(-radius, radius + 1, dtype=np.float32)
    return np.stack(np.meshgrid(each, each, indexing="ij"), axis=-1).reshape(-1, 2)


def neighbour_weights(
    around: Float[Array, "*cells neighbours features"],
    inside: Bool[Array, "*cells neighbours"],
    own: Float[Array, "*cells features slots"],
    form: Form,
) -> Float[Array, "*cells neighbours slots"]:
    """Weights of the neighbours of every slot, not normalised.

    Args:
        around: Neighbours: colour and place divided by the square roots of the
            variances, for ``"hat"`` the place alone.
        inside: Whether a neighbour lies inside the grid.
        own: Slots, in the same terms.
        form: How to compute them.

    Returns:
        Weights from 0 to 1; 0 outside the grid. The greatest bilateral one is 1, so
        that a small variance does not make all of them 0.
    """
    if form == "hat":
        away = around[..., :, :, None] - own[..., None, :, :]
        down, right = jnp.moveaxis(jnp.maximum(0, 1 - jnp.abs(away)), -2, 0)
        return jnp.where(inside[..., None], down * right, 0)
    outside = jnp.where(inside, 0, jnp.float32(_OUTSIDE))[..., None]
    if form == "product":
        exponent = jnp.einsum(
            "...tk,...ks->...ts", 2 * around, own, precision=lax.Precision.HIGHEST
        )
        exponent += outside - jnp.sum(around**2, axis=-1, keepdims=True)
    else:
        exponent = outside
        for feature in range(around.shape[-1]):  # a last axis of 5 takes twice as long
            change = around[..., feature, None] - own[..., None, feature, :]
            exponent -= change**2
    return jnp.exp(exponent - exponent.max(axis=-2, keepdims=True))


def average(
    values: Float[Array, "*cells classes neighbours"],
    inside: Bool[Array, "*cells neighbours"],
    weights: Float[Array, "*cells neighbours slots"],
) -> Float[Array, "*cells classes slots"]:
    """Average the values of neighbours; a row of ones gives the sum of the weights."""
    ones = inside[..., None, :].astype(values.dtype)
    sums = jnp.einsum(
        "...ct,...ts->...cs",
        jnp.concatenate([values, ones], axis=-2),
        weights,
        precision=lax.Precision.HIGHEST,
    )
    return sums[..., :-1, :] / sums[..., -1:, :]
