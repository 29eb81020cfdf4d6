"""Images in columns of Parquet files, such as those of Hugging Face data sets."""

import bisect
import collections
import functools
import importlib
import itertools
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dslo_jax.errors import ImageError
from dslo_jax.images.parquet_pages import check_column


# Of several columns of images, the first of these names is the photo.
_NAMES = ("image", "img", "photo", "picture", "jpg", "jpeg", "png", "webp", "pixels")
_BATCH = 8  # rows that are read at once
_RECENT = 4  # batches that are kept, for threads that ask a little out of order
_BUFFER = 1024 * 1024


class NoImages(Exception):
    """A Parquet file whose columns hold no images."""


def find_column(path: Path) -> tuple[str, int]:
    """The column with images, and the number of rows.

    It is a column of structs with a field ``bytes``, as ``datasets`` writes them, or
    else one of plain bytes. Of several, the one that is called ``image`` or the like.

    Raises:
        NoImages: There is no such column, or several and none has a usual name.
        ImageError: pyarrow is not installed (``I02``), or the file is damaged
            (``I03``).
    """
    file = _open(path)
    with file:
        schema, num_rows = file.schema_arrow, file.metadata.num_rows
    columns = _image_columns(schema)
    by_name = {name.casefold(): name for name in reversed(columns)}
    usual = [by_name[name] for name in _NAMES if name in by_name]
    if len(columns) == 1 or usual:
        return (usual or columns)[0], num_rows
    if not columns:
        raise NoImages(f"no column of images among {', '.join(schema.names) or 'none'}")
    raise NoImages(
        f"several columns of images ({', '.join(columns)}); call the right one 'image'"
    )


def read_value(path: Path, column: str, row: int) -> bytes | None:
    """The bytes of an image, or ``None`` where there are none.

    Rows that are read in order are read from the file once; a few batches are in memory
    at a time.

    Raises:
        ImageError: As for ``find_column``.
    """
    try:
        stamp = path.stat().st_mtime_ns
        value = _rows(path, column, stamp).read(row)
    except ImageError:
        raise
    except Exception as error:  # pyarrow and the system raise errors of many kinds
        raise _damaged(path, error) from error
    return value.get("bytes") if isinstance(value, dict) else value


@functools.lru_cache(maxsize=4)
def _rows(path: Path, column: str, stamp: int) -> "_Rows":
    return _Rows(path, column)


class _Rows:
    """The values of a column, for threads that ask for rows nearly in order."""

    def __init__(self, path: Path, column: str):
        self._file, self._column = _open(path), column
        with path.open("rb") as file:
            check_column(file, column)
        groups = map(self._file.metadata.row_group, range(self._file.num_row_groups))
        counts = (group.num_rows for group in groups)
        self._starts = [0, *itertools.accumulate(counts)]
        self._batches: Iterator[Any] = iter(())
        self._next = 0  # the first row of the next batch
        self._recent: collections.deque[tuple[int, Any]] = collections.deque(
            maxlen=_RECENT
        )
        self._lock = threading.Lock()

    def read(self, row: int) -> Any:
        """The value of a row, as Python sees it."""
        with self._lock:
            for first, values in self._recent:
                if first <= row < first + len(values):
                    return values[row - first].as_py()
            self._go_to(row)
            while True:
                values = next(self._batches).column(0)
                first, self._next = self._next, self._next + len(values)
                self._recent.append((first, values))
                if row < self._next:
                    return values[row - first].as_py()

    def _go_to(self, row: int) -> None:
        """Start again at the group of a row, unless reading on leads there."""
        group = bisect.bisect_right(self._starts, row) - 1
        reading_on = self._starts[group] <= self._next <= row and self._recent
        if not reading_on:
            self._next = self._starts[group]
            self._batches = self._file.iter_batches(
                batch_size=_BATCH,
                row_groups=range(group, len(self._starts) - 1),
                columns=[self._column],
                use_threads=False,
            )


def _open(path: Path) -> Any:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise ImageError(
            "I02",
            f"{str(path)!r} is a Parquet file; to read it: pip install "
            '"dslo-jax[parquet]"',
        ) from error
    try:
        # Without these two, pyarrow reads whole groups of rows into memory.
        return parquet.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER)
    except Exception as error:  # pyarrow and the system raise errors of many kinds
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ImageError:
    return ImageError(
        "I03",
        f"{str(path)!r} is no Parquet file, cut short or damaged: "
        f"{str(error) or type(error).__name__}; copy it again",
    )


def _image_columns(schema: Any) -> list[str]:
    """Names of the columns that may hold images; structs of images come alone."""
    types = importlib.import_module("pyarrow.types")

    def holds_bytes(kind: Any) -> bool:
        return types.is_binary(kind) or types.is_large_binary(kind)

    structs = [
        field.name
        for field in schema
        if types.is_struct(field.type)
        and field.type.get_field_index("bytes") >= 0
        and holds_bytes(field.type.field("bytes").type)
    ]
    declared = _declared(schema)
    structs = [name for name in structs if not declared or name in declared]
    return structs or [field.name for field in schema if holds_bytes(field.type)]


def _declared(schema: Any) -> set[str]:
    """Columns that ``datasets`` declares as images, rather than sounds or others."""
    try:
        info = json.loads((schema.metadata or {})[b"huggingface"])
        features = info["info"]["features"].items()
        return {name for name, kind in features if kind.get("_type") == "Image"}
    except (KeyError, TypeError, ValueError, AttributeError):
        return set()
