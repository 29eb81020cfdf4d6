"""Training data of CLIP: windows of scenes, and sentences about what they show."""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32

from dslo_jax import images, prompts, scenes
from dslo_jax.demo.train.recipe import first_seed
from dslo_jax.templates import IMAGENET_TEMPLATES


# Scenes are enlarged, as small photos are.
_ZOOM = (1.0, 1.8)
# Least share of the pixels for a class to be mentioned in a caption.
_VISIBLE = 0.01
_CAPTIONS, _SENTENCE_TOKENS = 24, 24
_THINGS = frozenset(scenes.FOREGROUND)


class Windows(NamedTuple):
    """The pictures of one step.

    Attributes:
        side: Side of a window in pixels.
        count: Number of windows.
        per_scene: Number of windows of the same scene.
        names: Greatest number of names in a caption.
        tokens: Number of tokens for such a caption.
        tiles: Number of tiles along each side; each tile has names of its own.
    """

    side: int
    count: int
    per_scene: int
    names: int
    tokens: int
    tiles: int = 1


def draw_batch(
    tokenizer: Any, windows: Windows, step: int, seed: int
) -> dict[str, np.ndarray]:
    """Draw the pictures and sentences of a step.

    Returns:
        ``pixels`` uint8 [windows, side, side, 3]; ``present`` bool [tiles, classes],
        the tiles of each window row by row; ``sentences`` int32 [classes, tokens], one
        about each class; ``captions`` int32 [captions, tokens] of the first windows;
        ``same`` bool [captions, captions], whether the caption of a column is true of
        the window of a row.
    """
    rng = np.random.default_rng((seed, step))
    shown = list(_windows(rng, windows, step))
    names = [scenes.scene_names(each.labels, min_share=_VISIBLE) for each in shown]
    captions = [
        scenes.caption(rng.permutation(some)[: windows.names].tolist(), rng)
        for some in names[:_CAPTIONS]
    ]
    sentences = draw_sentences(tokenizer, rng)
    first = names[:_CAPTIONS]
    tiles = [tile for each in shown for tile in _tiles(each.labels, windows.tiles)]
    return {
        "pixels": np.stack([each.pixels for each in shown]),
        "present": np.stack([present(tile) for tile in tiles]),
        "sentences": sentences,
        "captions": prompts.tokenize(tokenizer, captions, length=windows.tokens),
        "same": np.array([[one == other for other in first] for one in first]),
    }


def _tiles(labels: np.ndarray, count: int) -> list[np.ndarray]:
    """Cut a square into ``count`` x ``count`` tiles, row by row."""
    rows = np.array_split(labels, count, axis=0)
    return [tile for row in rows for tile in np.array_split(row, count, axis=1)]


def present(labels: np.ndarray) -> np.ndarray:
    """True for each class that a caption of the picture can mention."""
    return np.isin(scenes.NAMES, scenes.scene_names(labels, min_share=_VISIBLE))


def _windows(
    rng: np.random.Generator, windows: Windows, step: int
) -> Iterator[scenes.Scene]:
    """Draw square windows, several of each scene; no two steps share a scene."""
    first = first_seed(step)
    for index in range(windows.count):
        if index % windows.per_scene == 0:
            scene = scenes.draw_scene(first + index // windows.per_scene)
        zoom = np.exp(rng.uniform(*np.log(_ZOOM)))
        side = min(round(windows.side / zoom), *scene.labels.shape)
        # Every second window is the best of four places, because most small windows at
        # random places show only sky and ground.
        places = [_square(rng, scene, side) for _ in range(1 + index % 2 * 3)]
        rows, columns = max(places, key=partial(_count_things, scene))
        cut, size = scene.pixels[rows, columns], (windows.side, windows.side)
        yield scene._replace(
            pixels=images.resize_photo(cut, size), labels=scene.labels[rows, columns]
        )


def _square(
    rng: np.random.Generator, scene: scenes.Scene, side: int
) -> tuple[slice, slice]:
    """A random place for a window."""
    top, left = (int(rng.integers(n - side + 1)) for n in scene.labels.shape)
    return slice(top, top + side), slice(left, left + side)


def _count_things(scene: scenes.Scene, place: tuple[slice, slice]) -> int:
    shown = scenes.scene_names(scene.labels[place], min_share=0.05)
    return len(_THINGS.intersection(shown))


def draw_sentences(
    tokenizer: Any, rng: np.random.Generator
) -> Int32[np.ndarray, "classes tokens"]:
    """Draw a sentence about each class."""
    sentences = [_sentence(name, rng) for name in scenes.NAMES]
    return prompts.tokenize(tokenizer, sentences, length=_SENTENCE_TOKENS)


def _sentence(name: str, rng: np.random.Generator) -> str:
    """A sentence about a class: a caption or, half of the time, a template."""
    if rng.random() < 0.5:
        return scenes.caption([name], rng)
    known = scenes.CLASSES[scenes.NAMES.index(name)]
    word = rng.choice([name, *known.synonyms])
    return str(rng.choice(IMAGENET_TEMPLATES)).format(word)
