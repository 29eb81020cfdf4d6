"""Finding photos in files, folders, globs, archives and tables."""

import contextlib
import glob
import itertools
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from dslo_jax.errors import ImageError, cause_of
from dslo_jax.images.archives import images_of_archive
from dslo_jax.images.formats import MAX_PIXELS, num_pages
from dslo_jax.images.naming import UniqueNames, safe_name
from dslo_jax.images.parts import Page, Part, Row, Stdin, Unreadable
from dslo_jax.images.reading import (
    Photo,
    irregular_kind,
    is_address,
    no_such_path,
    read_file,
    read_photo,
)
from dslo_jax.images.tables import NoImages, find_column


_PHOTO_NAME = re.compile(
    r"[^.].*\.(avifs?|bmp|gif|hei[cf]|jfif|jp2|jpe|jpe?g|p[gnp]m|png|tiff?|webp)",
    re.IGNORECASE | re.DOTALL,
)
_ARCHIVE_NAME = re.compile(r"[^.].*\.tar", re.IGNORECASE | re.DOTALL)
_COMPRESSED_NAME = re.compile(
    r".*\.(tgz|tar\.(gz|bz2|xz|zst))", re.IGNORECASE | re.DOTALL
)
_TABLE_NAME = re.compile(r"[^.].*\.parquet", re.IGNORECASE | re.DOTALL)
_PAGES = re.compile(r"(.+)#([0-9]{1,9}|all)", re.DOTALL)
_COUNTED = 10**9  # pixels of a page, above which pages are not even counted
_RESULT = "segmentation.json"
_RUN = re.compile(r"run(-\d+of\d+)?\.json")  # the report of a run, or of its shard

_logger = logging.getLogger("dslo_jax")

Skip = Callable[[Path, str], None]


class FoundPhoto(NamedTuple):
    """A photo that was found, and the name of its results.

    Attributes:
        path: Path of the file that holds the photo.
        name: Path of the photo relative to the folder that was searched, with its
            suffix and with ``/`` between parts. It is safe under any output folder, and
            unique in its list, even on file systems that ignore upper and lower case.
        part: Where in the file the photo is; None if the file is the photo.
    """

    path: Path
    name: str
    part: Part | None = None

    @property
    def origin(self) -> str:
        """Where the photo is, for messages: ``shard.tar/cat.jpg``, ``scan.tif#3``."""
        return f"{self.path}{self.part.label if self.part is not None else ''}"

    def read(self, *, max_pixels: int = MAX_PIXELS) -> Photo:
        """Read the photo from where it is.

        Args:
            max_pixels: Upper limit of height times width, checked before decoding.

        Raises:
            ImageError: ``I01`` to ``I06``, and ``I10``, as for ``read_photo``.
        """
        if self.part is None:
            return read_photo(self.path, max_pixels=max_pixels)
        return self.part.read(self.path, max_pixels)


def _log_skipped(path: Path, reason: str) -> None:
    _logger.info("skipped %s: %s", path, reason)


def find_photos(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    recursive: bool = False,
    exclude: str | os.PathLike[str] | None = None,
    on_skip: Skip = _log_skipped,
) -> list[FoundPhoto]:
    """List the photos in files, folders and globs, and in the archives among them.

    A file that is named itself is listed whatever its suffix and kind, because reading
    it then gives a useful error. From folders and globs, files with the suffix of an
    image are listed in natural order (``2`` before ``10``), without hidden files.
    Pipes, devices, broken links and links to folders are skipped, so that no search is
    endless. A file that is found twice is listed once.

    Tar archives (``.tar``) and Parquet files (``.parquet``) stand for the images in
    them. ``scan.tif#3`` is page 3 of a file, counted from 0, and ``scan.tif#all`` all
    of its pages, unless a file has that very name. ``-`` is an image on standard input.

    Results are never taken for photos: folders that hold ``segmentation.json`` or
    ``run.json`` are skipped. A file that is named itself is taken even from there.

    Args:
        paths: Files, folders and glob patterns.
        recursive: Whether to search folders below the folders.
        exclude: An output folder, which is skipped where a search comes upon it.
        on_skip: Called with every path that is skipped and the reason.

    Returns:
        The photos, in the order of ``paths``.

    Raises:
        ImageError: A path does not exist, a pattern matches nothing, or no photo at
            all was found (``I01``).
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    search = _Search(recursive, exclude, on_skip)
    found: list[FoundPhoto] = []
    seen: set[tuple[str, Part | None]] = set()
    unique = UniqueNames()
    for path in given:
        for file, name, parts in search.photos_of(os.fspath(path)):
            absolute = os.path.abspath(file)
            for part in parts:
                if (absolute, part) in seen:
                    continue
                seen.add((absolute, part))
                label = "" if part is None else part.label
                found.append(FoundPhoto(file, unique(name + label), part))
    if not found:
        searched = ", ".join(repr(os.fspath(path)) for path in given) or "an empty list"
        hint = "" if recursive else "; to search folders below, use --recursive"
        raise ImageError("I01", f"no photo found in {searched}{hint}")
    return found


class _Search(NamedTuple):
    """How to search."""

    recursive: bool
    exclude: str | os.PathLike[str] | None
    on_skip: Skip

    def photos_of(self, text: str) -> Iterator[tuple[Path, str, Iterable[Part | None]]]:
        """Files of one argument, with a name and the photos in them."""
        if text == "-":
            yield Path("stdin"), "stdin", [Stdin()]
            return
        pages = None if os.path.lexists(text) else _PAGES.fullmatch(text)
        path = Path(pages[1] if pages else text)
        named = os.path.lexists(path) and not os.path.isdir(path)
        for root, file in self._files_of(path):
            parts = self._parts_of(file, pages and pages[2], named)
            yield file, safe_name(file.relative_to(root)), parts

    def _parts_of(
        self, file: Path, pages: str | None, named: bool
    ) -> Iterator[Part | None]:
        """The photos of a file; what is not regular is left to the reader to refuse."""
        if not file.is_file():
            return iter([None])
        if any(kind.fullmatch(file.name) for kind in (_ARCHIVE_NAME, _COMPRESSED_NAME)):
            return self._members(file)
        if _TABLE_NAME.fullmatch(file.name):
            return self._rows(file, named)
        return _pages(file, pages)

    def _files_of(self, path: Path) -> list[tuple[Path, Path]]:
        """Files of images, archives and tables, and the folder that was searched."""
        if os.path.isdir(path):
            root = path
            files = [file for file in self._walk(path) if _is_wanted(file)]
        elif os.path.lexists(path):
            return [(path.parent, path)]
        else:
            if is_address(path):
                raise no_such_path(path)
            pattern = str(path)
            fixed = itertools.takewhile(lambda p: not glob.has_magic(p), path.parts)
            root = Path(*fixed)
            matches = glob.glob(pattern, recursive=self.recursive)
            if not matches and glob.has_magic(pattern):
                raise ImageError(
                    "I01",
                    f"nothing matches the pattern {pattern!r} (from {os.getcwd()!r})",
                )
            if not matches:
                raise no_such_path(path)
            files = [file for file in map(Path, matches) if _is_wanted(file)]
            files = list(self._not_results(root, files))
        files.sort(key=_natural_key)
        return [(root, file) for file in files if _is_regular(file, self.on_skip)]

    def _walk(self, root: Path) -> Iterator[Path]:
        def skip_unreadable(error: OSError) -> None:
            self.on_skip(Path(error.filename), cause_of(error))

        for parent, folders, files in os.walk(root, onerror=skip_unreadable):
            is_root = Path(parent) == root
            reason = self._why_results(Path(parent), files, is_root=is_root)
            if reason is not None:
                self.on_skip(Path(parent), reason)
                folders.clear()
                continue
            for name in folders if self.recursive else ():
                if os.path.islink(os.path.join(parent, name)):
                    reason = "a link to a folder; name it directly to search it"
                    self.on_skip(Path(parent, name), reason)
            folders[:] = [name for name in folders if self.recursive and name[0] != "."]
            yield from (Path(parent, name) for name in files)

    def _not_results(self, root: Path, files: list[Path]) -> Iterator[Path]:
        """Leave out what a pattern matches in folders of results."""
        reasons: dict[Path, str | None] = {}
        for file in files:
            below = file.relative_to(root).parents
            for folder in [root / each for each in reversed(below)]:
                if folder not in reasons:
                    names: list[str] = []
                    with contextlib.suppress(OSError):  # what it holds is read later
                        names = os.listdir(folder)
                    is_root = folder == root
                    reasons[folder] = self._why_results(folder, names, is_root=is_root)
                    if (reason := reasons[folder]) is not None:
                        self.on_skip(folder, reason)
                if reasons[folder] is not None:
                    break
            else:
                yield file

    def _why_results(
        self, folder: Path, names: Iterable[str], *, is_root: bool
    ) -> str | None:
        """Why a folder holds results, and no photos; ``None`` if it may hold photos.

        Results may be written beside the photos. So a folder that is named itself is
        searched though it is the output folder.
        """
        excluded = self.exclude is not None and (
            os.path.realpath(folder) == os.path.realpath(self.exclude)
        )
        if excluded and not is_root:
            return "the output folder"
        for name in names:
            is_report = _RUN.fullmatch(name) is not None and not excluded
            if is_report or name == _RESULT:
                return f"results of an earlier run, as it holds {name}"
        return None

    def _members(self, file: Path) -> Iterator[Part]:
        none = True
        for part in images_of_archive(file, lambda name: _is_photo(Path(name))):
            none = False
            yield part
        if none:
            self.on_skip(file, "an archive without images")

    def _rows(self, file: Path, named: bool) -> Iterator[Part]:
        try:
            column, num_rows = find_column(file)
        except ImageError as error:
            yield _unreadable(error)
        except NoImages as error:
            if named:
                yield Unreadable("I02", f"{str(file)!r} holds {error}")
            else:
                self.on_skip(file, f"it holds {error}")
        else:
            yield from (Row(column, number) for number in range(num_rows))


def _pages(file: Path, wanted: str | None) -> Iterator[Part | None]:
    """The pages of a file that are wanted."""
    if wanted is None:
        yield None
    elif wanted != "all":
        yield Page(int(wanted))
    else:
        try:
            content = read_file(file, max_pixels=_COUNTED)
            count = num_pages(content, repr(str(file)), max_pixels=_COUNTED)
        except ImageError as error:
            yield _unreadable(error)
        else:
            yield from (Page(number) for number in range(count))


def _unreadable(error: ImageError) -> Unreadable:
    return Unreadable(error.code, str(error).removeprefix(f"[{error.code}] "))


def _is_photo(path: Path) -> bool:
    return _PHOTO_NAME.fullmatch(path.name) is not None


def _is_wanted(path: Path) -> bool:
    kinds = (_PHOTO_NAME, _ARCHIVE_NAME, _TABLE_NAME)
    return any(kind.fullmatch(path.name) for kind in kinds)


def _is_regular(path: Path, on_skip: Skip) -> bool:
    try:
        reason = irregular_kind(path.stat().st_mode)
    except OSError as error:  # a link that is broken or leads to itself
        reason = cause_of(error)
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
