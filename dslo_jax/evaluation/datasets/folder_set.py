"""A data set of one's own: photos, masks of ids, and a list of classes."""

import itertools
import os
from pathlib import Path

from dslo_jax.errors import ClassListError, ImageError
from dslo_jax.evaluation.datasets.labelled import Entry, LabelledPhotos
from dslo_jax.evaluation.datasets.layouts import contents, file_tree, not_found
from dslo_jax.evaluation.datasets.masks import PLAIN
from dslo_jax.evaluation.metrics import IGNORE
from dslo_jax.images import find_photos
from dslo_jax.prompts import ClassList, read_class_file


_FILES = [
    "classes.txt (one class per line, the first is id 0; commas between synonyms)",
    "images/NAME.jpg (or another kind of photo)",
    "masks/NAME.png (8-bit palette or grey, ids of classes; 255 is ignored)",
]


class FolderSet(LabelledPhotos):
    """Photos in ``images``, masks of the same names in ``masks``, ``classes.txt``.

    The value of a pixel is the label of its class: its place in ``classes.txt``,
    counted from 0; 255 is ignored. Every label needs a class: a blank line between
    classes is refused, unless the lines have ids. A mask that is missing, of otherwise
    many, is an error when it is read.

    Args:
        root: The folder.

    Raises:
        OptionError: One of the three is missing, or two photos have one name (``O07``).
        ClassListError: The class file is not usable (``C01`` to ``C10``), or holds more
            than 255 classes (``C09``).
    """

    def __init__(self, root: str | os.PathLike[str]):
        root = Path(root)
        tree = file_tree(str(root), _FILES)
        super().__init__(
            _entries(root, tree),
            _read_classes(root, tree),
            table=PLAIN,
            # Recent tools show photos upright, older ones as they are stored.
            drawn_on_stored=False,
        )

    def describe(self) -> dict[str, object]:
        """What a measurement depends on, for a report.

        Returns:
            Names, the count, and a sha256 over names, file sizes and classes, which
            tells whether the data changed.
        """
        return {
            "name": "folder",
            "split": None,
            "label_folder": "masks",
            "photos": len(self),
            "sha256": self.digest(),
        }


def _read_classes(root: Path, tree: str) -> ClassList:
    path = root / "classes.txt"
    if not path.is_file():
        raise not_found(f"no class file {str(path)!r}; {contents(root)}", tree)
    classes = read_class_file(path, allow_blank_lines=False)
    if len(classes) > IGNORE:
        raise ClassListError(
            "C09",
            f"{str(path)!r} has {len(classes)} classes; an 8-bit mask tells {IGNORE} "
            "apart, as 255 is ignored",
        )
    return classes


def _entries(root: Path, tree: str) -> list[Entry]:
    try:
        photos = [found.path for found in find_photos(root / "images")]
    except ImageError as error:
        raise not_found(f"no photos: {contents(root / 'images')}", tree) from error
    entries = sorted(
        Entry(photo.stem, photo, root / "masks" / f"{photo.stem}.png")
        for photo in photos
    )
    for entry, following in itertools.pairwise(entries):
        if entry.name == following.name:
            raise not_found(
                f"{entry.photo.name!r} and {following.photo.name!r} would share the "
                f"mask {entry.mask.name!r}; rename one",
                tree,
            )
    if not any(entry.mask.is_file() for entry in entries):
        raise not_found(
            f"none of the {len(entries)} photos has a mask; looked for "
            f"{str(entries[0].mask)!r} and so on; {contents(root / 'masks')}",
            tree,
        )
    return entries
