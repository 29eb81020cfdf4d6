"""Exports of the results of a run to the formats of other programs."""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from dslo_jax.errors import OptionError, OutputError
from dslo_jax.files import atomic_folder
from dslo_jax.outputs.coco import coco
from dslo_jax.outputs.cvat import write_cvat
from dslo_jax.outputs.files import encode_json
from dslo_jax.outputs.label_studio import write_label_studio
from dslo_jax.outputs.saved import SavedResult, all_classes, read_results


Export = Callable[[Path, Iterable[SavedResult], tuple[str, ...]], None]
"""Writes results into an empty folder; the last argument are all class names."""


def _write_coco(
    folder: Path, results: Iterable[SavedResult], classes: tuple[str, ...]
) -> None:
    (folder / "annotations.json").write_bytes(encode_json(coco(results)))


EXPORTS: Mapping[str, Export] = MappingProxyType(
    {"coco": _write_coco, "cvat": write_cvat, "labelstudio": write_label_studio}
)
"""The exports by name. The first writes ``annotations.json``."""


def write_export(
    kind: str, results: str | os.PathLike[str], target: str | os.PathLike[str]
) -> Path:
    """Write the finished results of a run in the format of another program.

    Args:
        kind: ``"coco"``: one JSON file with run lengths; ``"cvat"``: CVAT's
            "Segmentation mask 1.1"; ``"labelstudio"``: tasks with brush masks.
        results: Folder of the run; see ``read_results``.
        target: Folder to write, which must be new or empty. It appears whole or not at
            all.

    Returns:
        The target.

    Raises:
        OptionError: The kind is unknown (``O03``), there are no results (``O05``), or a
            result is damaged (``O04``).
        ImageError: A label map is missing or damaged (``I01`` ... ``I07``).
        OutputError: The target holds files, or names do not fit the format (``O06``).
        OSError: The target cannot be written.
    """
    if kind not in EXPORTS:
        raise OptionError(
            "O03", f"export {kind!r}; expected one of {', '.join(EXPORTS)}"
        )
    target = Path(target)
    if target.is_dir() and any(target.iterdir()):
        raise OutputError(
            "O06",
            f"{os.fspath(target)!r} holds files; an export needs a new folder",
        )
    classes = all_classes(read_results(results))
    with atomic_folder(target) as folder:
        EXPORTS[kind](folder, read_results(results), classes)
    return target
