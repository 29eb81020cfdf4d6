"""Class lists in JSON.

These forms are read:

- ``["wall", ["sofa", "couch"]]``: names, or lists of synonyms
- ``[{"name": "sofa", "synonyms": ["couch"], "id": 0}]``: ``synonyms`` and ``id`` may be
  left out
- ``{"0": "wall", "1": ["sofa", "couch"]}``: names by their labels
- ``{"wall": 0, "sofa": 1}``: labels by their names
"""

import json
from collections import Counter
from collections.abc import Sequence

from dslo_jax.errors import ClassListError, brief


_KEYS = ("id", "name", "synonyms")
_FORMS = (
    'expected a list such as ["wall", ["sofa", "couch"]] or [{"name": "sofa", '
    '"synonyms": ["couch"]}], or an object such as {"0": "wall"} or {"wall": 0}'
)


def is_json(text: str) -> bool:
    """Whether a text begins as a JSON list or object does, and no plain name."""
    return text.lstrip()[:1] in ("[", "{")


def json_entries(text: str, place: str) -> list[tuple[str, Sequence[object]]]:
    """Read the classes of a JSON text.

    Args:
        text: A list or an object.
        place: Where it stands, for errors.

    Returns:
        Of every class its place and its names, which are not checked yet.

    Raises:
        ClassListError: The text is no JSON, or of another form (``C10``), or its ids
            are not the labels of the classes (``C08``).
    """
    try:
        content = json.loads(text, object_pairs_hook=_without_repetition)
    except json.JSONDecodeError as error:
        raise ClassListError(
            "C10",
            f"{place}, line {error.lineno}, column {error.colno}, is no JSON: "
            f"{error.msg}; JSON has straight double quotes around every name and no "
            'comma after the last; if a name begins with a bracket, write "[name]"',
        ) from error
    except (ValueError, RecursionError) as error:  # a repeated key, a number too long
        raise ClassListError("C10", f"{place}: {error}; {_FORMS}") from error
    if isinstance(content, dict):
        content = _by_label(content, place)
    return [
        (f"{place}, class {number}", _names(entry, number - 1, place))
        for number, entry in enumerate(content, start=1)
    ]


def _without_repetition(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object; JSON would let the last of two equal keys win in silence."""
    content = dict(pairs)
    if len(content) < len(pairs):
        ((key, count),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {key!r} stands {count} times in one object")
    return content


def _by_label(content: dict[str, object], place: str) -> list[object]:
    """The values of an object of labels and names, in the order of the labels."""
    if all(key.isdecimal() and key.isascii() for key in content):
        labelled = list(content.items())
    elif all(type(value) is int for value in content.values()):
        labelled = [(str(value), key) for key, value in content.items()]
    else:
        raise ClassListError("C10", f"{place} is the object {brief(content)}; {_FORMS}")
    by_label = dict(labelled)
    wanted = [str(label) for label in range(len(content))]
    missing = next((label for label in wanted if label not in by_label), None)
    if missing is not None:
        raise ClassListError(
            "C08",
            f"{place} has {len(content)} ids but no id {missing}: ids count up from 0 "
            "without gaps, as labels do; correct them, or give a list without ids",
        )
    return [by_label[label] for label in wanted]


def _names(entry: object, label: int, place: str) -> Sequence[object]:
    """The names of one class."""
    where = f"{place}, class {label + 1}"
    if isinstance(entry, str):
        return (entry,)
    if isinstance(entry, list):
        return entry
    if not isinstance(entry, dict) or "name" not in entry:
        raise ClassListError("C10", f"{where} is {brief(entry)}; {_FORMS}")
    unknown = [key for key in entry if key not in _KEYS]
    if unknown:
        raise ClassListError(
            "C10",
            f"{where} has the key {unknown[0]!r}; known keys are {', '.join(_KEYS)}; "
            "remove it",
        )
    found = entry.get("id", label)
    if type(found) is not int or found != label:
        raise ClassListError(
            "C08",
            f"{where} has id {found!r}, expected {label}: ids count up from 0 without "
            "gaps, as labels do; correct or remove them",
        )
    synonyms = entry.get("synonyms", [])
    if not isinstance(synonyms, list):
        raise ClassListError(
            "C10",
            f"{where} has the synonyms {brief(synonyms)}; expected a list",
        )
    return (entry["name"], *synonyms)
