"""Names of results: safe on any file system, and unique in their list."""

import hashlib
import itertools
import os
import unicodedata
from pathlib import PurePath


_FORBIDDEN = frozenset('<>:"|?*\\/')
# File systems allow 255 bytes; the suffixes of results need up to 55 of them.
_MAX_NAME_BYTES = 200


def safe_name(relative: PurePath) -> str:
    """Make a relative path that is valid on any file system and stays in its folder.

    Invisible characters (control, direction, surrogates of undecodable bytes) and
    characters that some file system forbids become ``_``, and so do ``..``, ``.`` and
    drives. Parts of more than 200 bytes are cut, and a digest replaces the rest.

    Args:
        relative: Path under the folder that was searched.

    Returns:
        The parts, with ``/`` between them.
    """
    return "/".join(map(_safe_part, relative.parts))


class UniqueNames:
    """Gives every name once, also where upper and lower case are the same."""

    def __init__(self):
        self._last: dict[str, int] = {}

    def __call__(self, name: str) -> str:
        """The name, or the first of ``a~2.jpg``, ``a~3.jpg``, ... that is free."""
        folded = name.casefold()
        if folded not in self._last:
            self._last[folded] = 1
            return name
        stem, suffix = os.path.splitext(name)
        numbers = itertools.count(self._last[folded] + 1)  # on from the last equal name
        for number in numbers:
            free = f"{stem}~{number}{suffix}"
            if free.casefold() not in self._last:
                break
        self._last[folded] = number
        self._last[free.casefold()] = 1
        return free


def _safe_part(part: str) -> str:
    safe = "".join(
        "_" if char in _FORBIDDEN or unicodedata.category(char)[0] == "C" else char
        for char in part
    )
    if not safe.strip(". "):
        return "_"
    if len(safe.encode()) <= _MAX_NAME_BYTES:
        return safe
    stem, suffix = os.path.splitext(safe)
    suffix = suffix if len(suffix.encode()) <= 8 else ""
    digest = hashlib.sha256(os.fsencode(part)).hexdigest()[:8]
    room = _MAX_NAME_BYTES - len(digest) - 1 - len(suffix)
    return f"{stem.encode()[:room].decode(errors='ignore')}~{digest}{suffix}"
