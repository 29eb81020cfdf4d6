"""The grammar of class names in text: separators, double quotes, and what is refused.

Double quotes work as in CSV: between them every character is part of the name, and two
of them stand for one. A name without quotes is plain. If its text has the form of
something else (an id, a colour, a comment, a rest of JSON), it is refused, because to
read it as a name would be a guess; in quotes the same text is a name.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from dslo_jax.errors import ClassListError, brief
from dslo_jax.prompts.class_json import is_json, json_entries
from dslo_jax.prompts.class_list import ClassList, checked


Entry = tuple[str, Sequence[object]]
"""The place of a class, for errors, and its names."""

_SPACE = r"[^\S\t]*"  # a tab separates
_QUOTED = re.compile(rf'{_SPACE}"((?:[^"]|"")*+)"{_SPACE}(?=[,;|\t]|$)')
_PLAIN = re.compile(r"[^,;|\t]*")
_NUMBERED = re.compile(r"\d+\s")

# What a plain name must not look like. Of each: its form, what it is, the remedy.
_DOUBTS = tuple(
    (re.compile(form), is_what, remedy)
    for form, is_what, remedy in (
        (
            '^"',
            "has a quote that does not close, or text after the closing quote",
            "close it before the separator",
        ),
        ('"', "has a double quote inside", "remove it"),
        (
            "[\u201c\u201d\u201e\u00ab\u00bb]|^['\u2018].*['\u2019]$",
            "has quotes that do not count as quotes",
            'use straight double quotes (")',
        ),
        (
            r"(^|\s)#",
            "seems to hold a comment",
            "put the comment on a line of its own in a class file",
        ),
        (
            r"^[\[\]{}<]|[\[\]{}]$",
            "seems to be JSON or markup",
            "give a JSON list alone, or remove the brackets",
        ),
        (":", "holds a colon", "give names alone, without keys or colours"),
        (
            r"^[-+]?[\d\s.]*\d%?$",
            "is a number",
            "remove columns of numbers; ids stand before the names and count up from 0",
        ),
        (
            r"^([-*+\u2013\u2014\u2022]|\d+[.)])\s",
            "begins with the mark of a list",
            "remove it",
        ),
        (r"^n\d{8}\b", "begins with the id of a WordNet synset", "remove it"),
        (
            r"(?i)\.(csv|json|md|names|toml|tsv|txt|ya?ml)$",
            "seems to be the name of a file",
            "give class files with --class-file",
        ),
    )
)


class Fields(NamedTuple):
    """The names in a text, and what separates them.

    Attributes:
        names: Without their quotes.
        separators: The characters between them.
        numbered: Of each name, whether it is plain and begins with a number.
    """

    names: list[str]
    separators: str
    numbered: list[bool]


def split_classes(text: str, *, allow_duplicates: bool = False) -> ClassList:
    """Read classes from one line of text, as typed on a command line.

    Args:
        text: Commas separate classes, ``|`` separates synonyms, and names with special
            characters stand in double quotes: ``'cat, sofa|couch, "table, wooden"'``.
            Or a JSON list or object, as in a class file.
        allow_duplicates: Whether a name may occur twice.

    Returns:
        The classes.

    Raises:
        ClassListError: The text can be read in several ways, or in none (``C10``); and
            as for ``parse_classes``.
    """
    return checked(_entries(text, ""), allow_duplicates=allow_duplicates)


def classes_of_options(
    values: Sequence[str], *, allow_duplicates: bool = False
) -> ClassList:
    """Read classes from an option that may be given several times.

    Args:
        values: What was given each time, in order; each as for ``split_classes``. All
            classes together make the list. One string counts as given once.
        allow_duplicates: Whether a name may occur twice.

    Returns:
        The classes.

    Raises:
        ClassListError: As for ``split_classes``; ``C02`` also for a name that two of
            the values have, and ``C01`` for a value without a class.
    """
    if isinstance(values, str):
        values = [values]
    if len(values) == 1:
        return split_classes(values[0], allow_duplicates=allow_duplicates)
    entries: list[Entry] = []
    for number, value in enumerate(values, start=1):
        place = f" of --classes number {number}"
        found = _entries(value, place)
        if not found:
            raise ClassListError("C01", f"there is no class{place}; remove it")
        entries += found
    return checked(entries, allow_duplicates=allow_duplicates)


def fields_of(text: str, place: str) -> Fields:
    """Split a text at its separators: comma, semicolon, bar and tab.

    Args:
        text: One line.
        place: Where it stands, for errors.

    Returns:
        At least one name, which may be blank.

    Raises:
        ClassListError: A plain name looks like something else (``C10``).
    """
    names, separators, numbered, start = [], [], [], 0
    while True:
        quoted = _QUOTED.match(text, start)
        found = quoted or _PLAIN.match(text, start)
        assert found is not None  # a plain name may be empty
        if quoted:
            names.append(quoted[1].replace('""', '"'))
        else:
            names.append(found[0].strip())
            _refuse_doubtful(names[-1], place)
        numbered.append(not quoted and _NUMBERED.match(names[-1]) is not None)
        if found.end() == len(text):
            return Fields(names, "".join(separators), numbered)
        separators.append(text[found.end()])
        start = found.end() + 1


def quoted_name(name: str) -> str:
    """A name in double quotes, as the grammar reads it."""
    return '"' + name.replace('"', '""') + '"'


def _refuse_doubtful(name: str, place: str) -> None:
    for form, is_what, remedy in _DOUBTS:
        if form.search(name):
            quoted = quoted_name(name)
            how = (
                f"write {quoted}" if len(quoted) < 100 else "put it into double quotes"
            )
            raise ClassListError(
                "C10",
                f"{place}: {brief(name)} {is_what}; {remedy}; if it is meant as a "
                f"name, {how}",
            )


def _entries(text: str, place: str) -> list[Entry]:
    """The classes of one line of a command line."""
    if is_json(text):
        return json_entries(text, place.removeprefix(" of ") or "the JSON list")
    if not text.strip():
        return []
    names, separators, numbered = fields_of(text, f"the class list{place}")
    for separator, kind in ((";", "semicolon"), ("\t", "tab")):
        if separator in separators:
            raise ClassListError(
                "C10",
                f"the class list{place} has a {kind}: {brief(text)}; put a comma "
                "between classes and a bar (|) between synonyms, and names that hold a "
                f"{kind} into double quotes",
            )
    if len(names) > 1 and all(numbered):
        raise ClassListError(
            "C10",
            f"the class list{place} has a number before every name: {brief(text)}; "
            "labels count up from 0 in the order of the classes, so leave ids out; or "
            "put the names into double quotes",
        )
    classes: list[list[str]] = [names[:1]]
    for separator, name in zip(separators, names[1:], strict=True):
        if separator == ",":
            classes.append([name])
        else:
            classes[-1].append(name)
    return [
        (f"class {number}{place}", each) for number, each in enumerate(classes, start=1)
    ]
