"""What requests ask for, after all checks."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from dslo_jax import prompts
from dslo_jax.config import SegmenterConfig
from dslo_jax.errors import ClassListError, RequestError
from dslo_jax.serve import choices
from dslo_jax.serve.limits import Limits


@dataclass(frozen=True)
class Wish:
    """What a request asks for, after all checks.

    Attributes:
        photo: Name of the photo.
        classes: The classes.
        words: The same as they were typed.
        options: Options by their flat names.
        is_draft: Whether it is one of many results of a moving slider.
    """

    photo: str
    classes: prompts.ClassList
    words: str
    options: Mapping[str, Any]
    is_draft: bool = False


class Click(NamedTuple):
    """A point in a photo.

    Attributes:
        photo: Name of the photo.
        x: Column.
        y: Row.
        options: Options by their flat names.
    """

    photo: str
    x: int
    y: int
    options: Mapping[str, Any]


def check_wish(asked: Any, config: SegmenterConfig, limits: Limits) -> Wish:
    """Check what a request for a segmentation asks for.

    Args:
        asked: The JSON of the request.
        config: The options that ``dslo serve`` was started with.
        limits: Limits of the page.

    Raises:
        RequestError: It is not of this form (``V02``), or too long (``V03``).
        ClassListError: The words cannot be used.
        OptionError: An option cannot be used.
    """
    _check_fields(asked, ("photo", "words", "options", "draft"))
    for name, kind in (("photo", str), ("words", str), ("draft", bool)):
        if not isinstance(asked.get(name, kind()), kind):
            raise RequestError("V02", f"{name} = {asked[name]!r:.80} is of no use")
    words = asked.get("words", "")
    options = choices.checked(asked.get("options", {}), config)
    config.with_options(**options)  # all errors now, before it waits in a line
    classes = classes_of(words, limits)
    is_draft = asked.get("draft", False)
    return Wish(asked.get("photo", ""), classes, words, options, is_draft)


def check_click(asked: Any, config: SegmenterConfig) -> Click:
    """Check what a request about a point asks for.

    Args:
        asked: The JSON of the request.
        config: The options that ``dslo serve`` was started with.

    Raises:
        RequestError: It is not of this form (``V02``).
        OptionError: An option cannot be used.
    """
    _check_fields(asked, ("photo", "x", "y", "threshold"))
    for name, kind in (("photo", str), ("x", int), ("y", int)):
        if type(asked.get(name)) is not kind:
            raise RequestError("V02", f"{name} = {asked.get(name)!r:.80} is of no use")
    options = {name: asked[name] for name in ("threshold",) if name in asked}
    options = choices.checked(options, config)
    config.with_options(**options)
    return Click(asked["photo"], asked["x"], asked["y"], options)


def classes_of(words: str, limits: Limits) -> prompts.ClassList:
    """Read the words, as ``--classes`` does.

    Raises:
        RequestError: There is too much text (``V03``).
        ClassListError: The words cannot be used, or there are too many (``C09``).
    """
    if len(words) > limits.text:
        raise RequestError(
            "V03",
            f"the words have {len(words)} characters, the page takes {limits.text}; "
            "shorten the list",
        )
    classes = prompts.split_classes(words)
    for count, most, what in (
        (len(classes), limits.classes, "classes"),
        (len(classes.names), limits.names, "names"),
    ):
        if count > most:
            raise ClassListError(
                "C09", f"there are {count} {what}, the page takes {most}; shorten it"
            )
    longest = max(classes.names, key=len)
    if len(longest) > limits.name:
        raise RequestError(
            "V03",
            f"the name {longest[:40]!r}... has {len(longest)} characters, the page "
            f"takes {limits.name}; shorten it",
        )
    return classes


def gone(limits: Limits) -> RequestError:
    """The error about a photo that is not kept."""
    return RequestError(
        "V06",
        f"this photo is no longer kept; the page keeps the last {limits.photos} "
        "photos, as far as memory allows. Add the photo again",
    )


def _check_fields(asked: Any, fields: Collection[str]) -> None:
    if not isinstance(asked, dict) or set(asked) - set(fields):
        raise RequestError(
            "V02",
            f"the request is {asked!r:.80}; expected an object with "
            f"{', '.join(fields)}",
        )
