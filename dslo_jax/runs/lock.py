"""One run at a time in a folder."""

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dslo_jax.errors import OptionError, OutputError


if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


_NAME = ".lock"
_WORDS = 200  # bytes of the name of who holds the lock


@contextmanager
def only_run(folder: Path, suffix: str = "") -> Iterator[None]:
    """Keep other runs out of a folder, which is made where it is missing.

    The operating system holds the lock for as long as the process lives: one that was
    killed leaves nothing behind that would lock out the next.

    Args:
        folder: Where a run writes.
        suffix: Runs with different suffixes may share the folder, as shards do.

    Raises:
        OptionError: Another run is at work there; the message names it (``O08``).
        OutputError: The disk refuses (``O06``).
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(folder / f"{_NAME}{suffix}", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise OutputError.cannot_write(folder, error) from error
    try:
        _lock(file, folder)
        yield
    finally:
        os.close(file)


def _lock(file: int, folder: Path) -> None:
    try:
        _take(file)
    except (BlockingIOError, PermissionError) as error:
        os.lseek(file, 0, os.SEEK_SET)
        holder = os.read(file, _WORDS).decode(errors="replace") or "another process"
        raise OptionError(
            "O08",
            f"{str(folder)!r} is in use by {holder}; wait for its end, or choose "
            "another folder with --out",
        ) from error
    except OSError as error:
        raise OutputError.cannot_write(folder, error) from error
    try:
        os.ftruncate(file, 0)
        os.lseek(file, 0, os.SEEK_SET)
        os.write(file, f"process {os.getpid()} on {platform.node()}".encode())
    except OSError as error:
        raise OutputError.cannot_write(folder, error) from error


def _take(file: int) -> None:
    """Take the lock of an open file; raises ``OSError`` at once where others hold it.

    Windows locks bytes, and lets nobody else read them: so one behind the words.
    """
    if sys.platform == "win32":
        os.lseek(file, _WORDS, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
