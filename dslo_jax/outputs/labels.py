"""Label maps, one class id per pixel: encoding and reading."""

import io
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int32, Integer, UInt
from PIL import Image

from dslo_jax.errors import ClassListError
from dslo_jax.files import atomic_file
from dslo_jax.images.label_ids import read_label_ids
from dslo_jax.outputs.palette import palette


MAX_CLASSES = 65536


def encode_labels(
    labels: Integer[np.ndarray, "height width"], num_classes: int
) -> bytes:
    """Encode a label map as a grey PNG whose pixel values are the class ids.

    Every program that reads PNG files finds the ids, because the file has no palette.
    Up to 256 classes have 8 bits, more have 16.

    Args:
        labels: Class ids, 0 to ``num_classes - 1``.
        num_classes: Number of classes, at most 65536.

    Returns:
        The content of a PNG file.

    Raises:
        ClassListError: There are too many classes for a PNG (``C09``).
        ValueError: A label is not the id of a class.
    """
    return encode_png(Image.fromarray(_smallest(labels, num_classes)))


def encode_coloured(
    labels: Integer[np.ndarray, "height width"], names: Sequence[str]
) -> bytes:
    """Encode a label map as a PNG in the colours of the overlay, to be looked at.

    Args:
        labels: Class ids, 0 to ``len(names) - 1``.
        names: Class names, which have the colours of ``palette``.

    Returns:
        The content of a PNG file. Up to 256 classes are a palette, whose indices are
        the class ids; with more, the file holds colours alone.

    Raises:
        ClassListError: There are too many classes for a PNG (``C09``).
        ValueError: A label is not the id of a class.
    """
    ids, colours = _smallest(labels, len(names)), palette(names)
    if ids.dtype != np.uint8:
        return encode_png(Image.fromarray(colours[ids]))
    image = Image.fromarray(ids)
    image.putpalette(colours.tobytes())
    return encode_png(image)


def save_labels(
    path: str | os.PathLike[str],
    labels: Integer[np.ndarray, "height width"],
    num_classes: int,
) -> None:
    """Write the PNG of ``encode_labels``, whole or not at all.

    Args:
        path: The PNG to write.
        labels: Class ids, 0 to ``num_classes - 1``.
        num_classes: Number of classes, at most 65536.

    Raises:
        ClassListError: There are too many classes for a PNG (``C09``).
        ValueError: A label is not the id of a class.
        OSError: The file cannot be written.
    """
    content = encode_labels(labels, num_classes)
    with atomic_file(path) as file:
        file.write(content)


def read_labels(path: str | os.PathLike[str]) -> Int32[np.ndarray, "height width"]:
    """Read the class ids of a label map.

    Args:
        path: As for ``images.read_label_ids``.

    Returns:
        The class ids.

    Raises:
        ImageError: The file is missing (``I01``), not an image or damaged (``I02`` to
            ``I05``), or holds colours instead of ids (``I07``).
    """
    return read_label_ids(Path(path)).astype(np.int32)


def _smallest(
    labels: Integer[np.ndarray, "height width"], num_classes: int
) -> UInt[np.ndarray, "height width"]:
    """The labels in the smallest type that a PNG has for them."""
    if num_classes > MAX_CLASSES:
        raise ClassListError(
            "C09",
            f"{num_classes} classes do not fit a PNG, which holds {MAX_CLASSES}; "
            "shorten the list",
        )
    check_labels(labels, num_classes)
    return labels.astype(np.uint8 if num_classes <= 256 else np.uint16)


def encode_png(image: Image.Image) -> bytes:
    """Encode a picture as PNG.

    Run lengths alone (``Z_RLE``) make label maps and overlays smaller than the default
    search for repetitions does, and are faster.

    Args:
        image: In any mode of PNG.

    Returns:
        The content of a PNG file.
    """
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1, compress_type=zlib.Z_RLE)
    return buffer.getvalue()


def check_labels(labels: np.ndarray, num_classes: int) -> None:
    """Raise ``ValueError`` unless every label is the id of a class."""
    if labels.size and (labels.min() < 0 or labels.max() >= num_classes):
        raise ValueError(
            f"`labels` run from {labels.min()} to {labels.max()}, expected ids from 0 "
            f"to {num_classes - 1}"
        )
