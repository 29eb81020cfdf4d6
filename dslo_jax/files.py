"""Files and folders that are written whole or not at all, and text of people."""

import codecs
import contextlib
import errno
import hashlib
import io
import json
import math
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def atomic_file(
    path: str | os.PathLike[str], *, flush: bool = True
) -> Iterator[io.BufferedWriter]:
    """Write a file that appears under its name only when it is complete.

    The bytes are written to a hidden file in the same folder, which is flushed to the
    disk and then renamed. If anything fails before, the old file stays, or there is
    none. The new name is flushed to the disk as well, where the system can do that.
    Missing folders are created.

    Args:
        path: The file to write; an existing one is replaced.
        flush: Whether to flush to the disk. Without it, a power cut may leave a damaged
            file, but a killed process cannot.

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
            if flush:
                file.flush()
                os.fsync(file.fileno())
        neighbour.replace(path)
    finally:
        neighbour.unlink(missing_ok=True)
    if flush:
        _flush_names(path.parent)


@contextlib.contextmanager
def atomic_folder(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a folder that appears under its name only when it is complete.

    The files are written into a hidden folder beside it and flushed to the disk. POSIX
    cannot rename a folder over another that has files, so there are two renames: the
    old folder gets another hidden name, then the new one gets the name. At every moment
    the old or the new folder is whole. If the program is killed between the renames,
    the next call puts the old folder back before it begins; it also removes what any
    killed call left. If anything fails, the old folder is unchanged, or there is none.
    Two programs must not write the same folder at the same time.

    Args:
        folder: The folder to write; one that exists is replaced with all it holds. If
            it is a link, the folder that the link leads to is replaced.

    Yields:
        The hidden folder, which is empty.

    Raises:
        OSError: The folder cannot be written, or there is a file of this name.
    """
    folder = Path(os.path.realpath(folder))
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    # A hash instead of the name, which may already be as long as names can be.
    key = hashlib.sha256(os.fsencode(folder.name)).hexdigest()[:16]
    new, old = (folder.with_name(f".{key}.{part}") for part in ("new", "old"))
    _settle(folder, new, old)
    new.mkdir()
    try:
        yield new
        _flush_tree(new)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
        _flush_names(folder.parent)
    finally:
        _settle(folder, new, old)


def _settle(folder: Path, new: Path, old: Path) -> None:
    """Make of whatever a write left its old folder or its new one, and no other."""
    if old.exists() and not folder.exists():
        old.rename(folder)
    for left in (new, old):
        if left.exists():
            shutil.rmtree(left)


def _flush_tree(folder: Path) -> None:
    """Flush all files of a folder to the disk, and then their names."""
    for path in folder.rglob("*"):
        if path.is_dir():
            _flush_names(path)
        else:
            with path.open("r+b") as file:
                os.fsync(file.fileno())
    _flush_names(folder)


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


def read_text(path: str | os.PathLike[str]) -> str:
    """Read a text file that a person wrote, with any editor.

    Args:
        path: A file of UTF-8, with or without a byte order mark, or of UTF-16 with one,
            as some programs of Windows write.

    Returns:
        The text, without the mark; line ends as they are.

    Raises:
        OSError: The file cannot be read.
        UnicodeDecodeError: It is no such text.
    """
    return utf8_of(Path(path).read_bytes()).decode()


def utf8_of(content: bytes) -> bytes:
    """The same text as UTF-8 without a byte order mark.

    Raises:
        UnicodeDecodeError: The content begins as UTF-16 and is not.
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16").encode()
    return content.removeprefix(codecs.BOM_UTF8)


def parse_json(content: bytes) -> Any:
    """Read JSON that may come from anybody.

    Args:
        content: UTF-8, with or without a byte order mark.

    Returns:
        Plain values, which ``write_json`` can write again.

    Raises:
        ValueError: It is no JSON: not UTF-8, cut short, with NaN or an infinite number,
            with an integer of thousands of digits, or nested too deep.
    """
    try:
        return json.loads(
            content.decode("utf-8-sig"),
            parse_constant=_finite,
            parse_float=_finite,
        )
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no finite number")
    return number


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
