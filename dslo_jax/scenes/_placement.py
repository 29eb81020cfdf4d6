"""The places of things: on suitable ground, and smaller the further away they are."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dslo_jax.scenes._canvas import Canvas, Number, Pen, between
from dslo_jax.scenes._made import (
    draw_ball,
    draw_boat,
    draw_car,
    draw_fence,
    draw_house,
    draw_umbrella,
)
from dslo_jax.scenes._nature import draw_flower, draw_sheep, draw_tree
from dslo_jax.scenes._sky import draw_balloon, draw_bird, draw_cloud


_TRIES = 16


class Thing(NamedTuple):
    """The rules for placing a thing.

    Args:
        draw: Callable[[Pen, np.random.Generator], None]s it with a pen.
        size: Length of its 100 units at middle distance, percent of the short side.
        reach: Half its width, in its units.
        height: Its height, in its units.
        grounds: Classes that it stands on.
        chance: How often a scene is offered one.
        most: How many of it a scene may hold.
    """

    draw: Callable[[Pen, np.random.Generator], None]
    size: Number
    reach: Number
    height: Number
    grounds: tuple[str, ...]
    chance: Number
    most: int


THINGS: dict[str, Thing] = {
    "house": Thing(draw_house, 36, 60, 100, ("grass", "sand"), 0.4, 2),
    "tree": Thing(draw_tree, 44, 34, 98, ("grass",), 0.5, 4),
    "fence": Thing(draw_fence, 17, 200, 108, ("grass", "sand"), 0.4, 1),
    "flower": Thing(draw_flower, 26, 34, 104, ("grass",), 0.5, 5),
    "boat": Thing(draw_boat, 36, 52, 100, ("sea",), 0.6, 2),
    "car": Thing(draw_car, 38, 50, 56, ("road", "grass", "sand"), 0.45, 2),
    "ball": Thing(draw_ball, 17, 50, 100, ("grass", "sand", "road"), 0.4, 2),
    "sheep": Thing(draw_sheep, 30, 56, 76, ("grass",), 0.4, 3),
    "umbrella": Thing(draw_umbrella, 42, 56, 100, ("sand", "grass"), 0.35, 2),
}
FLYING: dict[str, Thing] = {
    "cloud": Thing(draw_cloud, 26, 90, 60, ("sky",), 0.5, 3),
    "bird": Thing(draw_bird, 18, 64, 90, ("sky",), 0.35, 3),
    "balloon": Thing(draw_balloon, 38, 38, 102, ("sky",), 0.35, 2),
}


class _Place(NamedTuple):
    """A thing and its foot, with the length of its 100 units, in pixels."""

    name: str
    thing: Thing
    x: Number
    y: Number
    size: Number


def populate(rng: np.random.Generator, canvas: Canvas, horizon: Number) -> None:
    """Choose things and draw them from far to near.

    Args:
        rng: Source of all choices.
        canvas: A finished landscape; its labels say where things can be.
        horizon: Height of the horizon in pixels, outside the picture where the camera
            sees sky or ground alone.
    """
    flying = _find_places(rng, canvas, horizon, FLYING)
    standing = _find_places(rng, canvas, horizon, THINGS)
    standing.sort(key=lambda place: place.y)
    for name, thing, x, y, size in flying + standing:
        mirrored = bool(rng.random() < 0.5)
        thing.draw(Pen(canvas, name, x=x, y=y, size=size, mirrored=mirrored), rng)


def _find_places(
    rng: np.random.Generator,
    canvas: Canvas,
    horizon: Number,
    things: Mapping[str, Thing],
) -> list[_Place]:
    taken: list[_Place] = []
    for name, thing in _choose(rng, things):
        for _ in range(_TRIES):
            place = _guess(rng, canvas, horizon, name, thing)
            if _suits(canvas, place) and not _hides(place, taken):
                taken.append(place)
                break
    return taken


def _choose(
    rng: np.random.Generator, things: Mapping[str, Thing]
) -> Iterator[tuple[str, Thing]]:
    """Choose each kind with its own probability, independently of the others."""
    for name, thing in things.items():
        if rng.random() < thing.chance:
            several = rng.random() < 0.5
            for _ in range(1 + int(rng.integers(thing.most)) if several else 1):
                yield name, thing


def _guess(
    rng: np.random.Generator, canvas: Canvas, horizon: Number, name: str, thing: Thing
) -> _Place:
    x = between(rng, 0.02, 0.98) * canvas.width
    base = thing.size * between(rng, 0.75, 1.25) * canvas.unit
    if "sky" in thing.grounds:
        size = base * between(rng, 0.6, 1.3)
        low = 0.95 * min(horizon, canvas.height)
        y = between(rng, min(0.6 * thing.height * size / 100, low), low)
    else:
        top = max(horizon, 0.0)
        y = top + between(rng, 0.06, 1.04) * (canvas.height - top)
        depth = max(canvas.height - horizon, 1.0)
        size = base * (0.5 + 0.8 * (y - horizon) / depth)
    return _Place(name, thing, x, y, size)


def _suits(canvas: Canvas, place: _Place) -> bool:
    """Whether the foot of a thing, left, middle and right, is on its kind of ground."""
    reach = 0.7 * place.thing.reach * place.size / 100
    feet = (canvas.name_at(place.x + side * reach, place.y - 1) for side in (-1, 0, 1))
    return all(foot in place.thing.grounds for foot in feet)


def _hides(place: _Place, taken: Sequence[_Place]) -> bool:
    """Whether a thing would stand right before or behind another one."""
    for other in taken:
        pair = (place, other)
        wide = sum(each.thing.reach * each.size for each in pair) / 100
        tall = max(each.thing.height * each.size for each in pair) / 100
        close = abs(place.x - other.x) < 0.55 * wide
        if close and abs(place.y - other.y) < 0.4 * tall:
            return True
    return False
