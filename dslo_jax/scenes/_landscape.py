"""Sky, mountains and ground: a scene without things."""

from typing import NamedTuple

import numpy as np

from dslo_jax.scenes._canvas import (
    Canvas,
    Contour,
    Light,
    Number,
    Pen,
    Point,
    Rgb,
    between,
    box,
    jitter,
    mix,
    pick,
)
from dslo_jax.scenes._sky import draw_moon, draw_sun
from dslo_jax.scenes._textures import (
    WHITE,
    Grain,
    blades,
    line_noise,
    ripples,
    smooth_noise,
    speckle,
    waves,
)


class View(NamedTuple):
    """The view of the camera.

    Args:
        horizon: Height of the horizon in pixels; above 0 nothing of the sky is seen.
        bands: Ground from far to near.
        path: Whether a road leads from the near ground to the horizon.
    """

    horizon: Number
    bands: tuple[str, ...]
    path: bool


_BANDS: tuple[tuple[str, ...], ...] = (
    ("grass",),
    ("grass",),
    ("sea",),
    ("sand",),
    ("sea", "sand"),
    ("sea", "sand"),
    ("sea", "grass"),
    ("grass", "road", "grass"),
    ("grass", "road"),
    ("sand", "road", "sand"),
    ("sand", "grass"),
    ("grass", "sea", "grass"),
    ("sea", "sand", "road"),
    ("sea", "grass", "road"),
)
_GROUND: dict[str, tuple[Rgb, ...]] = {
    "grass": (
        (84, 150, 56),
        (112, 168, 62),
        (60, 128, 66),
        (142, 164, 70),
        (92, 172, 92),
    ),
    "sea": (
        (40, 104, 168),
        (36, 134, 168),
        (58, 124, 196),
        (44, 110, 130),
        (70, 166, 190),
    ),
    "sand": ((226, 200, 146), (238, 216, 172), (214, 176, 118), (222, 190, 164)),
    "road": ((98, 98, 104), (122, 120, 122), (78, 80, 88), (116, 112, 120)),
}
_ROCKS: tuple[Rgb, ...] = (
    (120, 118, 128),
    (104, 112, 142),
    (132, 110, 96),
    (112, 98, 130),
    (86, 104, 112),
)


def choose_light(rng: np.random.Generator) -> Light:
    """A time of day and its colours."""
    time = pick(rng, ("dawn", "noon", "noon", "dusk", "night"))
    zenith, horizon, tint = {
        "dawn": ((126, 146, 206), (252, 206, 180), (250, 226, 218)),
        "noon": ((84, 148, 226), (196, 226, 244), (256, 256, 256)),
        "dusk": ((84, 70, 134), (248, 150, 92), (232, 188, 170)),
        "night": ((14, 18, 50), (48, 58, 104), (148, 148, 174)),
    }[time]
    if time == "noon" and rng.random() < 0.2:
        zenith, horizon, tint = (150, 164, 180), (206, 212, 216), (232, 234, 238)
    return Light(
        time,
        jitter(rng, zenith, 18 if time != "night" else 8),
        jitter(rng, horizon, 14),
        mix(tint, jitter(rng, tint, 20), 60),
    )


def choose_view(rng: np.random.Generator, height: int) -> View:
    """Sky over ground; sometimes only sky, or only ground."""
    look = rng.random()
    bands = pick(rng, _BANDS)
    if look < 0.07:
        return View(1.5 * height, (), False)
    if look < 0.2:
        return View(-0.6 * height, bands[-2:], False)
    path = bands in (("grass",), ("sand",)) and rng.random() < 0.5
    return View(between(rng, 0.3, 0.62) * height, bands, path)


def draw_sky(rng: np.random.Generator, canvas: Canvas, horizon: Number) -> None:
    """A gradient, and stars at night."""
    light, height = canvas.light, canvas.height
    canvas.fill(light.horizon, box(0, 0, canvas.width, height), name="sky")
    reach = max(int(min(horizon, 1.2 * height)), 1)
    share = np.minimum(np.arange(height) * 256 // reach, 256)[:, None, None]
    zenith, low = np.array(light.zenith), np.array(light.horizon)
    canvas.pixels[:] = (zenith * (256 - share) + low * share) >> 8
    canvas.pixels += smooth_noise(
        rng, canvas.labels.shape, (height // 6, canvas.width // 3), 7
    )[..., None]
    if light.time == "night":
        stars = []
        for _ in range(int(rng.integers(6, 40))):
            x, y = between(rng, 0, canvas.width), between(rng, 0, reach)
            size = between(rng, 0.6, 1.6)
            stars.append(box(x, y, x + size, y + size))
        canvas.fill(WHITE, *stars)


def draw_sun_or_moon(rng: np.random.Generator, canvas: Canvas, horizon: Number) -> None:
    """Draw the sun, the moon or neither, depending on the time of day."""
    sun, moon = {
        "dawn": (0.6, 0.2),
        "noon": (0.6, 0.08),
        "dusk": (0.6, 0.25),
        "night": (0.0, 0.85),
    }[canvas.light.time]
    chance = rng.random()
    name = "sun" if chance < sun else "moon" if chance < sun + moon else None
    low = min(horizon, canvas.height)
    if name is None or low < 12 * canvas.unit:
        return
    size = canvas.unit * between(rng, 14, 24)
    x = between(rng, 0.08, 0.92) * canvas.width
    y = max(between(rng, 0.25, 1.05) * low, size * 0.9)
    pen = Pen(canvas, name, x=x, y=y, size=size, mirrored=rng.random() < 0.5)
    draw = draw_sun if name == "sun" else draw_moon
    draw(pen, rng)


def draw_mountains(rng: np.random.Generator, canvas: Canvas, horizon: Number) -> None:
    """Peaks with a dark side and sometimes snow, or a long rounded ridge."""
    rock = jitter(rng, pick(rng, _ROCKS), 14)
    rock = mix(rock, canvas.light.horizon, int(rng.integers(8, 30)))
    rough = smooth_noise(rng, canvas.labels.shape, (3, 5), 26)
    if rng.random() < 0.25:
        ridge = line_noise(rng, canvas.width, canvas.width // 4, 100)
        ridge += line_noise(rng, canvas.width, canvas.width // 10, 26)
        tall = between(rng, 0.25, 0.4) * horizon
        curve = round(64 * (horizon - tall)) + ridge * round(0.5 * tall * 64) // 100
        canvas.fill_below(curve, canvas.lit(rock), "mountain", rough)
        return
    snow = rng.random() < 0.55
    for _ in range(int(rng.integers(1, 5))):
        x = between(rng, 0.0, 1.0) * canvas.width
        tall = between(rng, 0.35, 0.8) * horizon
        _draw_peak(rng, canvas, (x, horizon, tall), jitter(rng, rock, 8), snow, rough)


def _draw_peak(
    rng: np.random.Generator,
    canvas: Canvas,
    place: tuple[Number, Number, Number],
    rock: Rgb,
    snow: bool,
    rough: Grain,
) -> None:
    x, foot, tall = place
    half = tall * between(rng, 0.7, 1.2)
    left, right = _slope(rng, -half, tall), _slope(rng, half, tall)
    spine = _slope(rng, between(rng, -0.2, 0.25) * half, tall)

    def fill(rgb: Rgb, outline: Contour) -> None:
        points = [(x + dx, foot - up) for dx, up in outline]
        canvas.fill(canvas.lit(rgb), points, name="mountain", grain=rough)

    fill(rock, [*left, (0, tall), *reversed(right)])
    fill(mix(rock, (24, 26, 50), 34), [*spine, (0, tall), *reversed(right)])
    if snow:
        white = (240, 243, 250)
        dark_side = [*spine[-2:], (0, tall), right[-1], right[-2]]
        notch = (right[-2][0] * 0.3 + spine[-2][0] * 0.2, tall * 0.72)
        fill(white, [*left[-2:], (0, tall), right[-1], right[-2], spine[-2], notch])
        fill(mix(white, (90, 110, 170), 30), dark_side)


def _slope(rng: np.random.Generator, foot: Number, tall: Number) -> list[Point]:
    """A jagged line from the foot of a mountain to just below its top at x = 0."""
    line = [(foot, -0.1 * tall)]
    for share in (0.25, 0.45, 0.64, 0.82):
        wander = between(rng, -0.08, 0.08) * abs(foot)
        line.append((foot * (1 - share) + wander, tall * share))
    return line


def draw_ground(rng: np.random.Generator, canvas: Canvas, view: View) -> None:
    """The bands of ground from the horizon to the viewer, and the path."""
    if not view.bands:
        return
    lengths = [between(rng, 0.6, 1.4) * (1 + 0.35 * i) for i in range(len(view.bands))]
    top = max(view.horizon, -1.0)
    edge, far = top, None
    for name, length in zip(view.bands, lengths, strict=True):
        gentle = 64 if far is None else 32
        straight = "road" in (name, far) or (far is None and name == "sea")
        wander = 0 if straight else canvas.height * 64 // gentle
        curve = np.full(canvas.width, round(edge * 64), np.int64)
        curve += line_noise(rng, canvas.width, canvas.width // 4, wander)
        if far is not None:
            curve += round(between(rng, -2, 2) * 64) * np.arange(canvas.width) // 100
        if far == "sea":
            canvas.fill_below(
                curve - round(128 * canvas.unit), canvas.lit(WHITE), "sea"
            )
        _draw_band(rng, canvas, curve, name, top)
        edge += (canvas.height - top) * length / sum(lengths)
        if name == "road":
            _mark_road(rng, canvas, curve, edge)
        far = name
    if view.path:
        _draw_path(rng, canvas, view)


def _draw_band(
    rng: np.random.Generator,
    canvas: Canvas,
    curve: np.ndarray,
    name: str,
    top: Number,
) -> None:
    rgb = jitter(rng, pick(rng, _GROUND[name]), 14)
    size, unit = canvas.labels.shape, canvas.unit
    patches = smooth_noise(rng, size, (size[0] // 8, size[1] // 5), 18)
    if name == "grass":
        grain = blades(rng, size, round(2.6 * unit), 40) + patches
    elif name == "sea":
        rgb = mix(rgb, canvas.light.horizon, 12)
        grain = waves(rng, size, round(between(rng, 8, 18) * unit), 40)
    elif name == "sand":
        grain = ripples(rng, size, round(between(rng, 6, 14) * unit), 14) + patches // 2
    else:
        grain = speckle(rng, size, 24) + patches // 2
    # Far ground is paler, which gives a flat drawing its depth.
    depth = np.maximum(np.arange(size[0]) - max(int(top), 0), 0) * 40 // size[0]
    canvas.fill_below(curve, canvas.lit(rgb), name, grain + 14 - depth[:, None])


def _mark_road(
    rng: np.random.Generator, canvas: Canvas, curve: np.ndarray, low: Number
) -> None:
    """Kerb and dashes of a road that crosses the picture."""
    high, unit = float(curve[0]) / 64, canvas.unit
    tilt = float(curve[-1] - curve[0]) / 64 / canvas.width
    paint = canvas.lit(pick(rng, (WHITE, (240, 206, 90))))
    middle, length = (high + min(low, canvas.height)) / 2, between(rng, 8, 16) * unit

    def dash(left: Number, right: Number, y: Number) -> Contour:
        return [
            (left, y + tilt * left),
            (right, y + tilt * right),
            (right, y + tilt * right + 1.8 * unit),
            (left, y + tilt * left + 1.8 * unit),
        ]

    start = between(rng, -1, 0) * length
    count = int((canvas.width - start) / (1.9 * length)) + 1
    lefts = [start + 1.9 * length * index for index in range(count)]
    canvas.fill(paint, *(dash(x, x + length, middle) for x in lefts), name="road")
    canvas.fill(canvas.lit((176, 174, 170)), dash(0, canvas.width, high), name="road")


def _draw_path(rng: np.random.Generator, canvas: Canvas, view: View) -> None:
    """A road from the near edge to the horizon, with a dashed middle line."""
    top = view.horizon
    far = between(rng, 0.25, 0.75) * canvas.width
    near = between(rng, 0.3, 0.7) * canvas.width
    half = between(rng, 0.24, 0.4) * canvas.width
    bend = between(rng, -0.18, 0.18) * canvas.width
    rgb = canvas.lit(jitter(rng, pick(rng, _GROUND["road"]), 12))
    rough = speckle(rng, canvas.labels.shape, 24)

    def side(offset: Number, share: Number) -> Point:
        # Parabolic bend: both ends stay where they are.
        x = far + (near - far) * share + bend * 4 * share * (1 - share)
        y = top + (canvas.height - top) * share
        return x + offset * half * (0.06 + 0.94 * share), y

    def strip(left: Number, right: Number, first: Number, last: Number) -> Contour:
        shares = [first + (last - first) * step / 8 for step in range(9)]
        return [
            *(side(left, s) for s in shares),
            *(side(right, s) for s in shares[::-1]),
        ]

    canvas.fill(canvas.lit((200, 198, 190)), strip(-1.08, 1.08, 0, 1.05), name="road")
    canvas.fill(rgb, strip(-1, 1, 0, 1.05), name="road", grain=rough)
    paint = canvas.lit(pick(rng, (WHITE, (240, 206, 90))))
    dashes = ((0.08, 0.13), (0.2, 0.29), (0.4, 0.54), (0.7, 0.9))
    canvas.fill(paint, *(strip(-0.05, 0.05, a, b) for a, b in dashes), name="road")
