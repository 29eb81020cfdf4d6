"""The classes of a segmentation, and the checks that every list of them passes."""

import unicodedata
from collections.abc import ItemsView, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field

from dslo_jax.errors import ClassListError, brief
from dslo_jax.outputs.labels import MAX_CLASSES


_ORDERED_KEYS = type({}.keys())  # a Set, but in the order of its dict
_MARK = "\ufeff"  # the byte order mark, which no editor shows

BACKGROUND = "background"
"""The name that makes a class the background class."""


@dataclass(frozen=True)
class ClassList:
    """Classes in the order of their labels.

    Args:
        synonyms: The names of every class; at least one class, one name each. Use
            ``parse_classes``, ``classes_of_options`` or ``read_class_file``, which
            check.
        notes: What a person should know of how the list was read, in sentences. Two
            lists that differ only in these are equal.
        background: Index of the background class; default: the first class that has the
            name ``"background"``, if there is one.
    """

    synonyms: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = field(default=(), compare=False)
    background: int | None = None

    def __post_init__(self):
        if self.background is None:
            called = (i for i, names in enumerate(self.synonyms) if _is_called(names))
            object.__setattr__(self, "background", next(called, None))

    def __len__(self) -> int:
        return len(self.synonyms)

    @property
    def titles(self) -> tuple[str, ...]:
        """Title of each class: its first name.

        A background class that is known by other words has the title "background".
        """
        found = [names[0] for names in self.synonyms]
        if self.background is not None and not _is_called(
            self.synonyms[self.background]
        ):
            found[self.background] = BACKGROUND
        return tuple(found)

    @property
    def names(self) -> tuple[str, ...]:
        """All names, class by class."""
        return tuple(name for names in self.synonyms for name in names)

    @property
    def class_of_name(self) -> tuple[int, ...]:
        """Index of the class of each of ``names``; never decreases."""
        return tuple(i for i, names in enumerate(self.synonyms) for _ in names)


def parse_classes(
    classes: ClassList | Iterable[str | Iterable[str]],
    *,
    allow_duplicates: bool = False,
) -> ClassList:
    """Check class names given in Python.

    Args:
        classes: One entry per class: a name, or its synonyms, in a list or anything
            else that has an order. A ``ClassList`` is returned as it is. Names are
            taken as they are: a quote, a comma or a ``#`` has no meaning here.
        allow_duplicates: Whether a name may occur twice, as "bed" does in the usual
            COCO-Object list; the first class with the name then wins every tie.

    Returns:
        The classes; spaces around names are removed.

    Raises:
        ClassListError: The list is empty or a name is blank (``C01``), two names differ
            only in case and spaces (``C02``), the argument is a string, a set, a dict
            or no list at all (``C04``), a name contains control characters (``C06``),
            or there are more classes than a label map can hold (``C09``).
    """
    if isinstance(classes, ClassList):
        return classes
    if isinstance(classes, str):
        guess = [part.strip() for part in classes.split(",")]
        raise ClassListError(
            "C04",
            f"`classes` is the string {brief(classes)}; did you mean {brief(guess)}?",
        )
    entries = []
    for number, entry in enumerate(_in_order(classes, "`classes`"), start=1):
        place = f"class {number}"
        names = (entry,) if isinstance(entry, str) else _in_order(entry, place)
        entries.append((place, names))
    return checked(entries, allow_duplicates=allow_duplicates)


def checked(
    entries: Iterable[tuple[str, Sequence[object]]],
    *,
    allow_duplicates: bool,
    notes: tuple[str, ...] = (),
) -> ClassList:
    """Strip and check all names.

    Args:
        entries: Of every class its place, which errors name, and its names.
        allow_duplicates: Whether a name may occur twice.
        notes: Notes of the list.

    Raises:
        ClassListError: As for ``parse_classes``.
    """
    seen: dict[str, str] = {}
    synonyms = []
    for place, entry in entries:
        names = tuple(_checked_name(name, place) for name in entry)
        if not names:
            raise ClassListError("C01", f"{place} has no name")
        for name in names:
            key = comparable(name)
            if key in seen and not allow_duplicates:
                raise ClassListError(
                    "C02", f"{brief(name)} of {place} repeats a name of {seen[key]}"
                )
            seen.setdefault(key, place)
        synonyms.append(names)
    if not synonyms:
        raise ClassListError("C01", "there is no class; name at least one")
    if len(synonyms) > MAX_CLASSES:
        raise ClassListError(
            "C09",
            f"there are {len(synonyms)} classes, a label map holds {MAX_CLASSES}; "
            "shorten the list",
        )
    return ClassList(tuple(synonyms), notes)


def comparable(name: str) -> str:
    """The same for names that are equal to a reader and to the text network."""
    return unicodedata.normalize("NFC", " ".join(name.split()).casefold())


def _is_called(names: Sequence[str]) -> bool:
    """Whether "background" is one of the names."""
    return any(comparable(name) == BACKGROUND for name in names)


def _in_order(values: object, place: str) -> tuple:
    """The values of a collection that has an order; labels and titles depend on it."""
    kind = type(values).__name__
    if isinstance(values, Set) and not isinstance(values, _ORDERED_KEYS):
        raise ClassListError(
            "C04",
            f"{place} is a {kind}, which has no order of its own, so that labels would "
            "change from run to run; pass a list, such as sorted(...)",
        )
    if isinstance(values, Mapping | ItemsView):
        raise ClassListError(
            "C04",
            f"{place} is a {kind}; pass a list: of its keys or of its values, "
            "whichever are the names",
        )
    if isinstance(values, bytes | bytearray | memoryview):
        raise ClassListError("C04", f"{place} is {kind}; pass text: decode it first")
    try:
        return tuple(values)  # pyright: ignore[reportArgumentType]
    except TypeError as error:
        raise ClassListError(
            "C04",
            f"{place} is {brief(values)} of type {kind}; expected a list of names",
        ) from error


def _checked_name(name: object, place: str) -> str:
    if not isinstance(name, str):
        raise ClassListError(
            "C04",
            f"{place} holds {brief(name)} of type {type(name).__name__}; "
            "expected a name",
        )
    if not name.strip():
        raise ClassListError(
            "C01",
            f"{place} has a blank name: {name!r}; name it, or remove its separator",
        )
    name = str(name).strip()
    for character in name:
        # Cc: NUL, escapes and line breaks. Cs: surrogates, from undecodable bytes.
        if character == _MARK or unicodedata.category(character) in ("Cc", "Cs"):
            raise ClassListError(
                "C06",
                f"{place}: {brief(name)} holds the control character "
                f"{character!a}; remove it",
            )
    return name
