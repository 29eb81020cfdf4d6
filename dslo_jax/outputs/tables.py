"""Results of many photos in a table: a Parquet file for Hugging Face's datasets."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dslo_jax.errors import OptionError
from dslo_jax.files import atomic_file
from dslo_jax.outputs.files import FILES
from dslo_jax.outputs.saved import parse_summary


_KINDS = {name: kind for kind, name in FILES.items()}


def write_parquet(
    path: str | os.PathLike[str], photos: Mapping[str, Mapping[str, bytes]]
) -> None:
    """Write results into a Parquet file, one row per photo, whole or not at all.

    The columns are ``name``, ``height``, ``width``, ``classes``, ``areas`` (share of
    the photo, in the order of ``classes``), ``json``, and one column for each other
    kind of file that some photo has, under its key in ``FILES``. Label maps and
    overlays are pictures in the convention of Hugging Face, so that ``datasets`` shows
    them; ``maps`` are the bytes of the NPZ. What a photo does not have is null.

    Args:
        path: The file to write.
        photos: Name of each photo to its files, as of ``Segmentation.files``.

    Raises:
        OptionError: pyarrow is not installed (``O05``), or a ``segmentation.json`` is
            damaged (``O04``).
        OSError: The file cannot be written.
    """
    try:
        import pyarrow  # pyright: ignore[reportMissingImports]
        import pyarrow.parquet  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise OptionError(
            "O05", 'Parquet needs pyarrow; pip install "dslo-jax[parquet]"'
        ) from error
    picture = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    kinds = {
        "name": (pyarrow.string(), _feature("string")),
        "height": (pyarrow.int32(), _feature("int32")),
        "width": (pyarrow.int32(), _feature("int32")),
        "classes": (pyarrow.list_(pyarrow.string()), _listed("string")),
        "areas": (pyarrow.list_(pyarrow.float64()), _listed("float64")),
        "json": (pyarrow.string(), _feature("string")),
    }
    rows = [_row(name, files) for name, files in photos.items()]
    for column in dict.fromkeys(key for row in rows for key in row if key not in kinds):
        is_picture = any(isinstance(row.get(column), dict) for row in rows)
        kinds[column] = (
            (picture, {"_type": "Image"})
            if is_picture
            else (pyarrow.binary(), _feature("binary"))
        )
    features = {column: feature for column, (_, feature) in kinds.items()}
    schema = pyarrow.schema(
        [(column, kind) for column, (kind, _) in kinds.items()],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    table = pyarrow.Table.from_pylist(rows, schema=schema)
    with atomic_file(path) as file:
        pyarrow.parquet.write_table(table, file, compression="zstd")


def _row(name: str, files: Mapping[str, bytes]) -> dict[str, Any]:
    """The columns of one photo."""
    # Undecodable bytes of a file name become escapes, as in segmentation.json.
    name = name.encode("utf-8", "backslashreplace").decode("utf-8")
    row: dict[str, Any] = {"name": name}
    for file_name, content in files.items():
        column, suffix = _KINDS.get(file_name, file_name), Path(file_name).suffix
        if suffix == ".json":
            summary = parse_summary(content, f"{file_name} of {name!r}")
            classes = summary["classes"]
            row |= {
                "height": summary["photo"]["height"],
                "width": summary["photo"]["width"],
                "classes": [each["name"] for each in classes],
                "areas": [each["area"] for each in classes],
                "json": content.decode("utf-8"),
            }
        elif suffix == ".npz":
            row[column] = content
        else:
            row[column] = {"bytes": content, "path": f"{quote(name)}.{file_name}"}
    return row


def _feature(kind: str) -> dict[str, str]:
    return {"dtype": kind, "_type": "Value"}


def _listed(kind: str) -> dict[str, Any]:
    return {"feature": _feature(kind), "_type": "List"}
