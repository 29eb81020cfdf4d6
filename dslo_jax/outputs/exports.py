"""Exports of the results of a run to the formats of other programs."""

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from dslo_jax.errors import OptionError, OutputError
from dslo_jax.files import atomic_folder
from dslo_jax.outputs.archives import write_tar
from dslo_jax.outputs.coco import coco
from dslo_jax.outputs.cvat import write_cvat
from dslo_jax.outputs.files import FILES, encode_json
from dslo_jax.outputs.label_studio import write_label_studio
from dslo_jax.outputs.saved import (
    SavedResult,
    all_classes,
    find_results,
    read_results,
)
from dslo_jax.outputs.tables import write_parquet


_LOGGER = logging.getLogger(__name__)


def _write_coco(
    folder: Path, results: Iterable[SavedResult], classes: tuple[str, ...]
) -> None:
    (folder / "annotations.json").write_bytes(encode_json(coco(results)))


_ANNOTATIONS: Mapping[
    str, Callable[[Path, Iterable[SavedResult], tuple[str, ...]], None]
] = {"coco": _write_coco, "cvat": write_cvat, "labelstudio": write_label_studio}
"""Each writes results into an empty folder, given the names of all classes."""

_MANY_PHOTOS = {"tar": write_tar, "parquet": write_parquet}
"""Each writes all files of many photos into one file."""

EXPORTS = (*_ANNOTATIONS, *_MANY_PHOTOS)
"""The formats of ``write_export``."""


def write_export(
    kind: str,
    results: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    photos: int = 200,
) -> Path:
    """Write the finished results of a run in the format of another program.

    Args:
        kind: ``"coco"``: one JSON file with run lengths; ``"cvat"``: CVAT's
            "Segmentation mask 1.1"; ``"labelstudio"``: tasks with brush masks;
            ``"tar"`` or ``"parquet"``: ``photos-000000.tar``, ``photos-000001.tar``,
            ..., each with the results of many photos; see ``write_tar`` and
            ``write_parquet``. Files that some results lack are logged.
        results: Folder of the run; see ``read_results``.
        target: Folder to write, which must be new or empty. It appears whole or not at
            all.
        photos: Greatest number of photos in one file of ``"tar"`` and ``"parquet"``.
            All of them are in memory at once.

    Returns:
        The target.

    Raises:
        OptionError: The kind is unknown (``O03``), ``photos`` is less than 1 (``O01``),
            there are no results or no pyarrow (``O05``), or a result is damaged
            (``O04``).
        ImageError: A label map is missing or damaged (``I01`` ... ``I07``), or is not
            that of its summary (``I09``).
        OutputError: The target holds files, or names do not fit the format (``O06``).
        OSError: The target cannot be written.
    """
    if kind not in EXPORTS:
        raise OptionError(
            "O03", f"export {kind!r}; expected one of {', '.join(EXPORTS)}"
        )
    if photos < 1:
        raise OptionError("O01", f"photos = {photos}; expected at least 1")
    target = Path(target)
    if target.is_dir() and any(target.iterdir()):
        raise OutputError(
            "O06",
            f"{os.fspath(target)!r} holds files; an export needs a new folder",
        )
    found = find_results(results)
    with atomic_folder(target) as folder:
        if kind in _MANY_PHOTOS:
            _write_many(kind, found, folder, photos)
        else:
            classes = all_classes(read_results(results))
            _ANNOTATIONS[kind](folder, read_results(results), classes)
    return target


def _write_many(kind: str, found: Mapping[str, Path], folder: Path, size: int) -> None:
    """Write files of ``size`` photos each."""
    _tell_left_out(found)
    names = list(found)
    for number, start in enumerate(range(0, len(names), size)):
        chosen = {name: _files_of(found[name]) for name in names[start : start + size]}
        _MANY_PHOTOS[kind](folder / f"photos-{number:06}.{kind}", chosen)


def _tell_left_out(found: Mapping[str, Path]) -> None:
    """Log which results lack a file that others have, or any of them its labels."""
    for kind, file in FILES.items():
        without = [
            name for name, folder in found.items() if not (folder / file).is_file()
        ]
        if without and (kind == "labels" or len(without) < len(found)):
            _LOGGER.warning(
                "note: %d of %d results have no %s (%s): they are written without it",
                *(len(without), len(found), file, _first(without)),
            )


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _files_of(folder: Path) -> dict[str, bytes]:
    """The files of the result of one photo, by their names."""
    files = (folder / name for name in FILES.values())
    return {file.name: file.read_bytes() for file in files if file.is_file()}
