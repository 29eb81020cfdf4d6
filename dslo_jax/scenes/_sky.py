"""Things in the sky, drawn in their own coordinates (see ``Pen``)."""

import numpy as np

from dslo_jax.scenes._canvas import (
    Pen,
    around,
    between,
    box,
    ellipse,
    jitter,
    mix,
    pick,
    stroke,
)
from dslo_jax.scenes._textures import BLACK, PAINTS, WHITE


def draw_sun(pen: Pen, rng: np.random.Generator) -> None:
    """A disc, often with rays, in a halo that belongs to the sky."""
    low = ((255, 170, 84), (255, 140, 60), (246, 84, 52))
    high = ((255, 242, 160), (255, 220, 70), (255, 192, 44))
    rgb = jitter(rng, pick(rng, low if pen.time in ("dawn", "dusk") else high), 14)
    for radius in (110, 84, 66):
        pen.veil(rgb, 36, ellipse(0, 50, radius, radius))
    if rng.random() < 0.55:
        turn = int(rng.integers(2))
        for step in range(turn, 24, 2 + int(rng.integers(2))):
            tip = around(0, 50, between(rng, 74, 92), step)
            foot = [around(0, 50, 50, step - 1), around(0, 50, 50, step + 1)]
            pen.fill(rgb, [*foot, tip], glow=True)
    pen.fill(rgb, ellipse(0, 50, 50, 50), glow=True)
    pen.fill(mix(rgb, WHITE, 45), ellipse(0, 50, 36, 36), glow=True)


def draw_moon(pen: Pen, rng: np.random.Generator) -> None:
    """A full moon with craters, or a crescent."""
    rgb = jitter(rng, pick(rng, ((242, 240, 222), (226, 230, 240), (246, 226, 170))), 8)
    for radius in (96, 70):
        pen.veil(rgb, 14, ellipse(0, 50, radius, radius))
    if rng.random() < 0.5:
        pen.fill(rgb, ellipse(0, 50, 50, 50), glow=True)
        for x, y, radius in ((-18, 64, 13), (16, 40, 16), (-12, 26, 8), (22, 74, 7)):
            move = between(rng, -5, 5)
            spot = ellipse(x + move, y, radius, radius)
            pen.fill(mix(rgb, (110, 116, 140), 36), spot, glow=True)
        return
    # The dark part is never drawn: a crescent is one outline, out along the limb and
    # back along the terminator.
    limb = [around(0, 50, 56, step) for step in range(-6, 7)]
    bite = between(rng, 0.05, 0.6)
    terminator = [(bite * x, y) for x, y in reversed(limb[1:-1])]
    pen.fill(rgb, [*limb, *terminator], glow=True)


def draw_cloud(pen: Pen, rng: np.random.Generator) -> None:
    """Puffs on a flat base, lighter above."""
    tone = {"noon": (250, 251, 253), "dawn": (252, 226, 222), "dusk": (246, 176, 150)}
    rgb = jitter(rng, tone.get(pen.time, (92, 100, 136)), 8)
    if rng.random() < 0.25:
        rgb = mix(rgb, (104, 110, 126), 50)
    puffs = []
    count = int(rng.integers(4, 7))
    for index in range(count):
        x = -72 + 144 * (index + between(rng, 0.2, 0.8)) / count
        radius = between(rng, 18, 26) + 14 * (1 - abs(x) / 80)
        puffs.append((x, 18 + between(rng, 0, 12), radius))
    shade = mix(rgb, pen.canvas.light.horizon, 32)
    base = ellipse(0, 12, 86, 13)
    pen.fill(shade, base, *(ellipse(x, y, r * 1.1, r) for x, y, r in puffs), glow=True)
    light = (ellipse(x - 2, y + 6, r * 0.92, r * 0.8) for x, y, r in puffs)
    pen.fill(rgb, *light, glow=True)


def draw_bird(pen: Pen, rng: np.random.Generator) -> None:
    """A plump bird in flight, one wing before and one behind."""
    rgb = jitter(rng, pick(rng, (*PAINTS, (70, 60, 56), (110, 120, 136))), 12)
    wing = mix(rgb, BLACK, 34)
    lift = between(rng, 34, 66) * (1 if rng.random() < 0.65 else -0.7)
    pen.fill(mix(wing, BLACK, 20), [(-6, 42), (16, 42), (14, 42 + lift * 0.9)])
    pen.fill(wing, [(-34, 34), (-66, 46), (-62, 32), (-66, 20)])
    pen.fill(rgb, ellipse(-4, 34, 36, 18), ellipse(30, 44, 15, 14))
    pen.fill(
        pick(rng, ((250, 176, 40), (236, 110, 40))), [(43, 49), (62, 42), (43, 38)]
    )
    pen.fill(wing, [(-24, 38), (12, 38), (-20, 38 + lift)])
    pen.fill(WHITE, ellipse(34, 47, 5, 5))
    pen.fill(BLACK, ellipse(35, 47, 3, 3))


def draw_balloon(pen: Pen, rng: np.random.Generator) -> None:
    """A hot-air balloon with gores and a basket."""
    rgb, other = jitter(rng, pick(rng, PAINTS), 10), jitter(rng, pick(rng, PAINTS), 10)
    for side in (-7, 7):
        pen.fill((96, 76, 60), stroke((side, 14), (side * 2.6, 36), 2.4))
    pen.fill((150, 104, 60), box(-9, 0, 9, 15))
    pen.fill((110, 74, 42), box(-9, 12, 9, 16))
    half = between(rng, 32, 37)
    for share, gore in ((1, rgb), (0.72, other), (0.46, rgb), (0.2, other)):
        top = [(share * x, y) for x, y in ellipse(0, 65, half, 36) if y > 50]
        foot = 11 * share
        top.sort(key=lambda point: point[0])
        pen.fill(gore, [(-foot, 30), *top, (foot, 30)])
    band = [(-half * 0.99, 62), (half * 0.99, 62), (half, 67), (-half, 67)]
    if rng.random() < 0.5:
        pen.fill(mix(other, BLACK, 18), band)
