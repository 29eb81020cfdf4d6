"""Plants and animals, drawn in their own coordinates (see ``Pen``).

The foot of a thing is at (0, 0), y points up, and it looks to the right.
"""

import numpy as np

from dslo_jax.scenes._canvas import (
    Pen,
    Point,
    Rgb,
    around,
    between,
    box,
    ellipse,
    jitter,
    mix,
    pick,
    stroke,
)
from dslo_jax.scenes._textures import (
    BLACK,
    PAINTS,
    WHITE,
    Grain,
    smooth_noise,
)


_LEAVES: tuple[Rgb, ...] = (
    (40, 110, 46),
    (66, 134, 44),
    (28, 88, 62),
    (106, 140, 40),
    (206, 120, 36),
    (186, 62, 38),
    (216, 170, 48),
    (232, 158, 184),
)
# Position and radius of the puffs of a round tree.
_CROWN = ((0, 66, 27), (-20, 56, 19), (20, 56, 19), (-13, 76, 18), (14, 76, 18))


def draw_tree(pen: Pen, rng: np.random.Generator) -> None:
    """A round tree, a poplar or a fir; leaves of any season."""
    leaves = jitter(rng, pick(rng, _LEAVES), 14)
    cell = round(max(pen.canvas.unit * 1.8, 2))
    grain = smooth_noise(rng, pen.canvas.labels.shape, (cell, cell), 64)
    pen.shadow(28)
    kind = int(rng.integers(3))
    bark = jitter(rng, pick(rng, ((104, 70, 44), (84, 62, 54), (200, 196, 188))), 10)
    if kind == 2:
        _fir(pen, rng, bark, mix(leaves, (20, 70, 50), 60), grain)
        return
    pen.fill(bark, [(-6, 0), (6, 0), (4, 50), (-4, 50)])
    pen.fill(bark, stroke((0, 30), (16, 52), 4), stroke((0, 26), (-15, 48), 4))
    if kind == 0:
        puffs = [
            (x + between(rng, -4, 4), y + between(rng, -4, 4), radius)
            for x, y, radius in _CROWN
        ]
        crown = [ellipse(x, y, r, r) for x, y, r in puffs]
        light = [ellipse(x - 4, y + 5, r * 0.6, r * 0.55) for x, y, r in puffs]
    else:
        half = between(rng, 15, 23)
        crown = [ellipse(0, 60, half, 40)]
        light = [ellipse(-half * 0.25, 64, half * 0.55, 30)]
    pen.fill(mix(leaves, BLACK, 22), *crown, grain=grain)
    pen.fill(mix(leaves, WHITE, 8), *light, grain=grain)


def _fir(
    pen: Pen, rng: np.random.Generator, bark: Rgb, leaves: Rgb, grain: Grain
) -> None:
    half = between(rng, 24, 34)
    pen.fill(bark, box(-4.5, 0, 4.5, 20))
    snow = rng.random() < 0.25
    for tier in range(3):
        low, wide = 13 + 25 * tier, half * (1 - 0.24 * tier)
        tip = low + 42
        pen.fill(
            mix(leaves, BLACK, 20 - 8 * tier),
            [(-wide, low), (wide, low), (0, tip)],
            grain=grain,
        )
        if snow:
            cap = [(-wide * 0.4, tip - 17), (wide * 0.4, tip - 17), (0, tip)]
            pen.fill((236, 240, 246), cap)


def draw_flower(pen: Pen, rng: np.random.Generator) -> None:
    """A daisy or a tulip on its stem."""
    rgb = jitter(rng, pick(rng, PAINTS[:9]), 14)
    green = jitter(rng, (52, 128, 48), 16)
    lean = between(rng, -8, 8)
    pen.fill(green, stroke((0, 0), (lean, 66), 7))
    for side in (-1, 1):
        foot = between(rng, 6, 16)
        pen.fill(
            green,
            [
                (0, foot),
                (side * 20, foot + 12),
                (side * 30, foot + 30),
                (side * 10, foot + 20),
            ],
        )
    if rng.random() < 0.35:
        cup = [
            (lean - 22, 96),
            (lean - 20, 70),
            (lean - 8, 58),
            (lean + 8, 58),
            (lean + 20, 70),
            (lean + 22, 96),
            (lean + 10, 82),
            (lean, 100),
            (lean - 10, 82),
        ]
        pen.fill(rgb, cup)
        pen.fill(mix(rgb, WHITE, 30), ellipse(lean - 8, 72, 5, 10))
        return
    step = pick(rng, (3, 4))
    wide = 12 if step == 3 else 15
    petals = [
        ellipse(*around(lean, 70, 20, turn), wide, wide) for turn in range(0, 24, step)
    ]
    pen.fill(mix(rgb, BLACK, 14), *petals)
    inner = [
        ellipse(*around(lean, 70, 20, turn), wide - 4, wide - 4)
        for turn in range(0, 24, step)
    ]
    pen.fill(rgb, *inner)
    eye = (250, 204, 60) if rgb[2] > 90 or rgb[1] < 120 else (120, 70, 40)
    pen.fill(eye, ellipse(lean, 70, 12, 12))


def draw_sheep(pen: Pen, rng: np.random.Generator) -> None:
    """A woolly body, a dark head, four legs."""
    wool = jitter(
        rng, pick(rng, (WHITE, (232, 220, 196), (206, 204, 206), (92, 78, 72))), 10
    )
    face = jitter(rng, pick(rng, ((48, 44, 48), (96, 72, 58), (222, 190, 168))), 8)
    pen.shadow(44)
    pen.fill(face, *(box(x - 3.5, 0, x + 3.5, 26) for x in (-26, -14, 12, 24)))
    curls = [ellipse(*_oval(step), 13, 12) for step in range(0, 24, 3)]
    pen.fill(mix(wool, BLACK, 18), ellipse(0, 42, 34, 20), *curls)
    pen.fill(
        wool, ellipse(-2, 47, 30, 17), *(ellipse(x, 54, 11, 9) for x in (-22, -4, 14))
    )
    pen.fill(face, ellipse(46, 56, 14, 11), ellipse(34, 62, 8, 4))
    pen.fill(wool, ellipse(38, 67, 9, 7))
    pen.fill(WHITE, ellipse(48, 60, 3, 3))
    pen.fill(BLACK, ellipse(49, 60, 1.8, 1.8))


def _oval(step: int) -> Point:
    x, y = around(0, 0, 34, step)
    return x, 43 + y * 0.5
