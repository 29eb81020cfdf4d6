"""Results as a folder in CVAT's format "Segmentation mask 1.1"."""

import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from dslo_jax.errors import OutputError
from dslo_jax.outputs.labels import encode_png
from dslo_jax.outputs.palette import palette
from dslo_jax.outputs.saved import SavedResult


_HEADER = "# label:color_rgb:parts:actions"
_BACKGROUND = "background"  # CVAT gives black pixels this name


def write_cvat(
    folder: Path, results: Iterable[SavedResult], classes: tuple[str, ...]
) -> None:
    """Write masks in the colours of ``labelmap.txt``, and the list of their names.

    CVAT finds the photo of a mask by its name without suffix. A zip of the folder can
    be uploaded as annotations of a task that has the photos and the labels.

    Args:
        folder: An empty folder.
        results: From ``read_results``.
        classes: The names of all classes of all results.

    Raises:
        OutputError: A class name cannot be written in ``labelmap.txt``, or two photos
            differ only in their suffix (``O06``).
    """
    colours = dict(zip(classes, palette(classes), strict=True))
    colours = {_BACKGROUND: np.zeros(3, np.uint8)} | colours
    colours[_BACKGROUND] = np.zeros(3, np.uint8)
    lines = [_HEADER, *(_line(name, colour) for name, colour in colours.items())]
    (folder / "labelmap.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    stems: dict[str, str] = {}
    for result in results:
        stem = PurePosixPath(result.name).with_suffix("").as_posix()
        if stem in stems:
            raise OutputError(
                "O06",
                f"{stems[stem]!r} and {result.name!r} are one photo to CVAT, which "
                "ignores the suffix; rename one of the photos",
            )
        stems[stem] = result.name
        table = np.stack([colours[name] for name in result.classes])
        path = folder / "SegmentationClass" / f"{stem}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(Image.fromarray(table[result.labels])))
    names = folder / "ImageSets" / "Segmentation" / "default.txt"
    names.parent.mkdir(parents=True)
    names.write_bytes(os.fsencode("".join(f"{stem}\n" for stem in stems)))


def _line(name: str, colour: np.ndarray) -> str:
    if ":" in name or name.startswith("#"):
        raise OutputError(
            "O06",
            f"the class {name!r} cannot be written for CVAT, whose labelmap.txt has no "
            "':' in a name and no '#' at its beginning; rename the class",
        )
    return f"{name}:{','.join(map(str, colour.tolist()))}::"
