"""A background class: a list of words for everything that nobody asked for.

A pixel always gets one of the classes, so what is none of them needs a class as well.
Published methods give it the names of things that are often behind others.
"""

from collections.abc import Iterable, Iterator

from dslo_jax.errors import ClassListError, OptionError
from dslo_jax.prompts.class_list import (
    BACKGROUND,
    ClassList,
    comparable,
    parse_classes,
)


_SCLIP = (
    *("sky", "wall", "tree", "wood", "grass", "road", "sea", "river", "mountain"),
    *("sands", "desk", "bed", "building", "cloud", "lamp", "door", "window"),
    *("wardrobe", "ceiling", "shelf", "curtain", "stair", "floor", "hill", "rail"),
    "fence",
)
_LEFT_OUT = {"lamp", "door", "window", "wardrobe", "ceiling", "shelf", "curtain"}

BACKGROUNDS = {
    "sclip": _SCLIP,
    "proxyclip-coco": tuple(
        name for name in _SCLIP if name not in {*_LEFT_OUT, "stair", "fence"}
    ),
    "clearclip": (BACKGROUND,),
}
"""Published words of a background class.

``"sclip"``: the 26 words with which SCLIP, NACLIP and SC-CLIP measure PASCAL VOC and
COCO-Object, and ProxyCLIP measures PASCAL VOC (first line of ``configs/cls_voc21.txt``
of wangf3014/SCLIP, sinahmr/NACLIP, SuleBai/SC-CLIP and mc-lan/ProxyCLIP).
``"proxyclip-coco"``: the 17 of them with which ProxyCLIP measures COCO-Object
(``configs/cls_coco_object.txt``). ``"clearclip"``: the single word that ClearCLIP uses
everywhere (``configs/cls_voc21.txt`` of mc-lan/ClearCLIP)."""


def with_background(
    classes: ClassList | Iterable[str | Iterable[str]], words: str = "sclip"
) -> ClassList:
    """Add a class ``"background"`` after all others.

    Words that are names of other classes are left out: who asks for a wall does not
    want it to be background. A word that means the same in another spelling stays. If
    only a plural makes the difference, the list has a note about it.

    Args:
        classes: As for ``parse_classes``.
        words: Which of ``BACKGROUNDS``. For words of your own, give ``classes`` a class
            whose names are ``"background"`` and these words instead.

    Returns:
        The classes, whose ids do not change, and the background.

    Raises:
        ClassListError: As for ``parse_classes``; there is a background class already
            (``C02``), or all words are names of other classes (``C01``).
        OptionError: There is no such list of words (``O03``).
    """
    found, known = parse_classes(classes), words_of(words)
    if found.background is not None:
        raise ClassListError(
            "C02",
            f"class {found.background + 1} is {BACKGROUND!r} already; leave out this "
            "class, or the words that shall be added",
        )
    asked = {comparable(name) for name in found.names}
    kept = tuple(word for word in known if comparable(word) not in asked)
    if not kept:
        raise ClassListError(
            "C01",
            f"all words of the background {words!r} are names of other classes; choose "
            "other words",
        )
    synonyms = (*found.synonyms, kept)
    notes = (*found.notes, *_near(found, kept))
    return ClassList(synonyms, notes, background=len(found))


def _near(classes: ClassList, words: Iterable[str]) -> Iterator[str]:
    """A note for each word that differs from a name by no more than a plural."""
    names = {_singular(name): name for name in classes.names}
    for word in words:
        if name := names.get(_singular(word)):
            yield (
                f"the background has the word {word!r}, which may take pixels from "
                f"{name!r}; make it a synonym of that class, as in {name}|{word}"
            )


def _singular(name: str) -> str:
    return comparable(name).removesuffix("s")


def words_of(words: str) -> tuple[str, ...]:
    """The words of one of ``BACKGROUNDS``.

    Raises:
        OptionError: There is no such list (``O03``).
    """
    if words not in BACKGROUNDS:
        known = ", ".join(map(repr, BACKGROUNDS))
        raise OptionError("O03", f"background = {words!r}; expected one of {known}")
    return BACKGROUNDS[words]
