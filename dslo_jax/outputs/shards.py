"""Results of many photos in one file: tar for WebDataset, and Parquet."""

import io
import json
import os
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from dslo_jax.errors import OptionError
from dslo_jax.files import atomic_file
from dslo_jax.outputs.files import FILES
from dslo_jax.outputs.saved import find_results


Shard = Mapping[str, Mapping[str, bytes]]
"""Name of each photo to its files, as of ``Segmentation.files``."""

_ENDINGS = {FILES["json"]: "json"}  # the usual ending in WebDataset
_KINDS = {name: kind for kind, name in FILES.items()}


def write_tar(path: str | os.PathLike[str], shard: Shard) -> None:
    """Write results into a tar as WebDataset reads it, whole or not at all.

    A member is ``KEY.labels.png``, ``KEY.json``, ``KEY.overlay.jpg`` and so on. The key
    is the name of the photo with ``.`` as ``%2E`` and ``%`` as ``%25``, because a key
    of WebDataset ends at the first dot; ``urllib.parse.unquote`` gives the name. Equal
    results give equal bytes: members have no time and no owner.

    Args:
        path: The tar to write.
        shard: Name of each photo to its files.

    Raises:
        OSError: The file cannot be written.
    """
    with (
        atomic_file(path) as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, files in shard.items():
            key = name.replace("%", "%25").replace(".", "%2E")
            for file_name, content in files.items():
                ending = _ENDINGS.get(file_name, file_name)
                member = tarfile.TarInfo(f"{key}.{ending}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def write_parquet(path: str | os.PathLike[str], shard: Shard) -> None:
    """Write results into a Parquet file, one row per photo, whole or not at all.

    The columns are ``name``, ``height``, ``width``, ``classes``, ``areas`` (share of
    the photo, in the order of ``classes``), ``json``, and one column for each other
    kind of file that some photo has, under its key in ``FILES``. Label maps and
    overlays are pictures in the convention of Hugging Face, so that ``datasets`` shows
    them; ``maps`` are the bytes of the NPZ. What a photo does not have is null.

    Args:
        path: The file to write.
        shard: Name of each photo to its files.

    Raises:
        OptionError: pyarrow is not installed (``O05``).
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
    rows = [_row(name, files) for name, files in shard.items()]
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


def write_shards(
    kind: str,
    results: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    photos: int = 200,
) -> list[Path]:
    """Write the finished results of a run into files of many photos each.

    Args:
        kind: ``"tar"`` or ``"parquet"``; see ``write_tar`` and ``write_parquet``.
        results: Folder of the run.
        target: Folder of the files ``shard-000000.tar``, ``shard-000001.tar``, ...
        photos: Greatest number of photos of a file. All of them are in memory at once.

    Returns:
        The files.

    Raises:
        OptionError: The kind is unknown (``O03``), or there are no results (``O05``).
        OSError: A file cannot be read or written.
    """
    if kind not in SHARDS:
        raise OptionError("O03", f"kind {kind!r}; expected one of {', '.join(SHARDS)}")
    names = list(find_results(results).items())
    written = []
    for number, start in enumerate(range(0, len(names), photos)):
        path = Path(target) / f"shard-{number:06}.{kind}"
        chosen = names[start : start + photos]
        SHARDS[kind](path, {name: _files_of(folder) for name, folder in chosen})
        written.append(path)
    return written


def _files_of(folder: Path) -> dict[str, bytes]:
    files = (folder / name for name in FILES.values())
    return {file.name: file.read_bytes() for file in files if file.is_file()}


def _row(name: str, files: Mapping[str, bytes]) -> dict[str, Any]:
    """The columns of one photo."""
    # Undecodable bytes of a file name become escapes, as in segmentation.json.
    name = name.encode("utf-8", "backslashreplace").decode("utf-8")
    row: dict[str, Any] = {"name": name}
    for file_name, content in files.items():
        column, suffix = _KINDS.get(file_name, file_name), Path(file_name).suffix
        if suffix == ".json":
            summary = json.loads(content)
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


SHARDS: Mapping[str, Callable[[Path, Shard], None]] = MappingProxyType(
    {"tar": write_tar, "parquet": write_parquet}
)
"""The files of many photos by their suffixes."""
