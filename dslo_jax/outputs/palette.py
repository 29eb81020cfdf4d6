"""Colours of classes, chosen by their names, for overlays, pages and label maps."""

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8

from dslo_jax.outputs.natural_colours import NATURAL_COLOURS


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

    A thing of ``NATURAL_COLOURS`` has its own colour; of two names for one thing, such
    as "sea" and "ocean", one has it. For every other name a hash of the name, in lower
    case, chooses a hue, one of five lightnesses and one of two chromas in OKLCH. A name
    usually has the same colour in every list. Where a colour of a hash would be too
    close to another one, the name with the greater hash takes the next colour of a
    fixed sequence, so the order of a list has no influence. Distances are measured in
    Oklab, where the red-green axis has the weight 0.4.

    Args:
        names: Class names.

    Returns:
        sRGB colours, 0 to 255, in the order of ``names``.
    """
    keys = [_key(name) for name in names]
    hashes = [_hash(key) for key in keys]
    order = sorted(range(len(names)), key=lambda i: (hashes[i], names[i]))
    colours = np.zeros((len(names), 3), np.uint8)
    natural = _with_own_colour(keys, order)
    for index in natural:
        colours[index] = NATURAL_COLOURS[keys[index]]
    chosen = _to_lab(colours[natural] / 255)
    wanted = _wanted_distance(len(names))
    for index in order:
        if index not in natural:
            candidates = _candidates(hashes[index])
            gaps = (candidates[:, None] - chosen[None]) * _AXIS_WEIGHTS
            nearest = np.linalg.norm(gaps, axis=-1).min(axis=1, initial=np.inf)
            free = nearest >= wanted
            lab = candidates[np.argmax(free if free.any() else nearest)]
            chosen = np.concatenate([chosen, lab[None]])
            colours[index] = np.rint(_to_rgb(lab[None])[0] * 255)
    return colours


def hex_colours(names: Sequence[str]) -> tuple[str, ...]:
    """The colours of ``palette`` as text, such as ``"#939e3e"``.

    Args:
        names: Class names.
    """
    return tuple(f"#{bytes(colour).hex()}" for colour in palette(names))


def _key(name: str) -> str:
    return name.strip().casefold()


def _hash(key: str) -> int:
    text = key.encode("utf-8", "backslashreplace")
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big")


def _with_own_colour(keys: Sequence[str], order: Sequence[int]) -> list[int]:
    """The positions of names with a natural colour, each colour once."""
    first = {}
    for index in order:
        if keys[index] in NATURAL_COLOURS:
            first.setdefault(NATURAL_COLOURS[keys[index]], index)
    return list(first.values())


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


def _to_lab(rgb: Float[np.ndarray, "colours 3"]) -> Float[np.ndarray, "colours 3"]:
    """SRGB in [0, 1] to Oklab."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    cones = np.maximum(linear @ np.linalg.inv(_CONES_TO_RGB).T, 0)
    return np.cbrt(cones) @ np.linalg.inv(_LAB_TO_CONES).T


def _linear_rgb(lab: Float[np.ndarray, "colours 3"]) -> Float[np.ndarray, "colours 3"]:
    return (lab @ _LAB_TO_CONES.T) ** 3 @ _CONES_TO_RGB.T


def _to_rgb(lab: Float[np.ndarray, "colours 3"]) -> Float[np.ndarray, "colours 3"]:
    """Oklab to sRGB in [0, 1], with the sRGB transfer curve (IEC 61966-2-1)."""
    linear = np.clip(_linear_rgb(lab), 0, 1)
    return np.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055
    )
