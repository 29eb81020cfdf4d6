"""Entries of the cache: files with a checksum, written whole or not at all.

An entry that is damaged is removed and counts as missing, so the next run writes it
again. No function here raises an error of the system: a cache that fails makes a run
slower, and never stops it.
"""

import contextlib
import hashlib
import logging
import os
from pathlib import Path

from dslo_jax.cache import folders
from dslo_jax.files import atomic_file


logger = logging.getLogger(__name__)

_CHECKSUM_BYTES = hashlib.sha256().digest_size


class Entries:
    """The entries of one folder.

    Args:
        folder: From ``folders.private_folder``.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._size: int | None = None  # of the whole cache, as far as we know

    def read(self, name: str) -> bytes | None:
        """The content of an entry; ``None`` if there is none that can be used."""
        path = self.folder / name
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            folders.warn_once(self.folder, error)
            return None
        checksum, content = content[:_CHECKSUM_BYTES], content[_CHECKSUM_BYTES:]
        if checksum != hashlib.sha256(content).digest():
            self.drop(name, "its checksum is wrong")
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # the entries that were not used for longest go first
        return content

    def write(self, name: str, content: bytes) -> None:
        """Write an entry; one of the same name is replaced."""
        limit = folders.size_limit()
        size = _CHECKSUM_BYTES + len(content)
        if size > limit:
            return
        try:
            with atomic_file(self.folder / name, flush=False) as file:
                file.write(hashlib.sha256(content).digest())
                file.write(content)
        except OSError as error:
            folders.warn_once(self.folder, error)
            return
        # Other processes may write too; each start of a process counts again.
        self._size = None if self._size is None else self._size + size
        if self._size is None or self._size > limit:
            self._size = folders.make_room(limit)

    def drop(self, name: str, reason: str) -> None:
        """Remove an entry that cannot be used, and say so."""
        logger.warning("an entry of the cache is made again, because %s", reason)
        with contextlib.suppress(OSError):
            (self.folder / name).unlink()
