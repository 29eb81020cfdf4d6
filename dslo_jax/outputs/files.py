"""Result files of a photo: their names and contents, and the folder they are in."""

import dataclasses
import io
import json
import math
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from dslo_jax.errors import ImageError, OptionError, OutputError
from dslo_jax.files import atomic_folder


FILES: Mapping[str, str] = MappingProxyType(
    {
        "labels": "labels.png",
        "coloured": "labels_coloured.png",
        "overlay": "overlay.jpg",
        "overlay_png": "overlay.png",
        "maps": "maps.npz",
        "json": "segmentation.json",
    }
)
"""Kinds of results that can be written, and the name of the file of each."""

DEFAULT_FILES = ("labels", "overlay", "maps", "json")
"""The kinds of results that are written unless others are chosen."""


def output_path(folder: str | os.PathLike[str], name: str) -> Path:
    """Path of a result, checked to be inside the output folder.

    Args:
        folder: The output folder, existing or not.
        name: Relative path of the result, such as the ``name`` of a ``FoundPhoto``
            with a suffix.

    Returns:
        ``folder / name``.

    Raises:
        ImageError: The path is outside the folder, through ``..``, an absolute name or
            a symbolic link (``I08``).
    """
    path = Path(folder) / name
    if not path.resolve().is_relative_to(Path(folder).resolve()):
        raise ImageError(
            "I08",
            f"{name!r} leads to {str(path.resolve())!r}, outside the output folder "
            f"{os.fspath(folder)!r}; remove the link or rename the photo",
        )
    return path


def chosen_files(write: Sequence[str]) -> dict[str, str]:
    """The file name of each kind of result that is to be written.

    Args:
        write: Keys of ``FILES``, at least one.

    Returns:
        Key to file name, in the order of ``FILES``.

    Raises:
        OptionError: A key is unknown, or there is none (``O03``).
    """
    unknown = [key for key in write if key not in FILES]
    if unknown or not write or isinstance(write, str):
        found = unknown[0] if unknown and not isinstance(write, str) else write
        raise OptionError(
            "O03", f"write = {found!r}; expected one or more of {', '.join(FILES)}"
        )
    return {key: name for key, name in FILES.items() if key in write}


def write_folder(folder: str | os.PathLike[str], files: Mapping[str, bytes]) -> Path:
    """Write the files of one photo, which appear together or not at all.

    An earlier result is replaced as a whole, also by fewer files. See
    ``files.atomic_folder`` for what happens when the program is killed.

    Args:
        folder: The folder of the photo; created when missing.
        files: File name to content, from ``Segmentation.files``.

    Returns:
        The folder.

    Raises:
        OutputError: The folder holds something else than results, which would be lost
            (``O06``).
        OSError: The files cannot be written; an earlier result is unchanged.
    """
    folder = Path(folder)
    known = {*FILES.values(), *files}
    others = sorted(set(_names(folder)) - known)
    if others:
        raise OutputError(
            "O06",
            f"{os.fspath(folder)!r} holds {others[0]!r}, which is no result; results "
            "replace their whole folder, so choose an empty or a new one",
        )
    with atomic_folder(folder) as hidden:
        for name, content in files.items():
            (hidden / name).write_bytes(content)
    return folder


def encode_maps(maps: Mapping[str, np.ndarray]) -> bytes:
    """Encode named arrays as an NPZ, which ``numpy.load`` reads.

    Equal arrays give equal bytes, because the file contains no time. Nothing is
    compressed, because that makes float32 maps only about a tenth smaller.

    Args:
        maps: Arrays by name, usually ``[height, width]`` by class. Every name is
            allowed, also ``"file"``.

    Returns:
        The content of an NPZ file.

    Raises:
        ValueError: An array does not hold plain numbers.
    """
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        for name, values in maps.items():
            if values.dtype.kind not in "biuf":
                raise ValueError(
                    f"`maps` holds {values.dtype} under {name!r}, expected plain "
                    "numbers"
                )
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, values, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), buffer.getvalue())
    return content.getvalue()


def encode_json(value: Any) -> bytes:
    """Encode a value as strict JSON, in UTF-8 and with the keys in their order.

    NumPy and JAX values become numbers and lists, dataclasses and named tuples become
    objects, paths become strings. NaN and infinity, which JSON does not know, become
    ``null``.

    Args:
        value: Any value made of these.

    Returns:
        The content of a JSON file.

    Raises:
        TypeError: A value cannot be written as JSON.
    """
    text = json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False)
    # Undecodable bytes of a file name become escapes of JSON.
    return f"{text}\n".encode("utf-8", "backslashreplace")


def _names(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.is_dir() else []


def _plain(value: Any) -> Any:
    if isinstance(value, float) or value is None:
        return value if value is None or math.isfinite(value) else None
    if isinstance(value, bool | int | str):
        return value
    if isinstance(value, type):
        raise TypeError(f"the class {value.__name__} cannot be written as JSON")
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: _plain(getattr(value, name)) for name in names}
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    raise TypeError(f"{type(value).__name__} cannot be written as JSON: {value!r}")
