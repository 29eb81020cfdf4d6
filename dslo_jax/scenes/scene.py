"""Procedural scenes with exact labels.

A seed is a scene for ever: the same pixels and labels on every machine and in every
release with the same ``VERSION``. Whoever changes what is drawn raises ``VERSION``.

Seeds in ``HELD_OUT_SEEDS`` are for measuring only: nothing is trained on them. Training
draws seeds from ``FIRST_TRAINING_SEED`` upwards.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from dslo_jax.scenes._canvas import Canvas, between, pick
from dslo_jax.scenes._landscape import (
    choose_light,
    choose_view,
    draw_ground,
    draw_mountains,
    draw_sky,
    draw_sun_or_moon,
)
from dslo_jax.scenes._placement import populate
from dslo_jax.scenes._textures import speckle
from dslo_jax.scenes.classes import NAMES


VERSION = 1
HELD_OUT_SEEDS = range(10_000)
FIRST_TRAINING_SEED = HELD_OUT_SEEDS.stop
# Heights and widths of scenes whose size is chosen by the seed.
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


class Scene(NamedTuple):
    """A scene, or a crop of one, and its labels.

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
