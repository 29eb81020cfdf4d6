"""Things that people make, drawn in their own coordinates (see ``Pen``).

The foot of a thing is at (0, 0), y points up, and it looks to the right.
"""

import numpy as np

from dslo_jax.scenes._canvas import (
    Number,
    Pen,
    Rgb,
    around,
    between,
    box,
    ellipse,
    jitter,
    mix,
    pick,
    sector,
    stroke,
)
from dslo_jax.scenes._textures import (
    BLACK,
    LAMP,
    PAINTS,
    WHITE,
    WINDOW,
    bricks,
    planks,
    speckle,
)


_WALLS: tuple[Rgb, ...] = (
    (176, 84, 62),
    (232, 220, 196),
    (222, 178, 116),
    (150, 176, 190),
    (214, 150, 140),
    (150, 110, 78),
    (240, 240, 236),
    (198, 196, 120),
)
_ROOFS: tuple[Rgb, ...] = (
    (150, 48, 40),
    (92, 60, 48),
    (70, 76, 92),
    (178, 84, 44),
    (52, 88, 88),
)
# The upper half of the unit circle, from left to right, y up.
_DOME = tuple((x, -y) for x, y in (around(0, 0, 1, step) for step in range(-12, 1)))


def draw_house(pen: Pen, rng: np.random.Generator) -> None:
    """Walls of brick, board or plaster, a roof, a door and windows."""
    wall, roof = jitter(rng, pick(rng, _WALLS), 12), jitter(rng, pick(rng, _ROOFS), 12)
    half, high = between(rng, 34, 56), between(rng, 42, 62)
    top = high + between(rng, 26, 40)
    size = pen.canvas.labels.shape
    course = round(max(pen.canvas.unit * 2.2, 3))
    corner = pen.at(-half, high)
    grain = (
        bricks(size, corner, course, 52),
        planks(size, corner, course + 1, 44),
        speckle(rng, size, 10),
    )[int(rng.integers(3))]
    pen.shadow(half * 1.2)
    if rng.random() < 0.6:
        side = half * between(rng, 0.3, 0.6)
        pen.fill(mix(wall, BLACK, 30), box(side, high, side + 11, top + 6))
    # Up into the roof: parts that only touch would leave pixels between them.
    pen.fill(wall, box(-half, 0, half, high + 3), grain=grain)
    eaves = half + 8
    tiles = planks(size, corner, course, 40)
    if rng.random() < 0.5:
        ridge = [(-half * 0.66, top), (half * 0.66, top)]
        pen.fill(roof, [(-eaves, high), (eaves, high), *reversed(ridge)], grain=tiles)
    else:
        pen.fill(roof, [(-eaves, high), (0, top + 8), (eaves, high)], grain=tiles)
        inner = [(-half + 6, high), (0, top - 4), (half - 6, high)]
        pen.fill(mix(wall, WHITE, 12), inner)
    _door_and_windows(pen, rng, half, high)


def _door_and_windows(
    pen: Pen, rng: np.random.Generator, half: Number, high: Number
) -> None:
    lamps = pen.time == "night" or (pen.time == "dusk" and rng.random() < 0.6)
    frame = pick(rng, (WHITE, (90, 62, 44), (60, 70, 80)))
    door = pick(rng, ((0.0, -0.62, 0.62), (-0.56, 0.1, 0.62), (0.56, -0.62, -0.06)))
    x = door[0] * half
    pen.fill(jitter(rng, pick(rng, PAINTS), 20), box(x - 8, 0, x + 8, 30))
    pen.fill(BLACK, ellipse(x + 5, 14, 1.8, 1.8))
    wide = 8.5 if half > 42 else 7
    for share in door[1:]:
        x = share * half
        pen.fill(frame, box(x - wide - 2, high - 28, x + wide + 2, high - 8))
        pane = LAMP if lamps and rng.random() < 0.75 else WINDOW
        panes = (
            box(x - wide, high - 26, x - 1, high - 10),
            box(x + 1, high - 26, x + wide, high - 10),
        )
        pen.fill(pane, *panes, glow=pane == LAMP)


def draw_fence(pen: Pen, rng: np.random.Generator) -> None:
    """Pickets on two rails."""
    rgb = jitter(
        rng,
        pick(
            rng,
            (
                WHITE,
                (140, 96, 58),
                (184, 142, 94),
                (110, 112, 116),
                (172, 66, 50),
                (110, 160, 170),
            ),
        ),
        12,
    )
    count, pitch, wide = int(rng.integers(6, 15)), 30, between(rng, 19, 23)
    left = -count * pitch / 2
    pen.shadow(count * pitch * 0.46)
    rails = [box(left, low, -left, low + 12) for low in (22, 62)]
    pen.fill(mix(rgb, BLACK, 24), *rails)
    pointed = 16 if rng.random() < 0.7 else 0
    pickets = []
    for index in range(count):
        x = left + pitch * index + (pitch - wide) / 2
        pickets.append(
            [
                (x, 0),
                (x + wide, 0),
                (x + wide, 92),
                (x + wide / 2, 92 + pointed),
                (x, 92),
            ]
        )
    pen.fill(rgb, *pickets)
    pen.fill(mix(rgb, BLACK, 16), *(box(p[1][0] - 6, 0, p[1][0], 90) for p in pickets))


def draw_boat(pen: Pen, rng: np.random.Generator) -> None:
    """A sailing boat or a steamer."""
    hull, other = jitter(rng, pick(rng, PAINTS), 14), jitter(rng, pick(rng, PAINTS), 14)
    pen.veil((10, 20, 50), 70, ellipse(0, -1, 52, 7))
    if rng.random() < 0.6:
        pen.fill((110, 80, 56), stroke((0, 16), (0, 100), 3.5))
        tall = between(rng, 84, 98)
        sail = pick(rng, (WHITE, WHITE, other))
        pen.fill(sail, [(4, 22), (4, tall), (44, 24)])
        pen.fill(mix(sail, BLACK, 12), [(-4, 24), (-4, tall - 6), (-32, 26)])
        if rng.random() < 0.5:
            pen.fill(other, [(4, 40), (4, 52), (30, 46), (36, 38)])
    else:
        pen.fill(WHITE, box(-26, 18, 22, 40))
        pen.fill(WINDOW, *(ellipse(x, 30, 4.5, 4.5) for x in (-17, -2, 13)))
        pen.fill(other, box(-8, 40, 8, 64))
        pen.fill(BLACK, box(-8, 58, 8, 66))
        pen.fill((110, 80, 56), stroke((34, 18), (34, 50), 3))
        pen.fill(other, [(34, 50), (34, 40), (20, 45)])
    bow = between(rng, 50, 56)
    pen.fill(hull, [(-44, 20), (bow, 22), (38, 0), (-34, 0)])
    pen.fill(mix(hull, WHITE, 60), [(-43, 17), (bow - 4, 19), (bow, 23), (-45, 22)])
    pen.veil(pen.canvas.lit((236, 244, 250)), 150, ellipse(2, 0, 42, 2.4))


def draw_car(pen: Pen, rng: np.random.Generator) -> None:
    """A saloon, a van or a pick-up, seen from the side."""
    rgb = jitter(rng, pick(rng, (*PAINTS, (150, 156, 164), (52, 56, 64))), 14)
    pen.shadow(52)
    kind = int(rng.integers(3))
    cabin = (
        [(-34, 30), (-20, 50), (14, 50), (30, 30)],
        [(-48, 28), (-46, 56), (20, 56), (34, 28)],
        [(-10, 28), (-8, 50), (16, 50), (28, 28)],
    )[kind]
    panes = (
        (
            [(-28, 31), (-18, 46), (-5, 46), (-5, 31)],
            [(0, 31), (0, 46), (12, 46), (23, 31)],
        ),
        (
            box(-41, 34, -24, 50),
            box(-19, 34, -2, 50),
            [(3, 34), (3, 50), (17, 50), (26, 34)],
        ),
        ([(-5, 31), (-4, 46), (13, 46), (21, 31)],),
    )[kind]
    pen.fill(mix(rgb, WHITE, 10), cabin)
    pen.fill((64, 84, 104) if pen.time == "night" else (130, 168, 190), *panes)
    pen.fill(rgb, [(-50, 10), (-50, 27), (-44, 33), (38, 32), (50, 25), (50, 10)])
    pen.fill(mix(rgb, BLACK, 30), box(-50, 9, 50, 14))
    pen.fill(mix(rgb, BLACK, 40), box(-3, 14, -1.6, 31))
    for x in (-28, 28):
        pen.fill(BLACK, ellipse(x, 10, 11.5, 11.5))
        pen.fill((186, 190, 196), ellipse(x, 10, 5.5, 5.5))
    pen.fill(LAMP, ellipse(47, 22, 3.5, 4), glow=pen.time in ("night", "dusk"))
    pen.fill((220, 40, 36), box(-50, 20, -46, 26))


def draw_ball(pen: Pen, rng: np.random.Generator) -> None:
    """A beach ball, a dotted ball or a striped ball."""
    rgb, other = jitter(rng, pick(rng, PAINTS), 10), jitter(rng, pick(rng, PAINTS), 10)
    pen.shadow(56)
    pen.fill(mix(rgb, BLACK, 24), ellipse(0, 50, 50, 50))
    pen.fill(rgb, ellipse(-2, 52, 46, 46))
    kind = int(rng.integers(3))
    if kind == 0:
        turn = int(rng.integers(8))
        slices = [
            sector(0, 50, 49, turn + step, turn + step + 4) for step in (0, 8, 16)
        ]
        pen.fill(other, *slices)
        pen.fill(WHITE, ellipse(0, 50, 9, 9))
    elif kind == 1:
        spots = [ellipse(*around(0, 50, 34, step), 9, 9) for step in range(0, 24, 4)]
        pen.fill(other, ellipse(0, 50, 12, 12), *spots)
    else:
        band = [(x, 50 + (y - 50) * 0.34) for x, y in ellipse(0, 50, 49, 49)]
        pen.fill(other, band)
    pen.fill(mix(rgb, WHITE, 60), ellipse(-18, 70, 10, 7))


def draw_umbrella(pen: Pen, rng: np.random.Generator) -> None:
    """A parasol with gores on a pole."""
    rgb, other = jitter(rng, pick(rng, PAINTS), 10), jitter(rng, pick(rng, PAINTS), 10)
    pen.shadow(40)
    pen.fill((214, 206, 196), box(-2.5, 0, 2.5, 70))
    low = between(rng, 48, 56)
    for share, gore in ((1, rgb), (0.66, other), (0.28, rgb)):
        arc = [(54 * share * x, y) for x, y in _DOME]
        pen.fill(gore, [(x, low + (96 - low) * y) for x, y in arc])
    pen.fill(mix(rgb, BLACK, 20), box(-1.8, 95, 1.8, 101))
