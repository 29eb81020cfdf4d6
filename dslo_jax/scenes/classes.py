"""The classes of the drawn world, and their labels."""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import UInt8


class SceneClass(NamedTuple):
    """A class of the world; its label is its position in ``CLASSES``.

    Args:
        name: What a child would call it.
        synonyms: Other names of everything that carries the label.
        article: What goes before a name in a sentence.
        kind: ``"stuff"`` fills space, a ``"thing"`` can be counted.
    """

    name: str
    synonyms: tuple[str, ...]
    article: Literal["a", "the"]
    kind: Literal["stuff", "thing"]

    @property
    def names(self) -> tuple[str, ...]:
        """The name, then the synonyms."""
        return (self.name, *self.synonyms)


CLASSES: tuple[SceneClass, ...] = (
    SceneClass("sky", ("heavens",), "the", "stuff"),
    SceneClass("cloud", (), "a", "stuff"),
    SceneClass("mountain", ("peak",), "a", "stuff"),
    SceneClass("sea", ("ocean", "water"), "the", "stuff"),
    SceneClass("grass", ("meadow", "lawn"), "the", "stuff"),
    SceneClass("sand", ("beach",), "the", "stuff"),
    SceneClass("road", ("street",), "a", "stuff"),
    SceneClass("sun", ("sunshine",), "the", "thing"),
    SceneClass("moon", (), "the", "thing"),
    SceneClass("house", ("cottage", "building"), "a", "thing"),
    SceneClass("tree", (), "a", "thing"),
    SceneClass("fence", ("picket fence",), "a", "thing"),
    SceneClass("flower", ("blossom",), "a", "thing"),
    SceneClass("boat", ("ship",), "a", "thing"),
    SceneClass("car", ("automobile",), "a", "thing"),
    SceneClass("ball", (), "a", "thing"),
    SceneClass("sheep", ("lamb",), "a", "thing"),
    SceneClass("umbrella", ("parasol",), "a", "thing"),
    SceneClass("bird", (), "a", "thing"),
    SceneClass("balloon", ("hot-air balloon",), "a", "thing"),
)
NAMES: tuple[str, ...] = tuple(each.name for each in CLASSES)
# Classes that count as background in a protocol with a background class.
BACKGROUND: tuple[str, ...] = tuple(c.name for c in CLASSES if c.kind == "stuff")
FOREGROUND: tuple[str, ...] = tuple(c.name for c in CLASSES if c.kind == "thing")


def scene_names(
    labels: UInt8[np.ndarray, "height width"], *, min_share: float = 0.005
) -> tuple[str, ...]:
    """Names of the classes that can be seen, in the order of ``CLASSES``.

    Args:
        labels: Labels of a scene or of a part of it.
        min_share: Share of the pixels that a class needs to count as visible.

    Returns:
        Names; never empty for a ``min_share`` of at most 1 / 20.
    """
    counts = np.bincount(labels.ravel(), minlength=len(CLASSES))
    needed = max(min_share * labels.size, 1)
    return tuple(
        name for name, count in zip(NAMES, counts, strict=True) if count >= needed
    )


def foreground_labels(
    labels: UInt8[np.ndarray, "height width"],
) -> UInt8[np.ndarray, "height width"]:
    """Labels for a protocol with a background class.

    Args:
        labels: Labels of a scene.

    Returns:
        0 where a class of ``BACKGROUND`` is seen, else 1 + the position of the class in
        ``FOREGROUND``.
    """
    table = [FOREGROUND.index(n) + 1 if n in FOREGROUND else 0 for n in NAMES]
    return np.array(table, np.uint8)[labels]
