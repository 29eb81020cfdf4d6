"""Attention, sources, maps, photos, queries and keys, drawn from a seed."""

import math

import numpy as np
from jaxtyping import Float


CELL = 8
"""Pixels of a patch along each side."""

LAYERS, HEADS, CHANNELS = 2, 5, 64
"""Numbers of layers, of heads of a layer, and of channels of a head, as in the
self-attentions of Stable Diffusion 2 that are averaged."""

_ROWS = 256  # rows that are drawn at once; all rows of 16384 patches would take 10 GB


def draw_affinity(
    patches: int, seed: int = 0
) -> Float[np.ndarray, "{patches} {patches}"]:
    """Draw an affinity like attention: five regions, locality, and noise.

    Args:
        patches: Number of patches; a square number.
        seed: Seed of the scene.

    Returns:
        The affinity in float32; rows sum to 1.

    Memory:
        64 MiB at 4096 patches, 1 GiB at 16384, and a few blocks of rows.

    Raises:
        ValueError: ``patches`` is not a square number.
    """
    rng = np.random.default_rng(seed)
    side = math.isqrt(patches)
    if side * side != patches or not patches:
        raise ValueError(f"`patches` is {patches}, expected a square number")
    place = np.stack(np.divmod(np.arange(patches), side), axis=1) / side
    centres = rng.uniform(0, 1, (5, 2))
    region = ((place[:, None] - centres[None]) ** 2).sum(axis=2).argmin(axis=1)
    affinity = np.empty((patches, patches), np.float32)
    for first in range(0, patches, _ROWS):
        rows = np.arange(first, min(first + _ROWS, patches))
        distance = ((place[rows, None] - place[None]) ** 2).sum(axis=2)
        logits = 3 * (region[rows, None] == region[None]) - 12 * distance
        logits += rng.normal(size=logits.shape)
        logits[np.arange(len(rows)), rows] += 2
        weights = np.exp(logits)
        affinity[rows] = weights / weights.sum(axis=1, keepdims=True)
    return affinity


def draw_affinities(
    patches: int, images: int
) -> Float[np.ndarray, "{images} {patches} {patches}"]:
    """Draw an affinity for each image, with the seeds 0, 1, ... (``draw_affinity``)."""
    return np.stack([draw_affinity(patches, seed) for seed in range(images)])


def draw_source(
    patches: int, classes: int, seed: int = 0
) -> Float[np.ndarray, "{classes} {patches}"]:
    """Draw class distributions as they are after suppression.

    15 % of the patches have mass in one class, and every class has mass in at least one
    patch.

    Args:
        patches: Number of patches.
        classes: Number of classes.
        seed: Seed of the scene.

    Returns:
        The distributions in float32; rows sum to 1.
    """
    rng = np.random.default_rng((seed, classes))
    owner = rng.integers(0, classes, patches)
    owner[rng.uniform(size=patches) > 0.15] = -1
    keep = owner[None] == np.arange(classes)[:, None]
    keep[np.arange(classes), rng.integers(0, patches, classes)] = True
    source = rng.uniform(0.5, 1.5, (classes, patches)) * keep
    source /= source.sum(axis=1, keepdims=True)
    return source.astype(np.float32)


def draw_maps(
    patches: int, classes: int, *, images: int = 1, seed: int = 0
) -> tuple[
    Float[np.ndarray, "{images} {classes} h w"],
    Float[np.ndarray, "{images} height width 3"],
]:
    """Draw maps of the classes on the patches, and photos for their upsampling.

    Args:
        patches: Number of patches; a square number.
        classes: Number of classes.
        images: Number of images.
        seed: Seed of maps and photos.

    Returns:
        Noise in [0, 1], in float32; a patch has ``CELL`` x ``CELL`` pixels.
    """
    rng = np.random.default_rng(seed)
    side = math.isqrt(patches)
    maps = rng.random((images, classes, side, side), np.float32)
    return maps, rng.random((images, CELL * side, CELL * side, 3), np.float32)


def draw_queries_keys(
    patches: int, *, images: int = 1, seed: int = 0
) -> Float[np.ndarray, "2 layers {images} {patches} heads channels"]:
    """Draw queries and keys of ``LAYERS`` layers: normal noise in float32.

    Args:
        patches: Number of patches.
        images: Number of images.
        seed: Seed of the noise.
    """
    rng = np.random.default_rng(seed)
    shape = (2, LAYERS, images, patches, HEADS, CHANNELS)
    return rng.normal(size=shape).astype(np.float32)
