"""The folders of the cache: where they are, who may use them, how large they grow."""

import contextlib
import functools
import hashlib
import logging
import os
import platform
import re
import shutil
import stat
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from dslo_jax.errors import OptionError, cause_of


logger = logging.getLogger(__name__)

KINDS = ("compiled", "names")
"""The sub-folders: compiled programs, and features of class names."""

_PLACE, _SIZE = "DSLO_CACHE", "DSLO_CACHE_SIZE"
_DEFAULT_SIZE = "2 GB"
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_PRIVATE = 0o700


class Content(NamedTuple):
    """The content of a folder.

    Attributes:
        size: Bytes of all its files.
        files: Number of files.
    """

    size: int
    files: int


def root() -> Path | None:
    """The folder of the whole cache; it need not exist.

    ``DSLO_CACHE`` chooses it; without this variable it is ``dslo-jax`` in the user's
    folder for caches (``XDG_CACHE_HOME`` or ``~/.cache``; ``~/Library/Caches`` on
    macOS, ``%LOCALAPPDATA%`` on Windows).

    Returns:
        The folder; ``None`` if ``DSLO_CACHE`` is empty, which switches the cache off,
        or if the user has no home folder.
    """
    chosen = os.environ.get(_PLACE)
    if chosen is not None:
        return Path(os.path.abspath(os.path.expanduser(chosen))) if chosen else None
    above = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(above):  # the standard says to ignore a relative path
        above = _user_folder()
    return Path(above) / "dslo-jax" if os.path.isabs(above) else None


def _user_folder() -> str:
    if sys.platform == "darwin":
        return os.path.expanduser("~/Library/Caches")
    if sys.platform == "win32":
        return os.environ.get("LOCALAPPDATA", "")
    return os.path.expanduser("~/.cache")


def size_limit() -> int:
    """Greatest size of the cache in bytes, from ``DSLO_CACHE_SIZE``; default 2 GB.

    Raises:
        OptionError: The variable is not a size such as ``500 MB`` (``O01``).
    """
    text = os.environ.get(_SIZE, "") or _DEFAULT_SIZE
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", text.strip().upper())
    if found is None:
        raise OptionError(
            "O01",
            f"{_SIZE} = {text!r}; expected a size such as '500 MB' or '2 GB'",
        )
    return int(float(found[1]) * _UNITS[found[2]])


def private_folder(kind: str, *below: str) -> Path | None:
    """A sub-folder of the cache that only this user may read and write.

    Compiled programs are code: whoever can write them can run code as this user.

    Args:
        kind: One of ``KINDS``.
        *below: Names of the folders below.

    Returns:
        The folder; ``None`` if the cache is switched off or cannot be used. The first
        time that it cannot be used, a warning says why.
    """
    above = root()
    if above is None or size_limit() == 0:
        return None
    try:
        above.mkdir(parents=True, exist_ok=True, mode=_PRIVATE)
        folder = above / kind
        folder.mkdir(exist_ok=True, mode=_PRIVATE)
        _make_private(folder)
        folder = folder.joinpath(*below)
        folder.mkdir(parents=True, exist_ok=True, mode=_PRIVATE)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(f"{folder.name} cannot be written")
    except OSError as error:
        warn_once(above, error)
        return None
    return folder


def _make_private(folder: Path) -> None:
    """Take away the rights of others to a folder.

    Raises:
        PermissionError: The folder belongs to another user, or is a symbolic link.
    """
    if not hasattr(os, "geteuid"):
        return  # Windows: the folders of a user are private already
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise PermissionError(f"{folder.name} is not a folder of this user")
    if stat.S_IMODE(status.st_mode) != _PRIVATE:
        folder.chmod(_PRIVATE)


_warned: set[Path] = set()


def warn_once(place: Path, error: OSError) -> None:
    """Warn that a place of the cache cannot be used; once per place and process."""
    if place not in _warned:
        _warned.add(place)
        logger.warning(
            "the cache is not used, which makes every start slower: %s; `dslo cache "
            "path` tells its folder, DSLO_CACHE chooses another, and an empty "
            "DSLO_CACHE switches the cache off",
            cause_of(error),  # without the path, which is private
        )


def machine_key(device: Any) -> str:
    """The name of the folder for one kind of machine and one set of versions.

    A program that was compiled for one processor may stop the process on another, and
    a home folder may be shared by many machines. Numbers may differ between versions.

    Args:
        device: The JAX device that programs run on.
    """
    versions = [f"{name}-{version(name)}" for name in ("dslo-jax", "jax", "jaxlib")]
    system = [platform.system(), platform.machine(), device.platform]
    exact = [device.device_kind, device.client.platform_version, processor()]
    digest = hashlib.sha256("\n".join([*versions, *system, *exact]).encode())
    return "-".join([*versions, device.platform, digest.hexdigest()[:16]])


@functools.cache
def processor() -> str:
    """The model of the processor and its instruction sets, as the system tells them."""
    wanted = ("model name", "flags", "Features", "CPU part", "CPU implementer")
    found = {}
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name.strip() in wanted:
                found.setdefault(name.strip(), " ".join(sorted(value.split())))
    return repr(sorted(found.items())) if found else platform.processor()


def content_of(folder: Path) -> Content:
    """The size of a folder and the number of its files; zeros if there is none."""
    sizes = [status.st_size for _, status in _files(folder)]
    return Content(sum(sizes), len(sizes))


def make_room(limit: int) -> int:
    """Remove the entries that were not used for longest, until the cache is smaller.

    Args:
        limit: Greatest size of all entries together, in bytes.

    Returns:
        The size of what is left, in bytes.
    """
    above = root()
    if above is None:
        return 0
    files = [found for kind in KINDS for found in _files(above / kind)]
    files.sort(key=lambda found: found[1].st_mtime_ns)
    size = sum(status.st_size for _, status in files)
    for path, status in files:
        if size <= limit:
            break
        with contextlib.suppress(OSError):  # another process was faster
            path.unlink()
        size -= status.st_size
    return size


def clear(kind: str) -> Content:
    """Remove one kind of entries.

    Args:
        kind: One of ``KINDS``.

    Returns:
        What was removed.

    Raises:
        OSError: A file cannot be removed.
    """
    above = root()
    if above is None:
        return Content(0, 0)
    removed = content_of(above / kind)
    if (above / kind).exists():
        shutil.rmtree(above / kind)
    return removed


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # another process has removed it
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                yield path, status
