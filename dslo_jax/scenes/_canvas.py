"""A canvas with the exact coverage, colour and label of every pixel.

Everything is a union of polygons, rasterised in integers (vertices at 1/64 pixel, four
rows of samples a pixel, exact coverage along each row), so that a drawing is the same
bit for bit on every machine. Random numbers come from ``integers`` and ``random`` only:
both are integer arithmetic on the PCG64 stream.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Int, UInt8


Rgb = tuple[int, int, int]
Number = int | float
Point = tuple[Number, Number]
Contour = Sequence[Point]
Item = TypeVar("Item")

_FINE = 64  # steps of a vertex within a pixel
_ROWS = 4  # sample rows within a pixel
_FULL = _FINE * _ROWS  # coverage of a pixel that is wholly inside
# Unit circle in 1/4096, clockwise on the screen: rounded once, so that no later step
# depends on a machine's cosine.
_CIRCLE = tuple(
    (
        round(4096 * math.cos(math.pi * step / 12)),
        round(4096 * math.sin(math.pi * step / 12)),
    )
    for step in range(24)
)


class Light(NamedTuple):
    """The light of a time of day.

    Args:
        time: ``"dawn"``, ``"noon"``, ``"dusk"`` or ``"night"``.
        zenith: Colour at the top of the sky.
        horizon: Colour at the bottom of the sky.
        tint: What a lit colour is multiplied with, 256 = unchanged.
    """

    time: str
    zenith: Rgb
    horizon: Rgb
    tint: Rgb


def pick(rng: np.random.Generator, items: Sequence[Item]) -> Item:
    """One of the items, all equally likely."""
    return items[int(rng.integers(len(items)))]


def between(rng: np.random.Generator, low: Number, high: Number) -> float:
    """A number in [low, high)."""
    return low + (high - low) * float(rng.random())


def jitter(rng: np.random.Generator, rgb: Rgb, by: int) -> Rgb:
    """A colour near ``rgb``: brightness and each channel move by up to ``by``."""
    whole, red, green, blue = (int(move) for move in rng.integers(-by, by + 1, 4))
    return (
        min(max(rgb[0] + whole + red // 2, 0), 255),
        min(max(rgb[1] + whole + green // 2, 0), 255),
        min(max(rgb[2] + whole + blue // 2, 0), 255),
    )


def mix(rgb: Rgb, other: Rgb, share: int) -> Rgb:
    """``rgb`` with ``share`` percent of another colour."""
    red, green, blue = (
        (a * (100 - share) + b * share) // 100 for a, b in zip(rgb, other, strict=True)
    )
    return red, green, blue


def ellipse(x: Number, y: Number, radius_x: Number, radius_y: Number) -> Contour:
    """An ellipse as a polygon of 24 corners."""
    return [
        (x + radius_x * cos / 4096, y + radius_y * sin / 4096) for cos, sin in _CIRCLE
    ]


def sector(x: Number, y: Number, radius: Number, first: int, last: int) -> Contour:
    """A slice of a disc from step ``first`` to ``last``, of 24 steps a turn."""
    arc = (_CIRCLE[step % 24] for step in range(first, last + 1))
    return [(x, y), *((x + radius * c / 4096, y + radius * s / 4096) for c, s in arc)]


def around(x: Number, y: Number, radius: Number, step: int) -> Point:
    """The point at ``step`` of 24 on a circle."""
    cos, sin = _CIRCLE[step % 24]
    return x + radius * cos / 4096, y + radius * sin / 4096


def box(left: Number, low: Number, right: Number, high: Number) -> Contour:
    """An axis-aligned rectangle."""
    return [(left, low), (right, low), (right, high), (left, high)]


def stroke(start: Point, end: Point, width: Number) -> Contour:
    """A straight line of a given width; its ends are cut square."""
    (x0, y0), (x1, y1) = start, end
    length = math.sqrt((x1 - x0) ** 2 + (y1 - y0) ** 2)
    across = width / (2 * length)
    dx, dy = (y0 - y1) * across, (x1 - x0) * across
    return [
        (x0 + dx, y0 + dy),
        (x1 + dx, y1 + dy),
        (x1 - dx, y1 - dy),
        (x0 - dx, y0 - dy),
    ]


class Canvas:
    """Colours and labels of a picture that is being drawn.

    A pixel takes the label of the front-most shape that covers more than half of it,
    and the mixture of the colours by coverage.

    Args:
        size: Height and width in pixels.
        light: What every lit colour is tinted with.
        names: Class names; a label is a position in them.
    """

    def __init__(self, size: tuple[int, int], light: Light, names: Sequence[str]):
        self.height, self.width = size
        self.light = light
        self.pixels = np.zeros((*size, 3), np.int32)
        self.labels = np.zeros(size, np.uint8)
        self._names = tuple(names)

    @property
    def unit(self) -> float:
        """A hundredth of the short side, in pixels."""
        return min(self.height, self.width) / 100

    def lit(self, rgb: Rgb) -> Rgb:
        """A colour in the light of the scene."""
        red, green, blue = (
            c * t // 256 for c, t in zip(rgb, self.light.tint, strict=True)
        )
        return red, green, blue

    def fill(
        self,
        rgb: Rgb,
        *contours: Contour,
        name: str | None = None,
        grain: Int[np.ndarray, "height width"] | None = None,
        opacity: int = 256,
        origin: Point = (0.0, 0.0),
        scale: Point = (1.0, 1.0),
    ) -> None:
        """Paint the union of some polygons.

        Args:
            rgb: Colour, used as it is.
            contours: Simple polygons; parts outside the picture are clipped.
            name: Class of the pixels; None paints colour alone.
            grain: Brightness of each pixel of the canvas relative to ``rgb``, in 1/256.
            opacity: 256 hides what is behind.
            origin: Pixel of the point (0, 0) of the contours.
            scale: Pixels of a step to the right and of a step down in the contours.
        """
        covered = _coverage(contours, origin, scale, (self.height, self.width))
        if covered is not None:
            self.fill_area(*covered, rgb, name, grain, opacity)

    def fill_area(
        self,
        top: int,
        left: int,
        coverage: Int[np.ndarray, "rows columns"],
        rgb: Rgb,
        name: str | None = None,
        grain: Int[np.ndarray, "height width"] | None = None,
        opacity: int = 256,
    ) -> None:
        """Paint by ``coverage`` (0 ... 256), whose corner is at ``top``, ``left``."""
        rows, columns = coverage.shape
        area = (slice(top, top + rows), slice(left, left + columns))
        colour = np.array(rgb, np.int32)
        if grain is not None:
            colour = (colour * (256 + grain[area][..., None])) >> 8
        share = coverage if opacity == 256 else coverage * opacity >> 8
        pixels = self.pixels[area]
        pixels += ((colour - pixels) * share[..., None].astype(np.int32)) >> 8
        if name is not None:
            self.labels[area][coverage > _FULL // 2] = self._names.index(name)

    def fill_below(
        self,
        curve: Int[np.ndarray, " width"],
        rgb: Rgb,
        name: str | None = None,
        grain: Int[np.ndarray, "height width"] | None = None,
    ) -> None:
        """Paint everything below a curve of heights in 1/64 pixel."""
        top = min(max(int(curve.min()) // _FINE, 0), self.height)
        rows = _FINE * np.arange(top + 1, self.height + 1)[:, None]
        coverage = np.minimum(np.maximum(rows - curve[None], 0), _FINE) * _ROWS
        if coverage.size:
            self.fill_area(top, 0, coverage, rgb, name, grain)

    def name_at(self, x: Number, y: Number) -> str:
        """The class at a point; a point outside is moved into the picture."""
        row = min(max(int(y), 0), self.height - 1)
        return self._names[self.labels[row, min(max(int(x), 0), self.width - 1)]]

    def finish(self) -> UInt8[np.ndarray, "height width 3"]:
        """The picture as 8-bit colours."""
        return np.clip(self.pixels, 0, 255).astype(np.uint8)


class Pen:
    """Draws one thing in its own coordinates: x to the right, y up, 100 = its size.

    Args:
        canvas: Where it draws.
        name: Class of everything that it fills.
        x: Middle of the thing, pixels.
        y: Foot of the thing, pixels.
        size: Length of 100 units, pixels.
        mirrored: Whether the thing looks to the left.
    """

    def __init__(
        self,
        canvas: Canvas,
        name: str,
        *,
        x: Number,
        y: Number,
        size: Number,
        mirrored: bool = False,
    ):
        self.canvas = canvas
        self.name = name
        self.time = canvas.light.time
        self._origin = (x, y)
        self._scale = (-size / 100 if mirrored else size / 100, -size / 100)

    def at(self, x: Number, y: Number) -> Point:
        """Pixels of a point of the thing."""
        return (
            self._origin[0] + self._scale[0] * x,
            self._origin[1] + self._scale[1] * y,
        )

    def fill(
        self,
        rgb: Rgb,
        *contours: Contour,
        grain: Int[np.ndarray, "height width"] | None = None,
        glow: bool = False,
    ) -> None:
        """Fill polygons in the light of the scene, or glowing in their own."""
        colour = rgb if glow else self.canvas.lit(rgb)
        self._fill(colour, contours, self.name, grain, 256)

    def veil(self, rgb: Rgb, opacity: int, *contours: Contour) -> None:
        """Colour pixels without changing their labels: shadows, halos, foam."""
        self._fill(rgb, contours, None, None, opacity)

    def shadow(self, radius: Number) -> None:
        """A soft shadow on the ground."""
        for spread in (1.15, 0.85):
            self.veil(
                (8, 10, 24), 60, ellipse(0, 0, radius * spread, radius * 0.2 * spread)
            )

    def _fill(
        self,
        rgb: Rgb,
        contours: Sequence[Contour],
        name: str | None,
        grain: Int[np.ndarray, "height width"] | None,
        opacity: int,
    ) -> None:
        self.canvas.fill(
            rgb,
            *contours,
            name=name,
            grain=grain,
            opacity=opacity,
            origin=self._origin,
            scale=self._scale,
        )


def _coverage(
    contours: Sequence[Contour], origin: Point, scale: Point, size: tuple[int, int]
) -> tuple[int, int, Int[np.ndarray, "rows columns"]] | None:
    """Rasterise a union of simple polygons.

    Each edge crosses each sample row once at most; a crossing adds what lies to its
    right, counted up or down by the direction of the edge. All contours turn the same
    way, so overlaps count twice and are cut to once.

    Returns:
        Top, left and coverage (0 ... 256) of the bounding box, or None outside.
    """
    start, end, sign = _edges(contours, origin, scale)
    (x_low, y_low), (x_high, y_high) = start.min(axis=0), start.max(axis=0)
    top, bottom = max(int(y_low) // _FINE, 0), min(int(y_high) // _FINE + 1, size[0])
    left, right = max(int(x_low) // _FINE, 0), min(int(x_high) // _FINE + 1, size[1])
    if top >= bottom or left >= right:
        return None
    rows, columns = (bottom - top) * _ROWS, right - left
    (x, y), (run, rise) = start.T, (end - start).T
    # Sample row r lies at height half + r * step, and an edge owns those from its upper
    # end (with it) to its lower end (without it).
    step, half = _FINE // _ROWS, top * _FINE + _FINE // _ROWS // 2
    ends = np.maximum((np.stack([y, y + rise]) - half + step - 1) // step, 0)
    first, last = np.minimum(np.sort(ends, axis=0), rows)
    count = last - first
    edge = np.repeat(np.arange(count.size), count)
    row = np.arange(edge.size) - (np.cumsum(count) - count - first)[edge]
    height = half + row * step
    crossing = x[edge] + (height - y[edge]) * run[edge] // rise[edge] - left * _FINE
    crossing = np.minimum(np.maximum(crossing, 0), columns * _FINE)
    column, beyond = crossing // _FINE, crossing % _FINE
    place = row * (columns + 2) + column
    sign = sign[edge]
    # The weights are small integers, which float64 sums exactly in any order.
    inside = np.bincount(
        np.concatenate([place, place + 1]),
        np.concatenate([sign * (_FINE - beyond), sign * beyond]),
        rows * (columns + 2),
    )
    winding = np.cumsum(inside.reshape(rows, columns + 2)[:, :columns], axis=1)
    covered = np.minimum(np.abs(winding), _FINE).astype(np.int32)
    return top, left, covered.reshape(bottom - top, _ROWS, columns).sum(axis=1)


def _edges(
    contours: Sequence[Contour], origin: Point, scale: Point
) -> tuple[
    Int[np.ndarray, "edges 2"], Int[np.ndarray, "edges 2"], Int[np.ndarray, " edges"]
]:
    """Start and end (x, y) in 1/64 pixel of all edges, and their sense of rotation."""
    counts = np.array([len(contour) for contour in contours])
    points = np.array([point for contour in contours for point in contour])
    points = (points * np.array(scale) + np.array(origin)) * _FINE
    start = np.floor(points + 0.5).astype(np.int64)
    last = np.cumsum(counts)
    following = np.arange(1, len(start) + 1)
    following[last - 1] = last - counts
    end = start[following]
    twice_area = np.add.reduceat(
        start[:, 0] * end[:, 1] - end[:, 0] * start[:, 1], last - counts
    )
    sense = np.repeat(np.where(twice_area < 0, -1, 1), counts)
    return start, end, np.where(end[:, 1] > start[:, 1], sense, -sense)
