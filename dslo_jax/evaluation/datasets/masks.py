"""Truth as integers in image files, and what the integers mean."""

from pathlib import Path

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image

from dslo_jax.errors import ImageError
from dslo_jax.evaluation.metrics import IGNORE
from dslo_jax.files import atomic_file
from dslo_jax.images import MAX_PIXELS, read_label_ids


PLAIN = np.arange(256, dtype=np.uint8)
"""Class of each stored value where the values are the classes."""

ZERO_REDUCED = np.array([IGNORE, *range(254), IGNORE], np.uint8)
"""Class of each stored value where 0 is ignored and class c is stored as c + 1.

The order of mmsegmentation: 0 becomes 255, everything sinks by 1, and 254 becomes 255
again. So 0 and 255 are both ignored, and a stored 254 is class 253.
"""

# Levels that a drawing of two to five classes is painted with, in 8 or 16 bits.
_SHADES = frozenset([0, 63, 64, 85, 127, 128, 170, 191, 192, 254, 255, 65535])


def read_truth(
    path: Path,
    table: UInt8[np.ndarray, " 256"],
    num_classes: int,
    *,
    max_pixels: int = MAX_PIXELS,
) -> UInt8[np.ndarray, "height width"]:
    """Read a mask as labels.

    Args:
        path: A palette or grey image, as for ``read_label_ids``.
        table: Class of each stored value, or 255: ``PLAIN`` or ``ZERO_REDUCED``.
        num_classes: Number of classes.
        max_pixels: Greatest number of pixels.

    Returns:
        Labels from 0 to ``num_classes - 1``, or 255 where the pixel is ignored.

    Raises:
        ImageError: As for ``read_label_ids``, or a value stands for no class (``I09``).
    """
    values = read_label_ids(path, max_pixels=max_pixels)
    known = (table < num_classes) | (table == IGNORE)
    check_values(values, known, path)
    return table[values]


def check_values(
    values: Integer[np.ndarray, "height width"], known: np.ndarray, path: Path
) -> None:
    """Raise ``ImageError`` (``I09``) unless every stored value is a known one.

    Args:
        values: As stored in the file.
        known: For each of the 256 values whether it may occur.
        path: The file, for the message.
    """
    found = present_values(values)
    wrong = [value for value in found if value > 255 or not known[value]]
    if wrong:
        raise ImageError(
            "I09",
            f"{str(path)!r} holds the value {wrong[0]}, expected {_ranges(known)}"
            f"{_guess(found)}",
        )


def present_values(values: Integer[np.ndarray, "height width"]) -> list[int]:
    """The values that occur, in ascending order."""
    return np.flatnonzero(np.bincount(values.ravel())).tolist()


def write_mask(path: Path, labels: UInt8[np.ndarray, "height width"]) -> bool:
    """Write labels as a grey PNG, whole or not at all.

    Args:
        path: The file; one that is there already must hold the same labels.
        labels: What to write.

    Returns:
        Whether the file was written; False if it was there.

    Raises:
        ImageError: The file is there and no mask (``I02`` to ``I07``), or holds other
            labels (``I09``); it is left as it is.
        OSError: The disk refuses.
    """
    if path.exists():
        if not np.array_equal(read_label_ids(path), labels):
            raise ImageError(
                "I09",
                f"{str(path)!r} is there already and holds other labels than the ones "
                "to be written; move it away, or keep it and convert nothing",
            )
        return False
    with atomic_file(path) as file:
        Image.fromarray(labels).save(file, "PNG")
    return True


def _ranges(known: np.ndarray) -> str:
    """Known values in words: ``0 to 20 or 255``."""
    edges = np.flatnonzero(np.diff(np.pad(known.astype(np.int8), 1)))
    spans = [(first, end - 1) for first, end in edges.reshape(-1, 2)]
    words = [f"{a} to {b}" if b > a else f"{a}" for a, b in spans]
    return " or ".join(words)


def _guess(found: list[int]) -> str:
    """What may have gone wrong with values that stand for no class."""
    if len(found) > 1 and set(found) <= _SHADES:
        return "; these seem to be shades of a drawing: save ids instead, as 0, 1, 2"
    return ""
