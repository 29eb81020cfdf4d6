"""Photos and classes to measure with."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from dslo_jax import images, prompts, scenes
from dslo_jax.errors import OptionError


_COLOURS = (
    *("red", "orange", "yellow", "green", "blue", "purple", "white", "black", "grey"),
)
_VARIANTS = 4  # of a drawn scene: it, mirrored, upside down, both


def draw_photos(
    count: int, size: tuple[int, int]
) -> list[UInt8[np.ndarray, "height width 3"]]:
    """Draw distinct photos of one size; every fourth one is a scene of its own.

    Args:
        count: Number of photos.
        size: Height and width in pixels.

    Returns:
        Scenes with the seeds 0, 1, ..., each followed by its mirror images.
    """
    photos = []
    for seed in range(-(-count // _VARIANTS)):
        scene = scenes.draw_scene(seed, size=size).pixels
        photos += [scene, scene[:, ::-1], scene[::-1], scene[::-1, ::-1]]
    return [np.ascontiguousarray(photo) for photo in photos[:count]]


def read_photos(
    names: Sequence[str], count: int
) -> list[UInt8[np.ndarray, "height width 3"]]:
    """Read photos, at most ``count`` of them.

    Args:
        names: Photos, folders or glob patterns.
        count: Greatest number of photos.

    Raises:
        ImageError: A photo is missing or cannot be read.
    """
    found = images.find_photos(list(names), recursive=False)
    return [photo.read().pixels for photo in found[:count]]


def save_photos(photos: Sequence[np.ndarray], folder: Path) -> list[Path]:
    """Write photos as JPEG of quality 90; returns their paths."""
    from PIL import Image

    paths = [folder / f"{number:04}.jpg" for number in range(len(photos))]
    for path, photo in zip(paths, photos, strict=True):
        Image.fromarray(photo).save(path, quality=90)
    return paths


def choose_classes(count: int) -> prompts.ClassList:
    """A list of distinct classes: those of the drawn scenes, then each in nine colours.

    Args:
        count: Number of classes.

    Raises:
        OptionError: ``count`` is below 1 or above 200 (``O01``).
    """
    plain = [each.names for each in scenes.CLASSES]
    coloured = [(f"{colour} {name}",) for colour in _COLOURS for name, *_ in plain]
    known = [*plain, *coloured]
    if not 1 <= count <= len(known):
        raise OptionError("O01", f"--classes {count}; expected 1 to {len(known)}")
    return prompts.parse_classes(known[:count])
