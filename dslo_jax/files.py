"""Files that are written whole or not at all."""

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

    The bytes are written to a hidden file in the same folder, which is flushed to the
    disk and then renamed. If anything fails before, the old file stays, or there is
    none. The new name is flushed to the disk as well, where the system can do that.
    Missing folders are created.

    Args:
        path: The file to write; an existing one is replaced.

    Yields:
        The hidden file, open for writing.

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
    """Flush the names in a folder to the disk, so that no power cut undoes a renaming.

    Nothing happens where this is impossible: Windows cannot open a folder, a folder may
    be writable but not readable, and some file systems cannot flush folders.
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


def write_json(
    path: str | os.PathLike[str], content: Mapping[str, Any], *, indent: int = 2
) -> None:
    """Write a JSON object whole or not at all.

    Args:
        path: The file to write; an existing one is replaced.
        content: Plain values.
        indent: Spaces for each level; 2 as in files of Hugging Face.

    Raises:
        ValueError: A number is not finite, which JSON cannot express.
        OSError: The file cannot be written.
    """
    text = json.dumps(dict(content), indent=indent, allow_nan=False)
    with atomic_file(path) as file:
        file.write(text.encode() + b"\n")


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text whole or not at all, as UTF-8; lone surrogates become escapes.

    Args:
        path: The file to write; an existing one is replaced.
        text: The text.

    Raises:
        OSError: The file cannot be written.
    """
    with atomic_file(path) as file:
        file.write(text.encode("utf-8", "backslashreplace"))
