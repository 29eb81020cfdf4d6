"""From labels as they are published to those that benchmarks are measured with.

What there is no conversion for (VOC, ADE20K) is used as published.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from dslo_jax.errors import OptionError, OutputError
from dslo_jax.evaluation.datasets.benchmarks import BENCHMARKS, find_benchmark
from dslo_jax.evaluation.datasets.context import ContextAnnotations
from dslo_jax.evaluation.datasets.layouts import (
    Layout,
    contents,
    find_root,
    list_names,
    not_found,
)
from dslo_jax.evaluation.datasets.masks import check_values, write_mask
from dslo_jax.evaluation.metrics import IGNORE
from dslo_jax.files import atomic_file
from dslo_jax.images import read_label_ids


# Ids of COCO-Stuff in the pixels, 91 things and 91 stuff, less those never used.
_COCO_IDS = np.setdiff1d(np.arange(182), [11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90])
_NUM_THINGS = 80
# Ids of the 19 classes of Cityscapes among its 34 (cityscapesScripts, labels.py).
_CITYSCAPES_IDS = np.array(
    [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
)
_NUM_CITYSCAPES_IDS = 34


class Conversion(NamedTuple):
    """What a conversion did.

    Attributes:
        folder: Where the labels are.
        written: How many label files were written.
        kept: How many were there already, with the same labels.
    """

    folder: Path
    written: int
    kept: int


Watch = Callable[[int, int], None]
"""Called with the label files done so far and the label files in all."""


class _Labels(NamedTuple):
    """The labels of a split: the names of its photos, and what labels one has."""

    names: list[str]
    of: Callable[[str], np.ndarray]


class _Recoding(NamedTuple):
    """What becomes of each of the 256 values of a mask, and which may occur."""

    labels: UInt8[np.ndarray, " 256"]
    known: np.ndarray


def convert(
    name: str, root: str | os.PathLike[str], *, watch: Watch | None = None
) -> Conversion:
    """Write the label files of the measured split of a benchmark.

    Each appears whole or not at all, and one that is there already is compared and
    kept, so that an interrupted conversion can be started again. The published files
    are only read.

    Args:
        name: ``"coco_object"``, ``"coco_stuff"``, ``"cityscapes"``, or ``"context60"``
            and ``"context59"``, which share their labels.
        root: The benchmark's own folder, or one that holds it as mmsegmentation's
            ``data`` does.
        watch: Told of the progress.

    Returns:
        Where they are, and how many were written and kept.

    Raises:
        OptionError: The benchmark is unknown or needs no conversion (``O03``), or its
            files are not found or are not what they should be (``O07``).
        ImageError: A published file is damaged (``I02`` to ``I07``), holds an id that
            does not exist, or a file is there with other labels (``I09``).
        OutputError: The disk refuses (``O06``); what was written is kept.
    """
    layout = find_benchmark(name).layout
    if layout.published is None:
        needing = [row.name for row in BENCHMARKS.values() if row.layout.published]
        raise OptionError(
            "O03",
            f"the labels of {name} are used as they are published; those that need a "
            f"conversion are {', '.join(needing)}",
        )
    tree = layout.tree(layout.label_folders[0], "NAME")
    home = find_root(layout, Path(root), tree)
    if name in _RECODINGS:
        labels = _recoded(layout, _RECODINGS[name](), home, tree)
    else:
        labels = _drawn(layout, home, tree)
    return _write_all(layout, home, labels, watch)


def _coco_stuff() -> _Recoding:
    """The used ids become 0 to 170 in order; 255 stays ignored."""
    labels = np.full(256, IGNORE, np.uint8)
    labels[_COCO_IDS] = np.arange(len(_COCO_IDS))
    return _Recoding(labels, np.isin(np.arange(256), [*_COCO_IDS, IGNORE]))


def _coco_object() -> _Recoding:
    """Things become 1 to 80; stuff and what was ignored become background, 0."""
    labels = np.zeros(256, np.uint8)
    labels[_COCO_IDS[:_NUM_THINGS]] = np.arange(1, _NUM_THINGS + 1)
    return _Recoding(labels, _coco_stuff().known)


def _cityscapes() -> _Recoding:
    """19 of the ids become 0 to 18; the others are ignored."""
    labels = np.full(256, IGNORE, np.uint8)
    labels[_CITYSCAPES_IDS] = np.arange(len(_CITYSCAPES_IDS))
    return _Recoding(labels, np.arange(256) < _NUM_CITYSCAPES_IDS)


_RECODINGS = {
    "coco_stuff": _coco_stuff,
    "coco_object": _coco_object,
    "cityscapes": _cityscapes,
}


def _recoded(layout: Layout, recoding: _Recoding, root: Path, tree: str) -> _Labels:
    """What becomes of every published label file."""
    assert layout.published is not None
    suffix = layout.published.partition("{name}")[2]
    folder = root / layout.label_folders[0]
    names = [n for n in list_names(folder, suffix) if not n.endswith("TrainIds")]
    if not names:
        raise not_found(f"no labels to convert: {contents(folder)}", tree)

    def recode(name: str) -> np.ndarray:
        path = folder / f"{name}{suffix}"
        values = read_label_ids(path)
        check_values(values, recoding.known, path)
        return recoding.labels[values]

    return _Labels(names, recode)


def _drawn(layout: Layout, root: Path, tree: str) -> _Labels:
    """The labels of PASCAL Context."""
    assert layout.published is not None
    path = root / layout.published
    if not path.is_file():
        raise not_found(f"no labels to convert: {contents(root)}", tree)
    annotations = ContextAnnotations(path, layout.split)
    return _Labels(annotations.names, annotations.draw)


def _write_all(
    layout: Layout, root: Path, labels: _Labels, watch: Watch | None
) -> Conversion:
    """Write the labels, and list their names where a list is needed and missing."""
    folder = layout.label_folders[0]
    written = 0
    for done, name in enumerate(labels.names, start=1):
        path, values = layout.labels(root, name, folder), labels.of(name)
        with _telling(path):
            written += write_mask(path, values)
        if watch is not None:
            watch(done, len(labels.names))
    if layout.split_file is not None and not (root / layout.split_file).exists():
        path = root / layout.split_file
        with _telling(path), atomic_file(path) as file:
            file.write("".join(f"{name}\n" for name in labels.names).encode())
    return Conversion(root / folder, written, len(labels.names) - written)


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    """Tell a person of a disk that refuses."""
    try:
        yield
    except OSError as error:
        raise OutputError.cannot_write(
            path,
            error,
            "labels that were written are kept, and the same conversion continues",
            "make room there, or make the folder writable",
        ) from error
