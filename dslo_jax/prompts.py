"""Class names, and their text features.

A class is one name or several synonyms. Every name is put into every template, the text
network encodes these prompts, and the mean of their features is the feature of the
name.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from dslo_jax.errors import ClassListError
from dslo_jax.outputs.labels import MAX_CLASSES
from dslo_jax.templates import IMAGENET_TEMPLATES, check_templates
from dslo_jax.tokens import (
    LazyTokenizer as LazyTokenizer,
    load_tokenizer as load_tokenizer,
    tokenize as tokenize,
)


if TYPE_CHECKING:
    from transformers import CLIPTokenizer


_CHUNK_SIZE = 80  # prompts encoded at once: one name in the 80 templates of CLIP
_LENGTH_STEP = 8  # prompts are cut to a multiple of this, so that few shapes compile
# An id and what separates it from the name, as in "0: wall", "0, wall" or "0 wall".
_ID = re.compile(r"\s*([0-9]+)(\s*[,;:]|\s)\s*")
_HEADERS = ("name", "names", "class", "classes", "label", "labels", "category")


@dataclass(frozen=True)
class ClassList:
    """Classes in the order of their labels.

    Args:
        synonyms: The names of every class; at least one class, one name each. Use
            ``parse_classes``, ``split_classes`` or ``read_class_file``, which check.
    """

    synonyms: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.synonyms)

    @property
    def titles(self) -> tuple[str, ...]:
        """Title of each class: its first name."""
        return tuple(names[0] for names in self.synonyms)

    @property
    def names(self) -> tuple[str, ...]:
        """All names, class by class."""
        return tuple(name for names in self.synonyms for name in names)

    @property
    def class_of_name(self) -> tuple[int, ...]:
        """Index of the class of each of ``names``; never decreases."""
        return tuple(i for i, names in enumerate(self.synonyms) for _ in names)


def parse_classes(
    classes: ClassList | Sequence[str | Sequence[str]],
    *,
    allow_duplicates: bool = False,
) -> ClassList:
    """Check class names given in Python.

    Args:
        classes: One entry per class: a name, or a sequence of synonyms. A
            ``ClassList`` is returned as it is.
        allow_duplicates: Whether a name may occur twice, as "bed" does in the usual
            COCO-Object list; the first class with the name then wins every tie.

    Returns:
        The classes; spaces around names are removed.

    Raises:
        ClassListError: The list is empty or a name is blank (``C01``), two names differ
            only in case and spaces (``C02``), a string was passed instead of a list
            (``C04``), a name contains control characters (``C06``), or there are more
            classes than a label map can hold (``C09``).
    """
    if isinstance(classes, ClassList):
        return classes
    if isinstance(classes, str):
        guess = [part.strip() for part in classes.split(",")]
        raise ClassListError(
            "C04", f"`classes` is the string {classes!r}; did you mean {guess}?"
        )
    split = [(entry,) if isinstance(entry, str) else tuple(entry) for entry in classes]
    return _checked(split, "class", allow_duplicates)


def split_classes(text: str, *, allow_duplicates: bool = False) -> ClassList:
    """Read classes from one line of text, as typed on a command line.

    Args:
        text: Commas separate classes, ``|`` separates synonyms:
            ``"cat, sofa|couch, wall"``.
        allow_duplicates: Whether a name may occur twice.

    Returns:
        The classes.

    Raises:
        ClassListError: As for ``parse_classes``.
    """
    entries = text.split(",") if text.strip() else []
    split = [tuple(entry.split("|")) for entry in entries]
    return _checked(split, "class", allow_duplicates)


def read_class_file(path: Path, *, allow_duplicates: bool = False) -> ClassList:
    """Read classes from a text file, the first line being label 0.

    Args:
        path: UTF-8 text with one class per line, and commas or semicolons between
            synonyms. A byte order mark, Windows line ends and blank lines at the end
            are allowed. A column of ids that counts up from 0, with or without a
            header, is removed.
        allow_duplicates: Whether a name may occur twice.

    Returns:
        The classes.

    Raises:
        ClassListError: The file cannot be read as text (``C07``), ids have gaps, or a
            header has no ids below it (``C08``); and as for ``parse_classes``, with the
            number of the line. A blank line is refused, because it would shift the
            labels below it.
    """
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise ClassListError("C07", f"{path} cannot be read: {error}") from error
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ClassListError(
            "C07", f"{path}, line {line}, is not UTF-8 text; save the file as UTF-8"
        ) from error
    lines = text.rstrip().split("\n") if text.strip() else []
    lines, first = _without_ids(lines, path)
    split = [tuple(re.split("[,;]", line)) for line in lines]
    return _checked(split, f"{path}, line", allow_duplicates, first=first)


def embed_names(
    encode: Callable[[Int[np.ndarray, "batch tokens"]], Float[Array, "batch dim"]],
    tokenizer: "CLIPTokenizer",
    names: Sequence[str],
    templates: Sequence[str] = IMAGENET_TEMPLATES,
    *,
    length: int = 77,
) -> Float[np.ndarray, "names dim"]:
    """Embed names: the mean over all templates of the features of their prompts.

    The feature of every prompt is scaled to length 1; the mean over the templates is
    scaled to length 1 again. Prompts are encoded in chunks of one shape, which are cut
    after the longest prompt. This changes no feature, because a token of the text
    network attends only to the tokens before it.

    Args:
        encode: Function from token ids to features, such as ``Clip.encode_text``.
        tokenizer: From ``load_tokenizer``.
        names: Class names.
        templates: Texts with one ``{}`` each.
        length: Greatest number of tokens of a prompt.

    Returns:
        float32 features of length 1.

    Raises:
        ClassListError: A prompt is too long (``C03``) or a template is bad (``C05``).
    """
    templates = check_templates(templates)
    prompts = [template.format(name) for name in names for template in templates]
    ids = _without_padding(tokenizer, tokenize(tokenizer, prompts, length=length))
    count = len(prompts)
    chunk = min(_CHUNK_SIZE, 1 << (count - 1).bit_length())
    ids = np.pad(ids, ((0, -count % chunk), (0, 0)), mode="edge")
    chunks = [encode(part) for part in np.split(ids, len(ids) // chunk)]
    features = np.concatenate(jax.device_get(chunks)).astype(np.float32)[:count]
    means = _unit(features).reshape(len(names), len(templates), -1).mean(axis=1)
    return _unit(means)


def _without_padding(
    tokenizer: "CLIPTokenizer", ids: Int[np.ndarray, "batch length"]
) -> Int[np.ndarray, "batch tokens"]:
    """Cut the ids after the longest prompt, at a multiple of ``_LENGTH_STEP``."""
    ends = (ids == tokenizer.eos_token_id).argmax(axis=1)
    longest = int(ends.max()) + 1
    return ids[:, : -(-longest // _LENGTH_STEP) * _LENGTH_STEP]


def _unit(features: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(features, axis=-1, keepdims=True)
    return features / np.maximum(norm, np.finfo(np.float32).tiny)


def _without_ids(lines: list[str], path: Path) -> tuple[list[str], int]:
    """Remove a column of ids and its header.

    There is such a column if the first line, or the second, starts with the id 0 or 1.
    The ids must then be the labels of the classes.

    Returns:
        The lines with classes, and the line number of the first of them.
    """
    ids = [_ID.match(line) for line in lines]
    starts = [found is not None and int(found[1]) in (0, 1) for found in ids[:2]]
    if not any(starts):
        if lines and lines[0].strip().casefold() in _HEADERS:
            raise ClassListError(
                "C08", f"{path}, line 1, {lines[0].strip()!r} is a header; remove it"
            )
        return lines, 1
    header = starts.index(True)
    for label, found in enumerate(ids[header:]):
        if found is None or int(found[1]) != label:
            has = "no id" if found is None else f"id {found[1]}"
            raise ClassListError(
                "C08",
                f"{path}, line {header + label + 1}, has {has}, expected {label}: ids "
                "count up from 0 without gaps, as labels do; correct or remove them",
            )
    names = [
        line[found.end() :]
        for line, found in zip(lines[header:], ids[header:], strict=True)
        if found is not None
    ]
    return names, header + 1


def _checked(
    classes: Iterable[tuple[str, ...]],
    place: str,
    allow_duplicates: bool,
    *,
    first: int = 1,
) -> ClassList:
    """Strip and check all names; errors call the classes ``place`` 1, ``place`` 2, ...

    ``first`` is the number of the first class.
    """
    seen: dict[str, str] = {}
    synonyms = []
    for number, entry in enumerate(classes, start=first):
        where = f"{place} {number}"
        names = tuple(_checked_name(name, where) for name in entry)
        if not names:
            raise ClassListError("C01", f"{where} has no name")
        for name in names:
            key = " ".join(name.split()).casefold()
            if key in seen and not allow_duplicates:
                raise ClassListError(
                    "C02", f"{name!r} of {where} repeats a name of {seen[key]}"
                )
            seen[key] = where
        synonyms.append(names)
    if not synonyms:
        raise ClassListError("C01", "there is no class; name at least one")
    if len(synonyms) > MAX_CLASSES:
        raise ClassListError(
            "C09",
            f"there are {len(synonyms)} classes, a label map holds {MAX_CLASSES}; "
            "shorten the list",
        )
    return ClassList(tuple(synonyms))


def _checked_name(name: str, where: str) -> str:
    if not isinstance(name, str) or not name.strip():
        raise ClassListError("C01", f"{where} has a blank name: {name!r}")
    name = name.strip()
    for character in name:
        # Cc: NUL, escapes and line breaks. Cs: surrogates, from undecodable bytes.
        if unicodedata.category(character) in ("Cc", "Cs"):
            raise ClassListError(
                "C06",
                f"{where}: {name!a} holds the control character "
                f"{character!a}; remove it",
            )
    return name
