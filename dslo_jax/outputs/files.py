"""Result files: maps and JSON, each written whole or not at all."""

import dataclasses
import io
import json
import math
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dslo_jax.errors import ImageError
from dslo_jax.files import atomic_file


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


def save_maps(path: str | os.PathLike[str], maps: Mapping[str, np.ndarray]) -> None:
    """Save named arrays as a compressed NPZ, which ``numpy.load`` reads.

    Equal arrays give equal bytes, because the file contains no time.

    Args:
        path: The NPZ to write.
        maps: Arrays by name, usually ``[height, width]`` by class. Every name is
            allowed, also ``"file"``.

    Raises:
        ValueError: An array does not hold plain numbers.
        OSError: The file cannot be written.
    """
    for name, values in maps.items():
        if values.dtype.kind not in "biuf":
            raise ValueError(
                f"`maps` holds {values.dtype} under {name!r}, expected plain numbers"
            )
    with (
        atomic_file(path) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name, values in maps.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, values, allow_pickle=False)
            member = zipfile.ZipInfo(f"{name}.npy")
            archive.writestr(member, buffer.getvalue(), zipfile.ZIP_DEFLATED)


def save_json(path: str | os.PathLike[str], value: Any) -> None:
    """Save a value as strict JSON, in UTF-8 and with the keys in their order.

    NumPy and JAX values become numbers and lists, dataclasses and named tuples become
    objects, paths become strings. NaN and infinity, which JSON does not know, become
    ``null``.

    Args:
        path: The JSON to write.
        value: What to write.

    Raises:
        TypeError: A value cannot be written as JSON.
        OSError: The file cannot be written.
    """
    text = json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_file(path) as file:
        # Undecodable bytes of a file name become escapes of JSON.
        file.write(f"{text}\n".encode("utf-8", "backslashreplace"))


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
