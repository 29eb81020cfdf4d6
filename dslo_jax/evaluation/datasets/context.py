"""Labels of PASCAL Context, from the file of annotations that all of them share."""

import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import UInt8

from dslo_jax.errors import OptionError
from dslo_jax.outputs.rle import decode_runs


# The categories that the 59 classes are, in their order; 0 is none of them. They are
# those of mmsegmentation, tools/dataset_converters/pascal_context.py.
_CATEGORIES = (
    *(0, 2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80, 85, 98),
    *(104, 105, 113, 115, 144, 158, 159, 162, 187, 189, 207, 220, 232, 258, 259, 260),
    *(284, 295, 296, 308, 324, 326, 347, 349, 354, 355, 360, 366, 368, 397, 415, 416),
    *(420, 424, 427, 440, 445, 454, 458),
)


class ContextAnnotations:
    """The regions of PASCAL Context from ``trainval_merged.json``.

    The file is that of PASCAL in Detail: ``images`` with a size and the split they are
    of, and ``annos_segmentation`` with the category and the run lengths of one region
    each. A region covers those before it (zhanghang1989/detail-api).

    Args:
        path: The file. It takes several times its size in memory.
        split: Which images, ``"val"``.

    Raises:
        OptionError: The file is not what it should be (``O07``).
    """

    def __init__(self, path: Path, split: str):
        self._path = path
        self._images: dict[str, dict[str, Any]] = {}
        self._regions: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        with self._told():
            content = json.loads(path.read_bytes())
            for image in content["images"]:
                if image["phase"] == split:
                    self._images[PurePosixPath(image["file_name"]).stem] = image
            for region in content["annos_segmentation"]:
                self._regions[region["image_id"]].append(region)

    @property
    def names(self) -> list[str]:
        """The images of the split, sorted."""
        return sorted(self._images)

    def draw(self, name: str) -> UInt8[np.ndarray, "height width"]:
        """Labels of an image: 0 for none of the 59 classes, 1 to 59 for one of them.

        Raises:
            OptionError: As for the file.
        """
        with self._told():
            image = self._images[name]
            return _draw(image, self._regions[image["image_id"]])

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OptionError(
                "O07",
                f"{str(self._path)!r} is not the file of annotations of PASCAL in "
                f"Detail: {type(error).__name__}: {error}; download it again",
            ) from error


def _draw(image: dict[str, Any], regions: list[dict[str, Any]]) -> np.ndarray:
    labels = np.zeros((image["height"], image["width"]), np.uint8)
    for region in regions:
        category, counts = region["category_id"], region["segmentation"]["counts"]
        try:
            if category not in _CATEGORIES:
                raise ValueError("none of the 59 classes, nor 0")
            if not isinstance(counts, str):
                raise ValueError("expected run lengths as text")
            covered = decode_runs(counts, *labels.shape)
        except ValueError as error:
            raise ValueError(
                f"{image['file_name']}, a region of category {category}: {error}"
            ) from error
        labels[covered] = _CATEGORIES.index(category)
    return labels
