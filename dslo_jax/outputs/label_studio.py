"""Results as tasks of Label Studio, with brush masks as predictions."""

from collections.abc import Iterable
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from jaxtyping import Bool

from dslo_jax.outputs.files import encode_json
from dslo_jax.outputs.palette import hex_colours
from dslo_jax.outputs.rle import run_lengths
from dslo_jax.outputs.saved import SavedResult


_TAG, _IMAGE = "tag", "image"  # the names in the template of Label Studio
_MAX_RUN = 2**16
_CHANNELS = 4  # Label Studio counts the values of RGBA pixels


def write_label_studio(
    folder: Path, results: Iterable[SavedResult], classes: tuple[str, ...]
) -> None:
    """Write ``tasks.json`` to be imported, and ``labels.xml`` to configure the project.

    The photos are expected in a local storage of Label Studio, under their names.

    Args:
        folder: An empty folder.
        results: From ``read_results``.
        classes: The names of all classes of all results.
    """
    tasks = [_task(result) for result in results]
    (folder / "tasks.json").write_bytes(encode_json(tasks))
    labels = "".join(
        f'    <Label value="{escape(name)}" background="{colour}"/>\n'
        for name, colour in zip(classes, hex_colours(classes), strict=True)
    )
    (folder / "labels.xml").write_text(
        f'<View>\n  <Image name="{_IMAGE}" value="$image" zoom="true"/>\n'
        f'  <BrushLabels name="{_TAG}" toName="{_IMAGE}">\n{labels}'
        "  </BrushLabels>\n</View>\n",
        encoding="utf-8",
    )


def encode_brush(mask: Bool[np.ndarray, "height width"]) -> list[int]:
    """Encode a mask as a brush stroke of Label Studio (``@thi.ng/rle-pack``).

    The stream of bits holds the number of values (32 bits), the size of a value minus 1
    (5 bits), and four possible sizes of a run length, minus 1 (4 bits each). Then each
    run has a 1, the index of the size of its length (2 bits), its length minus 1, and
    its value. All lengths are written with 16 bits. A value is 0 or 255, four of them
    are a pixel, and pixels are counted row by row.

    Args:
        mask: Where the mask is set.

    Returns:
        The bytes of the stream.
    """
    runs = run_lengths(mask.ravel())
    values = np.arange(len(runs)) % 2 * 255
    runs, values = runs[runs > 0] * _CHANNELS, values[runs > 0]
    pieces = -(-runs // _MAX_RUN)  # a longer run becomes several
    lengths = np.full(pieces.sum(), _MAX_RUN)
    lengths[np.cumsum(pieces) - 1] = runs - (pieces - 1) * _MAX_RUN
    header = [(_CHANNELS * mask.size, 32), (7, 5), (2, 4), (3, 4), (7, 4), (15, 4)]
    bits = [_bits(np.array([number]), count) for number, count in header]
    flag = _bits(np.full(len(lengths), 0b111), 3)  # a run, of the fourth size
    blocks = [flag, _bits(lengths - 1, 16), _bits(np.repeat(values, pieces), 8)]
    stream = np.concatenate(
        [*(each.ravel() for each in bits), np.concatenate(blocks, axis=1).ravel()]
    )
    return np.packbits(stream).tolist()


def _bits(numbers: np.ndarray, count: int) -> np.ndarray:
    """The lowest bits of numbers, the highest of them first: ``[numbers, count]``."""
    return (numbers[:, None] >> np.arange(count)[::-1] & 1).astype(bool)


def _task(result: SavedResult) -> dict[str, Any]:
    height, width = result.labels.shape
    strokes = [
        {
            "id": f"class-{label}",
            "from_name": _TAG,
            "to_name": _IMAGE,
            "type": "brushlabels",
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {
                "format": "rle",
                "rle": encode_brush(result.labels == label),
                "brushlabels": [result.classes[label]],
            },
        }
        for label in np.unique(result.labels).tolist()
    ]
    prediction = {"model_version": f"dslo-jax {version('dslo-jax')}", "result": strokes}
    address = f"/data/local-files/?d={quote(result.name, errors='surrogateescape')}"
    return {"data": {"image": address}, "predictions": [prediction]}
