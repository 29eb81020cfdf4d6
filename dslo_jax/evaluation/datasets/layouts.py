"""Where the files of a data set lie, and what to say when they do not."""

import itertools
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dslo_jax.errors import OptionError
from dslo_jax.files import read_text


_SHOWN = 8  # entries of a folder that an error message lists


@dataclass(frozen=True)
class Layout:
    """Where mmsegmentation keeps the files of a benchmark.

    Args:
        home: Usual place of the root under one folder for all data sets.
        split: Name of the part that is measured.
        num_photos: How many photos the published split has.
        photos: Folder of the photos.
        label_folders: Folders that labels may come from; the first unless chosen.
        photo_suffix: What follows the name of a sample in that of its photo.
        label_suffix: What follows the name of a sample in that of its labels.
        split_file: Text with one name a line; None where every photo counts.
        published: What the labels are converted from, with ``{name}`` for the name of
            a sample; None where labels are used as they are published.
    """

    home: str
    split: str
    num_photos: int
    photos: str
    label_folders: tuple[str, ...]
    photo_suffix: str = ".jpg"
    label_suffix: str = ".png"
    split_file: str | None = None
    published: str | None = None

    def photo(self, root: Path, name: str) -> Path:
        """The photo of a sample."""
        return root / self.photos / f"{name}{self.photo_suffix}"

    def labels(self, root: Path, name: str, folder: str) -> Path:
        """The labels of a sample in one of ``label_folders``."""
        return root / folder / f"{name}{self.label_suffix}"

    def tree(self, label_folder: str, example: str) -> str:
        """The expected files, one a line, for an error message."""
        files = [
            f"{self.photos}/{example}{self.photo_suffix}",
            f"{label_folder}/{example}{self.label_suffix}",
        ]
        if self.split_file is not None:
            files.append(f"{self.split_file} ({self.num_photos} names, one a line)")
        if self.published is not None:
            files.append(f"{self.published.format(name=example)} (to convert from)")
        return file_tree(self.home, files)


def file_tree(root: str, files: list[str]) -> str:
    """A root and the files under it, indented, for an error message."""
    return "\n".join([f"  {root}/", *(f"    {file}" for file in files)])


def not_found(found: str, tree: str) -> OptionError:
    """The error for a data set that is not laid out as expected.

    Args:
        found: What was looked for, and what is there.
        tree: The expected files.
    """
    return OptionError("O07", f"{found}\nexpected:\n{tree}")


def contents(folder: Path) -> str:
    """What is in a folder, in a few words, for an error message."""
    if not folder.is_dir():
        return f"{str(folder)!r} is no folder"
    entries = sorted(os.listdir(folder))
    if not entries:
        return f"{str(folder)!r} is empty"
    more = f" and {len(entries) - _SHOWN} more" if len(entries) > _SHOWN else ""
    return f"{str(folder)!r} holds {', '.join(entries[:_SHOWN])}{more}"


def find_root(layout: Layout, root: Path, tree: str) -> Path:
    """The root of a data set, or the same below a folder of several data sets.

    Args:
        layout: Where the files lie.
        root: The data set's own folder, or one that holds it at ``layout.home`` or at
            the end of that path: ``data``, ``data/VOCdevkit``, or
            ``data/VOCdevkit/VOC2012``.
        tree: The expected files.

    Returns:
        The folder that has the photos' folder in it.

    Raises:
        OptionError: None of them has one (``O07``).
    """
    parts = PurePosixPath(layout.home).parts
    tails = [Path(*parts[start:]) for start in range(len(parts), -1, -1)]
    for tail in tails:
        if (root / tail / layout.photos).is_dir():
            return root / tail
    looked = ", ".join(repr(str(root / tail / layout.photos)) for tail in tails)
    raise not_found(f"no folder of photos: {contents(root)}; looked for {looked}", tree)


def list_names(folder: Path, suffix: str) -> list[str]:
    """The names of the files with a suffix, in a folder and those below it.

    Returns:
        Paths under the folder without the suffix, ``/`` between parts, sorted. Hidden
        files are left out, such as the ``._`` ones that macOS leaves behind.
    """
    return sorted(
        path.relative_to(folder).as_posix().removesuffix(suffix)
        for path in folder.rglob(f"*{suffix}")
        if not path.name.startswith(".")
    )


def read_split(path: Path, tree: str) -> list[str]:
    """The names that a split file lists, sorted.

    Raises:
        OptionError: The file is missing or no text, or a name occurs twice or leads
            out of the data set (``O07``).
    """
    if not path.is_file():
        raise not_found(f"no split file {str(path)!r}; {contents(path.parent)}", tree)
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        found = f"the split file {str(path)!r} is no text: {error}"
        raise not_found(found, tree) from error
    names = sorted(line.strip() for line in text.splitlines() if line.strip())
    for name, following in itertools.pairwise(names):
        if name == following:
            raise not_found(f"{str(path)!r} lists {name!r} twice", tree)
    for name in names:
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts:
            raise not_found(
                f"{str(path)!r} lists {name!r}, which leads out of the data set", tree
            )
    return names
