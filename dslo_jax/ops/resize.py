"""Resampling as in the original implementations, as two small matrix products.

Resampling is separable and linear, so each axis has a weight matrix that depends only
on the two lengths. The matrices are computed on the host in float64. The published CLIP
results were computed with a cubic kernel of a = -0.75, without antialiasing, and with a
step that is slightly too large; no general-purpose resize does that.
"""

from types import ModuleType
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int


Method = Literal["bilinear", "bicubic", "area"]

_CUBIC = -0.75  # the free parameter of the cubic convolution kernel


def resize_weights(
    length: int, size: int, method: Method = "bilinear", *, step: float | None = None
) -> Float[np.ndarray, "size length"]:
    """Weights that resample one axis: ``resampled = weights @ samples``.

    Pixel centres lie at half-integers (``align_corners=False``), samples beyond the
    edge repeat the edge, and nothing is antialiased. Every row sums to 1.

    Args:
        length: Number of given samples.
        size: Number of samples wanted.
        method: ``"bilinear"``; ``"bicubic"`` with a = -0.75; ``"area"``, the exact mean
            of the samples under each wanted one, fractions of samples included.
        step: Distance between two wanted samples, in samples; default: ``length /
            size``. The cell of the first wanted sample begins at the edge.

    Returns:
        Float32 weights.

    Raises:
        ValueError: A length is not positive, or the method is unknown.
    """
    if length < 1 or size < 1:
        raise ValueError(
            f"length and size must be at least 1, got length={length}, size={size}"
        )
    step = length / size if step is None else step
    if method == "area":
        return _area_weights(length, size, step).astype(np.float32)
    if method not in ("bilinear", "bicubic"):
        raise ValueError(
            f"unknown method {method!r}; expected 'bilinear', 'bicubic' or 'area'"
        )
    positions = (np.arange(size) + 0.5) * step - 0.5
    first = np.floor(positions).astype(int)
    weights = np.zeros((size, length))
    for tap in (0, 1) if method == "bilinear" else (-1, 0, 1, 2):
        distances = np.abs(positions - (first + tap))
        column = np.clip(first + tap, 0, length - 1)
        kernel = 1 - distances if method == "bilinear" else _cubic(distances)
        # Taps beyond the edge share the edge's column: add, never assign.
        np.add.at(weights, (np.arange(size), column), kernel)
    return weights.astype(np.float32)


def resize(
    values: Float[Array, "*shape"],
    size: tuple[int, int],
    method: Method = "bilinear",
    *,
    axes: tuple[int, int] = (-2, -1),
) -> Float[Array, "*resized"]:
    """Resample two axes of an array.

    Args:
        values: Any array; computed in float32, returned in its own type.
        size: Wanted lengths of the two axes.
        method: As in ``resize_weights``.
        axes: The axes of height and width: the last two for ``[classes height width]``,
            ``(-3, -2)`` for channels-last arrays.

    Returns:
        The array with the two axes resampled.

    Raises:
        ValueError: As in ``resize_weights``.
    """
    resampled = values.astype(jnp.float32)
    for axis, wanted in zip(axes, size, strict=True):
        weights = resize_weights(values.shape[axis], wanted, method)
        resampled = _resample(resampled, weights, axis)
    return resampled.astype(values.dtype)


def resize_positions(
    embeddings: Float[Array, "native_height native_width channels"],
    size: tuple[int, int],
    *,
    offset: float = 0.1,
) -> Float[Array, "height width channels"]:
    """Fit learned position embeddings to another grid.

    Bicubic, as in the CLIP and DINO families: the grid is enlarged by
    ``(wanted + offset) / native`` and then cut to the wanted size. The offset was meant
    to protect from rounding; it shifts every position slightly.

    Args:
        embeddings: Embeddings of the native grid, class token left out.
        size: Wanted ``(height, width)`` of the grid.
        offset: 0.1 for CLIP and DINO; 0 samples the grid evenly.

    Returns:
        Embeddings of the wanted grid; at the native size, the native ones unchanged.

    Raises:
        ValueError: A wanted length is not positive.
    """
    if embeddings.shape[:2] == tuple(size):
        return embeddings
    resampled = embeddings.astype(jnp.float32)
    for axis, (native, wanted) in enumerate(
        zip(embeddings.shape[:2], size, strict=True)
    ):
        weights = resize_weights(
            native, wanted, "bicubic", step=native / (wanted + offset)
        )
        resampled = _resample(resampled, weights, axis)
    return resampled.astype(embeddings.dtype)


def position_weights(
    place: Int[Array, "*places"],
    length: Int[Array, "*lengths"],
    native: int,
    *,
    tenths: Int[Array, "*lengths"] | int = 1,
) -> Float[Array, "*places native"]:
    """Weights of ``resize_positions`` along one axis, of a grid that may be traced.

    The position of a sample is a fraction of two integers, so it is split into its
    whole part and the rest without rounding.

    Args:
        place: Index of every wanted sample, from 0 to ``length - 1``.
        length: Length of the wanted axis.
        native: Length of the native axis.
        tenths: The offset of ``resize_positions``, in tenths.

    Returns:
        Float32 weights of the native samples; they sum to 1.
    """
    divisor = 2 * (10 * length + tenths)
    position = (2 * place + 1) * (10 * native) - (10 * length + tenths)
    whole, rest = jnp.divmod(position, divisor)
    share = rest.astype(jnp.float32) / divisor.astype(jnp.float32)
    native_place = jnp.arange(native, dtype=place.dtype)
    native_place = jnp.expand_dims(native_place, range(place.ndim))
    weights = jnp.zeros((*place.shape, native), jnp.float32)
    for tap in (-1, 0, 1, 2):
        is_tap = jnp.clip(whole + tap, 0, native - 1)[..., None] == native_place
        kernel = _cubic(jnp.abs(share - tap), jnp)
        weights += jnp.where(is_tap, kernel[..., None], 0)
    return weights


def antialiased_weights(
    place: Int[Array, "*places"], length: Int[Array, "*lengths"], native: int
) -> Float[Array, "*places native"]:
    """Weights of ``jax.image.resize(..., "cubic")`` along one axis that may be traced.

    The cubic kernel with a = -0.5, stretched where the axis shrinks. At the native
    length they leave the samples unchanged.

    Args:
        place: Index of every wanted sample, from 0 to ``length - 1``.
        length: Length of the wanted axis.
        native: Length of the native axis.

    Returns:
        Float32 weights of the native samples; they sum to 1.
    """
    step = native / length.astype(jnp.float32)
    centre = ((place.astype(jnp.float32) + 0.5) * step - 0.5)[..., None]
    sample = jnp.expand_dims(jnp.arange(native, dtype=jnp.float32), range(place.ndim))
    distance = jnp.abs(centre - sample)
    distance = distance / jnp.maximum(step, 1)[..., None]
    weights = jnp.where(distance < 2, _cubic(distance, jnp, a=-0.5), 0)
    return weights / weights.sum(axis=-1, keepdims=True)


def _resample(
    values: Float[Array, "*shape"], weights: Float[np.ndarray, "size length"], axis: int
) -> Float[Array, "*resized"]:
    moved = jnp.tensordot(
        weights, values, axes=((1,), (axis,)), precision=lax.Precision.HIGHEST
    )
    return jnp.moveaxis(moved, 0, axis)


def _cubic(
    distances: np.ndarray | Array, numpy: ModuleType = np, *, a: float = _CUBIC
) -> np.ndarray | Array:
    """Cubic convolution kernel for distances from 0 to 2 samples."""
    x = distances
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return numpy.where(x <= 1, near, far)


def _area_weights(length: int, size: int, step: float) -> np.ndarray:
    """Share of every sample in the cell ``[i * step, (i + 1) * step)``."""
    starts = np.arange(size)[:, None] * step
    samples = np.arange(length)
    overlap = np.minimum(starts + step, samples + 1) - np.maximum(starts, samples)
    return np.maximum(overlap, 0) / step
