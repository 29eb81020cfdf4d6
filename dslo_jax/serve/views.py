"""Results as the page shows them: facts, pictures and arrays."""

import gzip
import io
import os
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from dslo_jax import outputs
from dslo_jax.images import Photo
from dslo_jax.points import PointMaps
from dslo_jax.serve.limits import Limits


if TYPE_CHECKING:
    from dslo_jax.serve.studio import KeptResult


def view_size(height: int, width: int, limits: Limits) -> tuple[int, int]:
    """Height and width of a photo on the page."""
    scale = min(1.0, limits.view / max(height, width))
    return max(1, round(scale * height)), max(1, round(scale * width))


def photo_facts(photo: Photo, limits: Limits) -> dict[str, Any]:
    """What the page needs to know of a photo."""
    height, width, _ = photo.pixels.shape
    rows, columns = view_size(height, width, limits)
    return {
        "height": height,
        "width": width,
        "view": {"height": rows, "width": columns},
        "notes": list(photo.notes),
    }


def summary(name: str, result: "KeptResult", limits: Limits) -> dict[str, Any]:
    """What the page needs to know of a result, ready for JSON."""
    found = result.segmentation
    facts = found.summary()
    kept = ("name", "colour", "area", "score", "rejected", "converged", "num_steps")
    classes = [{key: each[key] for key in kept} for each in facts["classes"]]
    for each in classes:
        each["score"] = _finite(each["score"])
    timings = [
        (each.stage, each.seconds, each.compile_seconds) for each in found.timings
    ]
    return {
        "result": name,
        "photo": result.photo,
        "words": result.words,
        "options": dict(result.options),
        "mode": found.config.discrepancy.name,
        **photo_facts(found.photo, limits),
        "grid": list(found.discrepancy.shape[1:]),
        "classes": classes,
        "label_bytes": label_type(len(classes)).itemsize,
        "ties": found.ties,
        "notes": list(found.notes),
        "seconds": sum(seconds for _, seconds, _ in timings),
        "compile_seconds": sum(seconds for _, _, seconds in timings),
    }


def click_facts(found: PointMaps) -> dict[str, Any]:
    """What the page needs to know of a click: its Markov map, row by row."""
    (velocity,) = found.velocity
    return {
        "grid": list(velocity.shape),
        "map": [round(float(value), 4) for value in velocity.ravel()],
        "num_steps": found.num_steps[0],
        "notes": list(found.notes),
        "seconds": sum(each.seconds for each in found.timings),
    }


def label_type(num_classes: int) -> np.dtype:
    """The type of the labels that the page gets."""
    return np.dtype(np.uint8 if num_classes <= 256 else np.dtype("<u2"))


def labels(result: "KeptResult", limits: Limits) -> bytes:
    """The labels of the view, row by row, compressed by gzip."""
    found = result.segmentation
    height, width = found.labels.shape
    rows, columns = view_size(height, width, limits)
    down = (2 * np.arange(rows) + 1) * height // (2 * rows)
    right = (2 * np.arange(columns) + 1) * width // (2 * columns)
    chosen = found.labels[down[:, None], right[None]]
    kind = label_type(len(found.classes))
    return gzip.compress(chosen.astype(kind).tobytes(), 1, mtime=0)


def maps(result: "KeptResult") -> bytes:
    """The maps of all classes, float32, little-endian, compressed by gzip.

    A class that was rejected has minus infinity everywhere.
    """
    values = result.segmentation.discrepancy.astype("<f4")
    return gzip.compress(values.tobytes(), 1, mtime=0)


def picture(photo: Photo, limits: Limits) -> bytes:
    """A photo in the size of its view, as a JPEG."""
    height, width, _ = photo.pixels.shape
    rows, columns = view_size(height, width, limits)
    pixels = photo.pixels
    if (rows, columns) != (height, width):
        image = Image.fromarray(pixels)
        pixels = np.asarray(image.resize((columns, rows), Image.Resampling.BOX))
    return to_jpeg(pixels)


def to_jpeg(pixels: np.ndarray) -> bytes:
    """Encode a picture as a JPEG of high quality."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=92, subsampling=0)
    return buffer.getvalue()


def archive(result: "KeptResult") -> bytes:
    """The files of a result, as ``Segmentation.save`` writes them, in one zip.

    Paths of checkpoints are shortened to their last part.
    """
    found = result.segmentation
    files = found.files()
    facts = found.summary()
    if facts["model"] is not None:
        facts["model"] = _without_folders(facts["model"])
        files[outputs.FILES["json"]] = outputs.encode_json(facts)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as target:
        for name, data in files.items():
            target.writestr(zipfile.ZipInfo(name), data)
    return content.getvalue()


def short_name(name: str) -> str:
    """A name of networks; of a folder only its last part."""
    is_path = os.path.isabs(name) or name.startswith(("~", ".")) or os.path.exists(name)
    return os.path.basename(os.path.normpath(name)) if is_path else name


def _without_folders(facts: Any) -> Any:
    if isinstance(facts, dict):
        return {
            key: short_name(value)
            if key == "name" and isinstance(value, str)
            else _without_folders(value)
            for key, value in facts.items()
        }
    return facts


def _finite(value: float | None) -> float | None:
    return value if value is not None and np.isfinite(value) else None
