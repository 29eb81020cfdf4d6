"""Finding photos in files, folders and globs, and names for their results."""

import glob
import hashlib
import itertools
import logging
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePath
from typing import NamedTuple

from dslo_jax.errors import ImageError
from dslo_jax.images.reading import irregular_kind, no_such_path


# HEIC cannot be read. It is found all the same, so that the error can give a remedy.
_PHOTO_NAME = re.compile(
    r"[^.].*\.(avif|bmp|gif|hei[cf]|jfif|jp2|jpe|jpe?g|p[gnp]m|png|tiff?|webp)",
    re.IGNORECASE | re.DOTALL,
)
_FORBIDDEN = frozenset('<>:"|?*\\/')
# File systems allow 255 bytes; the suffixes of results need up to 55 of them.
_MAX_NAME_BYTES = 200

_logger = logging.getLogger("dslo_jax")


class FoundPhoto(NamedTuple):
    """A photo that was found, and the name of its results.

    Attributes:
        path: Path of the photo.
        name: Path of the photo relative to the folder that was searched, with its
            suffix and with ``/`` between parts. It is safe under any output folder, and
            unique in its list, even on file systems that ignore upper and lower case.
    """

    path: Path
    name: str


def _log_skipped(path: Path, reason: str) -> None:
    _logger.info("skipped %s: %s", path, reason)


def find_photos(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    recursive: bool = False,
    on_skip: Callable[[Path, str], None] = _log_skipped,
) -> list[FoundPhoto]:
    """List the photos in files, folders and globs.

    A file that is named itself is listed whatever its suffix and kind, because reading
    it then gives a useful error. From folders and globs, files with the suffix of an
    image are listed in natural order (``2`` before ``10``), without hidden files.
    Pipes, devices, broken links and links to folders are skipped, so that no search is
    endless. A file that is found twice is listed once.

    Args:
        paths: Files, folders and glob patterns.
        recursive: Whether to search folders below the folders.
        on_skip: Called with every path that is skipped and the reason.

    Returns:
        The photos, in the order of ``paths``.

    Raises:
        ImageError: A path does not exist, a pattern matches nothing, or no photo at
            all was found (``I01``).
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    found: list[FoundPhoto] = []
    seen: set[str] = set()
    taken: set[str] = set()
    for path in map(Path, given):
        for root, file in _photos_of(path, recursive, on_skip):
            if (absolute := os.path.abspath(file)) in seen:
                continue
            seen.add(absolute)
            name = _unused(safe_name(file.relative_to(root)), taken)
            taken.add(name.casefold())
            found.append(FoundPhoto(file, name))
    if not found:
        searched = ", ".join(repr(str(path)) for path in given) or "an empty list"
        hint = "" if recursive else "; to search folders below, use --recursive"
        raise ImageError("I01", f"no photo found in {searched}{hint}")
    return found


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


def _unused(name: str, taken: set[str]) -> str:
    """The name itself, or the first of ``a~2.jpg``, ``a~3.jpg``, ... that is free."""
    stem, suffix = os.path.splitext(name)
    numbered = (f"{stem}~{number}{suffix}" for number in itertools.count(2))
    return next(
        n for n in itertools.chain([name], numbered) if n.casefold() not in taken
    )


def _photos_of(
    path: Path, recursive: bool, on_skip: Callable[[Path, str], None]
) -> list[tuple[Path, Path]]:
    """Find photos; each comes with the folder that was searched."""
    if os.path.isdir(path):
        files = [file for file in _walk(path, recursive, on_skip) if _is_photo(file)]
        root = path
    elif os.path.lexists(path):
        return [(path.parent, path)]
    else:
        pattern = str(path)
        fixed = itertools.takewhile(lambda part: not glob.has_magic(part), path.parts)
        root = Path(*fixed)
        matches = glob.glob(pattern, recursive=recursive)
        if not matches and glob.has_magic(pattern):
            raise ImageError(
                "I01", f"nothing matches the pattern {pattern!r} (from {os.getcwd()!r})"
            )
        if not matches:
            raise no_such_path(path)
        files = [file for file in map(Path, matches) if _is_photo(file)]
    files.sort(key=_natural_key)
    return [(root, file) for file in files if _is_regular(file, on_skip)]


def _walk(
    folder: Path, recursive: bool, on_skip: Callable[[Path, str], None]
) -> Iterator[Path]:
    def skip_unreadable(error: OSError) -> None:
        on_skip(Path(error.filename), error.strerror or str(error))

    for parent, folders, files in os.walk(folder, onerror=skip_unreadable):
        for name in folders if recursive else ():
            if os.path.islink(os.path.join(parent, name)):
                reason = "a link to a folder; name it directly to search it"
                on_skip(Path(parent, name), reason)
        folders[:] = [name for name in folders if recursive and name[0] != "."]
        yield from (Path(parent, name) for name in files)


def _is_photo(path: Path) -> bool:
    return _PHOTO_NAME.fullmatch(path.name) is not None


def _is_regular(path: Path, on_skip: Callable[[Path, str], None]) -> bool:
    try:
        reason = irregular_kind(path.stat().st_mode)
    except OSError as error:  # a link that is broken or leads to itself
        reason = error.strerror or str(error)
    if reason is not None:
        on_skip(path, reason)
    return reason is None


def _natural_key(path: Path) -> list[list[str | int]]:
    """Sort key that compares digits as numbers; the spelling decides between equals."""
    keys: list[list[str | int]] = [
        [
            int(piece) if index % 2 else piece.casefold()
            for index, piece in enumerate(re.split(r"([0-9]+)", part))
        ]
        for part in path.parts
    ]
    return [*keys, [str(path)]]
