"""Colours of classes, chosen by their names, for overlays, pages and label maps."""

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8


_LIGHTNESS = np.linspace(0.46, 0.88, 5)
_CHROMA = np.array([0.18, 0.12])
_GOLDEN_ANGLE = np.pi * (3 - np.sqrt(5))
_CANDIDATES = 64
# Oklab (Björn Ottosson, 2020): Oklab to cone responses, and those to linear sRGB.
_LAB_TO_CONES = np.array(
    [
        [1.0, 0.3963377774, 0.2158037573],
        [1.0, -0.1055613458, -0.0638541728],
        [1.0, -0.0894841775, -1.2914855480],
    ]
)
_CONES_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)
# Most colour-blind people cannot tell red from green, so this axis counts for less.
_AXIS_WEIGHTS = np.array([1.0, 0.4, 1.0])


def palette(names: Sequence[str]) -> UInt8[np.ndarray, "classes 3"]:
    """A colour for each class, chosen by its name.

    A hash of the name, in lower case, chooses a hue, one of five lightnesses and one of
    two chromas in OKLCH. A name usually has the same colour in every list. Where two
    colours of a list would be too close, the name with the greater hash takes the next
    colour of a fixed sequence, so the order of a list has no influence. Distances are
    measured in Oklab, where the red-green axis has the weight 0.4.

    Args:
        names: Class names.

    Returns:
        sRGB colours, 0 to 255, in the order of ``names``.
    """
    hashes = [_hash(name) for name in names]
    wanted = _wanted_distance(len(names))
    chosen = np.zeros((0, 3))
    labs = np.zeros((len(names), 3))
    for index in sorted(range(len(names)), key=lambda i: (hashes[i], names[i])):
        candidates = _candidates(hashes[index])
        gaps = (candidates[:, None] - chosen[None]) * _AXIS_WEIGHTS
        nearest = np.linalg.norm(gaps, axis=-1).min(axis=1, initial=np.inf)
        free = nearest >= wanted
        labs[index] = candidates[np.argmax(free if free.any() else nearest)]
        chosen = np.concatenate([chosen, labs[index : index + 1]])
    return np.rint(_to_rgb(labs) * 255).astype(np.uint8)


def hex_colours(names: Sequence[str]) -> tuple[str, ...]:
    """The colours of ``palette`` as text, such as ``"#939e3e"``.

    Args:
        names: Class names.
    """
    return tuple(f"#{bytes(colour).hex()}" for colour in palette(names))


def _hash(name: str) -> int:
    text = name.strip().casefold().encode("utf-8", "backslashreplace")
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big")


def _wanted_distance(num_classes: int) -> float:
    """Smallest distance between two colours of a list.

    With a greater distance, classes are easier to tell apart, and more names lose the
    colour of their hash. With this one, three in four names keep it in random lists of
    8, two in three in lists of 21, and one in two in lists of 60.
    """
    return 0.08 / max(num_classes / 8, 1) ** 0.5


def _candidates(hashed: int) -> Float[np.ndarray, "candidates 3"]:
    """Colours in Oklab that a name may have, first that of its hash."""
    step = np.arange(_CANDIDATES)
    hue = 2 * np.pi * (hashed % 2**32) / 2**32 + _GOLDEN_ANGLE * step
    place, shade = divmod(hashed >> 32, len(_LIGHTNESS))
    lightness = _LIGHTNESS[(shade + 2 * step) % len(_LIGHTNESS)]
    chroma = _CHROMA[(place + step // len(_LIGHTNESS)) % len(_CHROMA)]
    for _ in range(12):  # towards grey, until sRGB contains the colour
        lab = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=-1)
        rgb = _linear_rgb(lab)
        outside = (rgb < 0).any(axis=-1) | (rgb > 1).any(axis=-1)
        chroma = np.where(outside, 0.9 * chroma, chroma)
    return lab


def _linear_rgb(lab: Float[np.ndarray, "colours 3"]) -> Float[np.ndarray, "colours 3"]:
    return (lab @ _LAB_TO_CONES.T) ** 3 @ _CONES_TO_RGB.T


def _to_rgb(lab: Float[np.ndarray, "colours 3"]) -> Float[np.ndarray, "colours 3"]:
    """Oklab to sRGB in [0, 1], with the sRGB transfer curve (IEC 61966-2-1)."""
    linear = np.clip(_linear_rgb(lab), 0, 1)
    return np.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055
    )
