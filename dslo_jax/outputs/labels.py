"""Label maps, one class id per pixel: saving, reading and areas of classes."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int32, Integer
from PIL import Image

from dslo_jax.errors import ClassListError, ImageError
from dslo_jax.images.formats import open_image
from dslo_jax.images.reading import no_such_path
from dslo_jax.outputs.files import atomic_file
from dslo_jax.outputs.palette import voc_palette


MAX_CLASSES = 65536


def save_labels(
    path: str | os.PathLike[str],
    labels: Integer[np.ndarray, "height width"],
    num_classes: int,
) -> None:
    """Save a label map as a PNG whose pixel values are the class ids.

    With up to 256 classes the PNG has 8 bits and the palette of PASCAL VOC; with more
    it is grey with 16 bits.

    Args:
        path: The PNG to write.
        labels: Class ids, 0 to ``num_classes - 1``.
        num_classes: Number of classes, at most 65536.

    Raises:
        ClassListError: There are too many classes for a PNG (``C09``).
        ValueError: A label is not the id of a class.
        OSError: The file cannot be written.
    """
    if num_classes > MAX_CLASSES:
        raise ClassListError(
            "C09",
            f"{num_classes} classes do not fit a PNG, which holds {MAX_CLASSES}; "
            "shorten the list",
        )
    check_labels(labels, num_classes)
    if num_classes <= 256:
        image = Image.fromarray(labels.astype(np.uint8))
        image.putpalette(voc_palette().tobytes())
    else:
        image = Image.fromarray(labels.astype(np.uint16))
    with atomic_file(path) as file:
        image.save(file, "PNG")


def read_labels(path: str | os.PathLike[str]) -> Int32[np.ndarray, "height width"]:
    """Read the class ids of a label map.

    Args:
        path: A palette or grey PNG of 8 or 16 bits.

    Returns:
        The class ids.

    Raises:
        ImageError: The file is missing (``I01``), not an image or damaged (``I02`` to
            ``I05``), or holds colours instead of ids (``I07``).
    """
    path = Path(path)
    if not path.is_file():
        raise no_such_path(path)
    with path.open("rb") as file:
        image = open_image(file, repr(str(path)))
        if image.format != "PNG" or image.mode not in ("P", "L", "I;16"):
            raise ImageError(
                "I07",
                f"{str(path)!r} is a {image.format} in mode {image.mode}, not class "
                "ids; expected a palette or grey PNG",
            )
        try:
            return np.asarray(image).astype(np.int32)
        except (OSError, SyntaxError, ValueError) as error:
            raise ImageError("I03", f"{str(path)!r} is damaged: {error}") from error


def class_areas(
    labels: Integer[np.ndarray, "height width"], names: Sequence[str]
) -> dict[str, float]:
    """Share of the photo that each class covers.

    Args:
        labels: Class ids, 0 to ``len(names) - 1``.
        names: Class names, each once.

    Returns:
        Name to share in [0, 1], in the order of ``names``; absent classes have 0.

    Raises:
        ValueError: A label is not the id of a class, or a name appears twice.
    """
    check_labels(labels, len(names))
    if len(set(names)) != len(names):
        raise ValueError(f"`names` holds a name twice: {list(names)}")
    counts = np.bincount(labels.ravel(), minlength=len(names))
    return {
        name: float(count) / labels.size
        for name, count in zip(names, counts, strict=True)
    }


def check_labels(labels: np.ndarray, num_classes: int) -> None:
    """Raise ``ValueError`` unless every label is the id of a class."""
    if labels.size and (labels.min() < 0 or labels.max() >= num_classes):
        raise ValueError(
            f"`labels` run from {labels.min()} to {labels.max()}, expected ids from 0 "
            f"to {num_classes - 1}"
        )
