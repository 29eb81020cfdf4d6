"""Class lists in files: one class per line, JSON, or the list of CVAT.

``docs/how-to/class-lists.md`` says what each line may hold, with examples.
"""

import codecs
import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dslo_jax.errors import ClassListError, cause_of, similar_files
from dslo_jax.prompts.class_json import is_json, json_entries
from dslo_jax.prompts.class_list import ClassList, checked
from dslo_jax.prompts.grammar import Entry, fields_of


_MAX_BYTES = 1 << 22  # 64 for each of 65536 classes
_LINE_END = re.compile("\r\n|\r|\n")
# Longer marks first, because that of UTF-32 begins like that of UTF-16.
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# An id and what separates it from the name, as in "0: wall", "0, wall" or "0 wall".
_ID = re.compile(r"([0-9]{1,9})(?:\s*[,;:|]|\s|$)\s*")
_QUOTED_ID = re.compile(r'"([0-9]{1,9})"\s*[,;:|\t]\s*')
_ID_WORDS = ("id", "idx", "index", "no", "nr", "number", "labelid", "classid")
_NAME_WORDS = ("name", "class", "label", "category", "classname", "labelname", "title")
_NAME_WORDS += ("names", "classes", "labels", "categories", "synonym", "synonyms")
_CVAT_HEADER = re.compile(r"#\s*label\s*:\s*color_rgb\b", re.IGNORECASE)
_CVAT_LINE = re.compile(r"(.*?):((?:\d+,\d+,\d+)?):([^:]*):([^:]*)")
_SEPARATORS = {",": "commas", ";": "semicolons", "|": "bars", "\t": "tabs"}


class _Line(NamedTuple):
    """A line that is neither blank nor a comment.

    Attributes:
        number: Counted from 1 in the file.
        text: Without spaces around it.
    """

    number: int
    text: str


def read_class_file(
    path: str | os.PathLike[str],
    *,
    allow_duplicates: bool = False,
    allow_blank_lines: bool = True,
) -> ClassList:
    """Read classes from a file, the first class being label 0.

    Args:
        path: Text with one class per line and commas, semicolons, bars or tabs between
            synonyms, the same in the whole file; double quotes and what is refused are
            those of ``split_classes``. Or JSON (see ``prompts.class_json``), or the
            ``labelmap.txt`` of CVAT. UTF-8, or UTF-16 with a byte order mark, with any
            line ends. A line that begins with ``#`` is a comment. A column of ids that
            counts up from 0, with or without a header, is removed.
        allow_duplicates: Whether a name may occur twice.
        allow_blank_lines: Whether a blank line before or between classes is skipped,
            with a note, where the lines have no ids. If not, it is refused: where
            labels are fixed elsewhere, as in masks, it may stand for a class without a
            name, and to skip it would shift every label below. Blank lines at the end
            and between lines with ids are always skipped.

    Returns:
        The classes.

    Raises:
        ClassListError: The file cannot be read as text (``C07``); ids have gaps, a
            header has no ids below it, or a blank line stands for an id (``C08``); a
            line can be read in several ways or in none (``C10``); and as for
            ``parse_classes``. Messages give the number of the line; for JSON that of
            the class.
    """
    text = _text_of(Path(path))
    name = str(path)
    if is_json(text):
        return checked(json_entries(text, name), allow_duplicates=allow_duplicates)
    rows = [row.removeprefix("\ufeff").strip() for row in _LINE_END.split(text)]
    filled = [_Line(number, row) for number, row in enumerate(rows, start=1) if row]
    lines = [line for line in filled if not line.text.startswith("#")]
    if _is_cvat(filled, lines):
        entries = _cvat_entries(lines, name)
        notes = (f"{name} was read as CVAT's list of labels",)
        return checked(entries, allow_duplicates=allow_duplicates, notes=notes)
    bare, with_ids = _without_ids(lines, name)
    entries = _entries(bare, name, with_ids=with_ids)
    last = lines[-1].number if lines else 0
    blank = [number for number, row in enumerate(rows[:last], start=1) if not row]
    notes = ()
    if blank and not with_ids:
        _check_blank(blank, name, allowed=allow_blank_lines)
        notes = (
            f"{name}: blank lines were skipped (the first is line {blank[0]}); labels "
            "count the classes, not the lines",
        )
    return checked(entries, allow_duplicates=allow_duplicates, notes=notes)


def _text_of(path: Path) -> str:
    """The text of a file, without its byte order mark."""
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        near = similar_files(path) if isinstance(error, FileNotFoundError) else ""
        raise ClassListError(
            "C07",
            f"{str(path)!r} cannot be read: {cause_of(error)}; "
            f"{near or 'give a text file with one class on a line'}",
        ) from error
    if len(content) > _MAX_BYTES:
        raise ClassListError(
            "C07",
            f"{path} has more than {_MAX_BYTES} bytes; expected a list of class names",
        )
    marks = [each for each in _BYTE_ORDER_MARKS if content.startswith(each[0])]
    mark, encoding = marks[0] if marks else (b"", "utf-8")
    content = content[len(mark) :]
    # In UTF-16 without a mark, every second byte of most texts is 0.
    if not mark and max(map(_share_of_zeros, (content[::2], content[1::2]))) > 0.5:
        raise ClassListError(
            "C07", f"{path}, line 1, is not UTF-8 text; save the file as UTF-8"
        )
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        before = content[: error.start].decode(encoding, errors="replace")
        line = len(_LINE_END.findall(before)) + 1
        raise ClassListError(
            "C07",
            f"{path}, line {line}, is not {encoding.upper()} text; save the file as "
            "UTF-8",
        ) from error


def _share_of_zeros(content: bytes) -> float:
    return content.count(0) / max(len(content), 1)


def _is_cvat(filled: Sequence[_Line], lines: Sequence[_Line]) -> bool:
    """Whether a file says that it is CVAT's, or has the form of its lines."""
    found = [_CVAT_LINE.fullmatch(line.text) for line in lines]
    coloured = bool(found) and all(each and each[2] for each in found)
    return coloured or any(_CVAT_HEADER.match(line.text) for line in filled)


def _cvat_entries(lines: Sequence[_Line], path: str) -> list[Entry]:
    """The names of CVAT's ``labelmap.txt``: name, colour, parts and actions."""
    entries: list[Entry] = []
    for number, text in lines:
        found = _CVAT_LINE.fullmatch(text)
        if found is None:
            raise ClassListError(
                "C10",
                f"{path}, line {number}: {text!r} is no line of CVAT's list of labels "
                "(name:red,green,blue:parts:actions); correct the line, or remove the "
                "header of the file and everything but the names",
            )
        entries.append((f"{path}, line {number}", (found[1],)))
    return entries


def _entries(lines: Sequence[_Line], path: str, *, with_ids: bool) -> list[Entry]:
    """The names of lines without ids; all lines must have one kind of separator."""
    entries: list[Entry] = []
    kinds: dict[str, int] = {}  # and the line that has it first
    for number, text in lines:
        place = f"{path}, line {number}"
        names, separators, _ = fields_of(text, place)
        for separator in separators:
            kinds.setdefault(separator, number)
        if len(kinds) > 1:
            (one, first), (other, _), *_ = kinds.items()
            raise ClassListError(
                "C10",
                f"{place}, has {_SEPARATORS[other]}, line {first} has "
                f"{_SEPARATORS[one]}; put one class on a line and one kind of "
                "separator between synonyms, and names that hold a separator into "
                "double quotes",
            )
        entries.append((place, names))
    if len(lines) == 1 and len(entries[0][1]) > 1 and "|" not in kinds and not with_ids:
        raise ClassListError(
            "C10",
            f"{path}, line {lines[0].number}, is the only class and has "
            f"{len(entries[0][1])} names; are they classes? Put each on a line of its "
            "own. If they are synonyms, put bars (|) between them",
        )
    return entries


def _without_ids(lines: Sequence[_Line], path: str) -> tuple[list[_Line], bool]:
    """Remove a column of ids and its header.

    Returns:
        The lines without ids and header, and whether there were ids.
    """
    lines = list(lines)
    kind = _header_kind(lines[0].text) if lines else None
    ids = [_ID.match(line.text) for line in lines]
    quoted = [_QUOTED_ID.match(line.text) for line in lines]
    numbers = [int(found[1]) for found in quoted if found]
    counting = all(b == a + 1 for a, b in itertools.pairwise(numbers))
    if kind == "ids":  # else a number in quotes is a name
        ids = [plain or other for plain, other in zip(ids, quoted, strict=True)]
    elif len(numbers) == len(lines) > 1 and counting:
        raise ClassListError(
            "C08",
            f"{path}, line {lines[0].number}, begins with an id in quotes, and so do "
            'all lines; remove these quotes, or add the header "id,name"',
        )
    starts = [found is not None and int(found[1]) in (0, 1) for found in ids[:2]]
    everywhere = len(ids) > 1 and all(ids)
    if not any(starts) and not everywhere and kind != "ids":
        if kind == "names":
            raise ClassListError(
                "C08",
                f"{path}, line {lines[0].number}, {lines[0].text!r} is a header; "
                "remove it; if it is a class of one name, put that into double quotes",
            )
        return lines, False
    body = slice(1 if kind and not ids[0] else 0, None)
    bare = []
    for label, (line, found) in enumerate(zip(lines[body], ids[body], strict=True)):
        if found is None or int(found[1]) != label:
            has = "no id" if found is None else f"id {found[1]}"
            is_first = found is None and line is lines[0]
            header = "; if it is a header, remove it" if is_first else ""
            raise ClassListError(
                "C08",
                f"{path}, line {line.number}, has {has}, expected {label}: ids count "
                "up from 0 without gaps, as labels do; correct or remove them, or put "
                f"names that begin with a number into double quotes{header}",
            )
        bare.append(_Line(line.number, line.text[found.end() :]))
    return bare, True


def _header_kind(text: str) -> str | None:
    """``"ids"`` for a header such as "id,name", ``"names"`` for "name"; else None."""
    words = [
        re.sub(r"[\s_-]", "", word.strip().strip('"')).casefold()
        for word in re.split(r"[,;|\t:]", text.rstrip(":"))
    ]
    if text.startswith('"') and len(words) == 1:
        return None  # a name in quotes
    if all(word in _NAME_WORDS for word in words):
        return "names"
    first, *others = words
    if first in _ID_WORDS and others and all(word in _NAME_WORDS for word in others):
        return "ids"
    return None


def _check_blank(blank: Sequence[int], path: str, *, allowed: bool) -> None:
    if not allowed:
        raise ClassListError(
            "C08",
            f"{path}, line {blank[0]}, is blank: it may stand for a label without a "
            "name, and labels count the lines; remove the line, or put an id before "
            "each name (0: sky)",
        )
