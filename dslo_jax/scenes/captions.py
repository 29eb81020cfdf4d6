"""Sentences about scenes, with the names of things and without their places."""

from collections.abc import Sequence

import numpy as np

from dslo_jax.scenes._canvas import pick
from dslo_jax.scenes.classes import BACKGROUND, CLASSES, FOREGROUND, NAMES


_OPENINGS = (
    "{}",
    "a photo of {}",
    "a picture of {}",
    "a drawing of {}",
    "a small picture of {}",
    "a scene with {}",
    "an image showing {}",
    "here we see {}",
    "look at {}",
    "{} in a picture",
)
_JOINTS = ("with", "and", "in front of", "together with", "next to")


def caption(names: Sequence[str], rng: np.random.Generator) -> str:
    """Write a sentence that mentions exactly some classes, each by one of its names.

    Args:
        names: Class names, at least one, such as ``scene_names`` returns.
        rng: Chooses order, synonyms and wording.

    Returns:
        A caption such as ``"a picture of a cottage and a tree with the sky"``.

    Raises:
        ValueError: No name, or a name that is not a class.
    """
    unknown = [name for name in names if name not in NAMES]
    if unknown or not names:
        raise ValueError(f"names are {list(names)}, expected some of {list(NAMES)}")
    order = [int(key) for key in rng.integers(0, 1 << 30, len(names))]
    shuffled = [name for _, name in sorted(zip(order, names, strict=True))]
    things = [_phrase(name, rng) for name in shuffled if name in FOREGROUND]
    stuff = [_phrase(name, rng) for name in shuffled if name in BACKGROUND]
    if things and stuff and rng.random() < 0.6:
        words = f"{_listed(things)} {pick(rng, _JOINTS)} {_listed(stuff)}"
    else:
        words = _listed(things + stuff if rng.random() < 0.5 else stuff + things)
    return pick(rng, _OPENINGS).format(words)


def wordings() -> list[str]:
    """The texts that captions are put together from."""
    names = [name for each in CLASSES for name in each.names]
    return [*names, *_OPENINGS, *_JOINTS, "a an the and"]


def _phrase(name: str, rng: np.random.Generator) -> str:
    """A class by its name or, one time in three, a synonym, with its article."""
    _, synonyms, article, _ = CLASSES[NAMES.index(name)]
    word = pick(rng, synonyms) if synonyms and rng.random() < 0.35 else name
    return (
        f"an {word}" if article == "a" and word[0] in "aeiou" else f"{article} {word}"
    )


def _listed(phrases: Sequence[str]) -> str:
    *first, last = phrases
    return f"{', '.join(first)} and {last}" if first else last
