"""Files that are there whole or not at all."""

import contextlib
import errno
import io
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[io.BufferedWriter]:
    """Write a file that appears under its name only when it is complete.

    The bytes go to a hidden neighbour, are flushed to the disk and renamed. Whatever
    happens before leaves the old file, or none. Then the name is flushed as well, where
    the system can. Missing folders are made.

    Args:
        path: The file to write; an existing one is replaced.

    Yields:
        The open neighbour.

    Raises:
        OSError: The file cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    neighbour = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with neighbour.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        neighbour.replace(path)
    finally:
        neighbour.unlink(missing_ok=True)
    _flush_names(path.parent)


def _flush_names(folder: Path) -> None:
    """Bring the names in a folder to the disk, so that a power cut undoes no renaming.

    Where that is impossible it is left out: Windows opens no folder, a folder may be
    writable and not readable, and some file systems flush none.
    """
    try:
        opened = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(opened)


def write_json(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write a JSON object, indented as Hugging Face does it, whole or not at all.

    Args:
        path: The file to write; an existing one is replaced.
        content: Plain values.

    Raises:
        OSError: The file cannot be written.
    """
    with atomic_file(path) as file:
        file.write(json.dumps(dict(content), indent=2).encode() + b"\n")
