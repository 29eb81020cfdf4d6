"""One run at a time in a folder."""

import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dslo_jax.errors import OptionError, OutputError


_NAME = ".lock"


@contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder, which is made where it is missing.

    The operating system holds the lock for as long as the process lives: one that was
    killed leaves nothing behind that would lock out the next.

    Args:
        folder: Where a run writes.

    Raises:
        OptionError: Another run is at work there; the message names it (``O08``).
        OutputError: The disk refuses (``O06``).
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(folder / _NAME, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise OutputError.cannot_write(folder, error) from error
    try:
        _lock(file, folder)
        yield
    finally:
        os.close(file)


def _lock(file: int, folder: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(file, 200, 0).decode(errors="replace") or "another process"
        raise OptionError(
            "O08",
            f"{str(folder)!r} is in use by {holder}; wait for its end, or choose "
            "another folder with --out",
        ) from error
    except OSError as error:
        raise OutputError.cannot_write(folder, error) from error
    try:
        os.ftruncate(file, 0)
        os.pwrite(file, f"process {os.getpid()} on {platform.node()}".encode(), 0)
    except OSError as error:
        raise OutputError.cannot_write(folder, error) from error
