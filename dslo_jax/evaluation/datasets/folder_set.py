"""A data set of one's own: photos, masks of ids, and a list of classes."""

import itertools
import os
from pathlib import Path

from dslo_jax.errors import ClassListError, ImageError
from dslo_jax.evaluation.datasets.labelled import Entry, LabelledPhotos
from dslo_jax.evaluation.datasets.layouts import contents, file_tree, not_found
from dslo_jax.evaluation.datasets.masks import PLAIN, present_values
from dslo_jax.evaluation.metrics import IGNORE
from dslo_jax.images import MAX_PIXELS, find_photos, read_label_ids
from dslo_jax.prompts import ClassList, read_class_file


_FILES = [
    "classes.txt (one class per line, the first is id 0; commas between synonyms)",
    "images/NAME.jpg (or another kind of photo)",
    "masks/NAME.png (palette or grey, ids of classes; 255 is ignored; or .bmp, .tif)",
]
_MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff")


class FolderSet(LabelledPhotos):
    """Photos in ``images``, masks of the same names in ``masks``, ``classes.txt``.

    The value of a pixel is the label of its class: its place in ``classes.txt``,
    counted from 0; 255 is ignored. Every label needs a class: a blank line between
    classes is refused, unless the lines have ids. A mask that is missing, of otherwise
    many, is an error when it is read.

    Masks that hold nothing but 0 and 255 are refused: they seem to be black and white
    drawings, of which the white would be ignored. To see this, masks are read until one
    holds another value; usually it is the first.

    Args:
        root: The folder.
        max_pixels: Greatest number of pixels of a photo or a mask.

    Raises:
        OptionError: One of the three is missing, or two photos or two masks have one
            name (``O07``).
        ImageError: No mask holds a class but the first, and 255 occurs (``I09``).
        ClassListError: The class file is not usable (``C01`` to ``C10``), or holds more
            than 255 classes (``C09``).
    """

    def __init__(self, root: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS):
        root = Path(root)
        tree = file_tree(str(root), _FILES)
        entries, classes = _entries(root, tree), _read_classes(root, tree)
        _check_ids(entries, classes, max_pixels)
        super().__init__(
            entries,
            classes,
            table=PLAIN,
            # Recent tools show photos upright, older ones as they are stored.
            drawn_on_stored=False,
            max_pixels=max_pixels,
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
        found = find_photos(root / "images")
        photos = [each.path for each in found if each.part is None]
    except ImageError as error:
        raise not_found(f"no photos: {contents(root / 'images')}", tree) from error
    entries = sorted(
        Entry(photo.stem, photo, _mask_of(photo.stem, root / "masks", tree))
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


def _mask_of(stem: str, folder: Path, tree: str) -> Path:
    """The mask of a photo; that it is missing is told when it is read."""
    masks = [folder / f"{stem}{suffix}" for suffix in _MASK_SUFFIXES]
    there = [mask for mask in masks if mask.is_file()]
    if len(there) > 1:
        names = " and ".join(repr(mask.name) for mask in there)
        raise not_found(f"{names} would be masks of one photo; remove one", tree)
    return (there or masks)[0]


def _check_ids(entries: list[Entry], classes: ClassList, max_pixels: int) -> None:
    """Raise if 255, which is ignored, seems to stand for a class in all masks.

    A border of 255 around objects raises no alarm, because the objects have ids.
    """
    if len(classes) < 2:
        return
    seen: set[int] = set()
    for entry in entries:
        try:
            ids = read_label_ids(entry.mask, max_pixels=max_pixels)
            seen.update(present_values(ids))
        except ImageError:  # it is told when it is read
            continue
        if seen - {0, IGNORE}:
            return
    if IGNORE in seen:
        held = " and ".join(map(str, sorted(seen)))
        raise ImageError(
            "I09",
            f"the masks in {str(entries[0].mask.parent)!r} hold only {held}, and "
            f"{IGNORE} is ignored, so that {classes.titles[1]!r} never occurs; if "
            f"{IGNORE} stands for a class, save its id instead, such as 1",
        )
