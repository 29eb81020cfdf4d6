"""Recorded results: ``segmentation.json`` and ``labels.png``, as exports read them."""

import json
import shutil
from pathlib import Path

import numpy as np

from dslo_jax.outputs import encode_labels
from dslo_jax.outputs.exports import write_export
from fuzz import pictures
from fuzz.target import Base, Found, Target


LABELS = np.arange(96, dtype=np.int32).reshape(8, 12) // 48
CLASS = {
    "id": 0,
    "name": "sky",
    "synonyms": ["sky", "clouds"],
    "colour": "#336699",
    "rejected": False,
    "num_steps": 7,
    "error": 1e-5,
    "converged": True,
    "reason": "converged",
    "area": 0.5,
    "score": None,
}
SUMMARY = {
    "schema": "dslo.segmentation.v2",
    "dslo_jax": "0.1.0",
    "photo": {"path": "a.png", "sha256": None, "height": 8, "width": 12},
    "model": None,
    "grid": [4, 6],
    "classes": [CLASS, {**CLASS, "id": 1, "name": "sea", "synonyms": ["sea"]}],
    "ties": 0.0,
    "unsure": None,
    "converged": True,
    "notes": [],
    "timings": [],
    "config": {"mode": "velocity"},
}
KINDS = ("coco", "cvat", "labelstudio", "parquet")
TOKENS = (*pictures.TOKENS, b'"classes":[]', b'"name":null', b"\xef\xbb\xbf", b"NaN")


def prepare(folder: Path) -> None:
    """A folder of one result."""
    (folder / "run" / "a.png").mkdir(parents=True)


def read(content: bytes, folder: Path) -> None:
    """Export a result with this label map, or this summary."""
    result = folder / "run" / "a.png"
    (result / "segmentation.json").write_text(json.dumps(SUMMARY))
    (result / "labels.png").write_bytes(encode_labels(LABELS, 2))
    is_picture = content.startswith(b"\x89PN")
    name = "labels.png" if is_picture else "segmentation.json"
    (result / name).write_bytes(content)
    shutil.rmtree(folder / "exported", ignore_errors=True)
    kind = KINDS[len(content) % len(KINDS)]
    write_export(kind, folder / "run", folder / "exported")


def bases() -> dict[str, Base]:
    """A summary, and label maps."""
    summary = Base(json.dumps(SUMMARY).encode(), is_json=True)
    return {
        "summary": summary,
        "summary of two classes": summary,
        "labels": Base(encode_labels(LABELS, 2), pictures.with_sums),
    }


def summary(**changes: object) -> bytes:
    """A summary with other values."""
    return json.dumps(SUMMARY | changes).encode()


def with_class(**changes: object) -> bytes:
    """A summary whose first class has other values."""
    return summary(classes=[CLASS | changes, SUMMARY["classes"][1]])


FOUND = (
    Found("no classes", summary(classes=[]), "O04"),
    Found("classes that are no list", summary(classes=3), "O04"),
    Found("a class without a name", with_class(name=None), "O04"),
    Found("a name that no file can hold", with_class(name="\ud800"), "O04"),
    Found("an area that is no number", with_class(area="0.5"), "O04"),
    Found("a photo without its size", summary(photo={"path": "a.png"}), "O04"),
    Found("a side too long", summary(photo={"height": 2**40, "width": 1}), "O04"),
    Found("ids that no class has", summary(classes=[CLASS]), "I09"),
    Found("no JSON, where files are copied", b"{  ", "O04"),
    Found("brackets nested too deep", b"[" * 100_003, "O04"),
)
TARGET = Target(bases(), read, TOKENS, prepare, FOUND)
