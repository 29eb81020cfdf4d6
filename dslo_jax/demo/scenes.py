"""Procedural scenes with exact truth: a small world in which everything is measurable.

A seed is a scene for ever: the same pixels and labels on every machine and in every
release with the same ``VERSION``. Whoever changes what is drawn raises ``VERSION``.

Seeds in ``HELD_OUT_SEEDS`` are for measuring only: nothing is trained on them. Training
draws seeds from ``FIRST_TRAINING_SEED`` upwards.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import UInt8

from dslo_jax.demo._canvas import Canvas, between, pick
from dslo_jax.demo._landscape import (
    choose_light,
    choose_view,
    draw_ground,
    draw_mountains,
    draw_sky,
    draw_sun_or_moon,
)
from dslo_jax.demo._placement import populate
from dslo_jax.demo._textures import speckle


VERSION = 1
HELD_OUT_SEEDS = range(10_000)
FIRST_TRAINING_SEED = HELD_OUT_SEEDS.stop
# Height and width of a scene whose size is left to its seed.
SIZES: tuple[tuple[int, int], ...] = (
    (112, 144),
    (112, 160),
    (128, 144),
    (128, 160),
    (144, 112),
    (144, 128),
    (160, 112),
    (160, 128),
)
_SMALLEST_SIDE = 32


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
# What counts as background where a benchmark has one, as in a 21-class protocol.
BACKGROUND: tuple[str, ...] = tuple(c.name for c in CLASSES if c.kind == "stuff")
FOREGROUND: tuple[str, ...] = tuple(c.name for c in CLASSES if c.kind == "thing")

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


class Scene(NamedTuple):
    """A scene, or a crop of one, and its truth.

    Args:
        pixels: RGB, 0 ... 255.
        labels: Position in ``CLASSES`` of what each pixel shows; every pixel has one.
        seed: What it was drawn from.
        time: ``"dawn"``, ``"noon"``, ``"dusk"`` or ``"night"``.
    """

    pixels: UInt8[np.ndarray, "height width 3"]
    labels: UInt8[np.ndarray, "height width"]
    seed: int
    time: str


def draw_scene(seed: int, *, size: tuple[int, int] | None = None) -> Scene:
    """Draw the scene of a seed.

    Args:
        seed: 0 or more.
        size: Height and width in pixels, 32 or more each; None lets the seed choose
            from ``SIZES``. The same seed at another size is another scene.

    Returns:
        The scene; its labels are exact: a pixel belongs to the front-most shape that
        covers more than half of it.

    Raises:
        ValueError: A negative seed, or a side below 32 pixels.
    """
    if seed < 0:
        raise ValueError(f"seed is {seed}, expected 0 or more")
    if size is not None and min(size) < _SMALLEST_SIDE:
        raise ValueError(
            f"size is {size}, expected sides of {_SMALLEST_SIDE} pixels or more; draw "
            "larger and resize"
        )
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((VERSION, seed))))
    chosen = pick(rng, SIZES)
    light = choose_light(rng)
    canvas = Canvas(size or chosen, light, NAMES)
    view = choose_view(rng, canvas.height)
    draw_sky(rng, canvas, view.horizon)
    draw_sun_or_moon(rng, canvas, view.horizon)
    if 0 < view.horizon < canvas.height and rng.random() < 0.4:
        draw_mountains(rng, canvas, view.horizon)
    draw_ground(rng, canvas, view)
    populate(rng, canvas, view.horizon)
    canvas.pixels *= int(rng.integers(226, 280))
    canvas.pixels >>= 8
    canvas.pixels += speckle(rng, canvas.pixels.shape, int(rng.integers(2, 9)))
    return Scene(canvas.finish(), canvas.labels, seed, light.time)


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
    names = [name for each in CLASSES for name in (each.name, *each.synonyms)]
    return [*names, *_OPENINGS, *_JOINTS, "a an the and"]


def random_crop(
    scene: Scene, rng: np.random.Generator, *, min_side: float = 0.25
) -> Scene:
    """Cut a random window out of a scene, small ones as often as large ones.

    Args:
        scene: A drawn scene.
        rng: Chooses scale, shape and place.
        min_side: Smallest side of the window as a share of the scene's, in (0, 1].

    Returns:
        The window as a scene, views of the arrays of ``scene``.

    Raises:
        ValueError: ``min_side`` is outside (0, 1].
    """
    if not 0 < min_side <= 1:
        raise ValueError(f"min_side is {min_side}, expected a share in (0, 1]")
    scale = between(rng, min_side, 1.0)
    area = []
    for length in scene.labels.shape:
        share = min(max(scale * between(rng, 0.8, 1.25), min_side), 1.0)
        side = max(round(share * length), 1)
        start = int(rng.integers(length - side + 1))
        area.append(slice(start, start + side))
    rows, columns = area
    return scene._replace(
        pixels=scene.pixels[rows, columns], labels=scene.labels[rows, columns]
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
