"""Results that were written, read again for exports."""

import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dslo_jax.errors import ImageError, OptionError
from dslo_jax.files import parse_json
from dslo_jax.outputs.files import FILES
from dslo_jax.outputs.labels import read_labels


SCHEMA = "dslo.segmentation.v2"
"""Name of the format of ``segmentation.json``; ``segmentation.schema.json`` describes
it."""


class SavedResult(NamedTuple):
    """The result of one photo, as exports need it.

    Attributes:
        name: Path of the photo, relative to a common folder, with ``/``.
        labels: Class ids, ``[height, width]``; indices into ``classes`` of ``summary``.
        summary: The content of ``segmentation.json``.
    """

    name: str
    labels: np.ndarray
    summary: Mapping[str, Any]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of their ids."""
        return tuple(each["name"] for each in self.summary["classes"])


def read_results(folder: str | os.PathLike[str]) -> Iterator[SavedResult]:
    """Read all results in a folder and its sub-folders, in the order of their names.

    One result is in memory at a time.

    Args:
        folder: The folder of a run: each photo has a sub-folder with ``labels.png`` and
            ``segmentation.json``.

    Yields:
        Each result; its name is the path of its sub-folder.

    Raises:
        OptionError: There is no result (``O05``), or a ``segmentation.json`` is damaged
            or of another version (``O04``).
        ImageError: A label map is missing or damaged (``I01`` ... ``I07``), or is not
            the one that ``segmentation.json`` describes (``I09``).
    """
    for name, path in find_results(folder).items():
        if not (path / FILES["labels"]).exists():
            raise ImageError(
                "I01",
                f"there is no {FILES['labels']} in {os.fspath(path)!r}; segment the "
                "photo again, with labels and json in --write",
            )
        labels = read_labels(path / FILES["labels"])
        summary_path = path / FILES["json"]
        summary = parse_summary(summary_path.read_bytes(), repr(str(summary_path)))
        _check_labels(labels, summary, repr(str(path / FILES["labels"])))
        yield SavedResult(name, labels, summary)


def find_results(folder: str | os.PathLike[str]) -> dict[str, Path]:
    """Find all results in a folder and its sub-folders.

    Args:
        folder: The folder of a run, or of one result.

    Returns:
        The folder of each result by its name, in the order of the names. The name of a
        single result is that of its folder.

    Raises:
        OptionError: There is no result (``O05``).
    """
    root = Path(folder)
    found = {
        path.parent.relative_to(root).as_posix(): path.parent
        for path in sorted(root.rglob(FILES["json"]))
        # A hidden folder is one that is being written, or was when a run was killed.
        if not any(part.startswith(".") for part in path.relative_to(root).parts)
    }
    if "." in found:
        found[root.resolve().name] = found.pop(".")
    if not found:
        raise OptionError(
            "O05",
            f"{os.fspath(folder)!r} holds no results; expected sub-folders with "
            f"{FILES['labels']} and {FILES['json']}",
        )
    return found


def all_classes(results: Iterable[SavedResult]) -> tuple[str, ...]:
    """The names of all classes of some results, each once, in order of appearance."""
    return tuple(dict.fromkeys(name for each in results for name in each.classes))


def parse_summary(content: bytes, name: str) -> dict[str, Any]:
    """Read a ``segmentation.json``, and check what exports need of it.

    Args:
        content: The content of the file.
        name: Name of the file for errors.

    Raises:
        OptionError: It is damaged or of another version (``O04``).
    """
    try:
        summary = parse_json(content)
    except ValueError as error:
        raise OptionError(
            "O04",
            f"{name} is not JSON: {error}; remove its folder and segment the photo "
            "again",
        ) from error
    found = summary.get("schema") if isinstance(summary, dict) else None
    if found != SCHEMA:
        raise OptionError(
            "O04",
            f"{name} has the schema {found!r:.80}, expected {SCHEMA!r}; segment the "
            "photo again",
        )
    for what, is_sound in _CHECKS.items():
        if not is_sound(summary):
            raise OptionError(
                "O04", f"{name} is damaged: {what}; segment the photo again"
            )
    return summary


def _has_size(summary: Mapping[str, Any]) -> bool:
    photo = summary.get("photo")
    return isinstance(photo, dict) and all(
        type(photo.get(side)) is int and 0 < photo[side] <= _MOST_SIDE
        for side in ("height", "width")
    )


def _has_classes(summary: Mapping[str, Any]) -> bool:
    classes = summary.get("classes")
    return isinstance(classes, list) and bool(classes) and all(map(_is_class, classes))


def _is_class(value: Any) -> bool:
    """Whether a class has an area, and a name without control characters."""
    if not isinstance(value, dict):
        return False
    name, area = value.get("name"), value.get("area")
    return (
        isinstance(name, str)
        and bool(name)
        and not any(unicodedata.category(each) in ("Cc", "Cs") for each in name)
        and isinstance(area, int | float)
        and not isinstance(area, bool)
        and 0 <= area <= 1
    )


_MOST_SIDE = 2**31 - 1
_CHECKS = {
    "`photo` has no height and width": _has_size,
    "`classes` holds something else than classes": _has_classes,
}


def _check_labels(labels: np.ndarray, summary: Mapping[str, Any], name: str) -> None:
    """Raise ``ImageError`` for labels of another photo or other classes (``I09``)."""
    photo, num_classes = summary["photo"], len(summary["classes"])
    expected = photo["height"], photo["width"]
    if labels.shape != expected or labels.max() >= num_classes:
        height, width = labels.shape
        raise ImageError(
            "I09",
            f"{name} has {height} x {width} px and ids up to {labels.max()}, but its "
            f"{FILES['json']} describes {expected[0]} x {expected[1]} px and "
            f"{num_classes} classes; segment the photo again",
        )
