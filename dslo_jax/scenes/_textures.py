"""The surfaces of things: common colours, and grains.

A grain says how bright each pixel of a surface is relative to its colour, in 1/256. It
covers a whole canvas and is computed in integers.
"""

import numpy as np
from jaxtyping import Int

from dslo_jax.scenes._canvas import Point, Rgb


Size = tuple[int, int]
Grain = Int[np.ndarray, "height width"]

BLACK: Rgb = (30, 30, 34)
WHITE: Rgb = (246, 246, 240)
WINDOW: Rgb = (150, 190, 215)
LAMP: Rgb = (255, 214, 110)
PAINTS: tuple[Rgb, ...] = (
    (214, 48, 44),
    (240, 128, 36),
    (248, 206, 48),
    (56, 160, 74),
    (44, 164, 176),
    (44, 96, 200),
    (126, 70, 180),
    (232, 102, 160),
    (240, 238, 232),
    (128, 30, 48),
)


def smooth_noise(rng: np.random.Generator, size: Size, cell: Size, depth: int) -> Grain:
    """Noise in -depth ... depth that varies over cells of a given height and width."""
    (height, width), (cell_y, cell_x) = size, (max(cell[0], 1), max(cell[1], 1))
    grid = rng.integers(
        -depth, depth + 1, (height // cell_y + 2, width // cell_x + 2), dtype=np.int64
    )
    row, row_share = _between_cells(height, cell_y)
    column, column_share = _between_cells(width, cell_x)
    grid = grid[row] * (256 - row_share[:, None]) + grid[row + 1] * row_share[:, None]
    grid = grid[:, column] * (256 - column_share) + grid[:, column + 1] * column_share
    return (grid >> 16).astype(np.int32)


def line_noise(
    rng: np.random.Generator, width: int, cell: int, depth: int
) -> Int[np.ndarray, " width"]:
    """Noise of one row, for outlines of hills and shores, in the unit of ``depth``."""
    return smooth_noise(rng, (1, width), (1, cell), depth)[0].astype(np.int64)


def speckle(
    rng: np.random.Generator, size: tuple[int, ...], depth: int
) -> Int[np.ndarray, "*size"]:
    """Noise in -depth ... depth, new in every element."""
    return (
        rng.integers(0, 256, size, np.uint8).astype(np.int32) * (2 * depth + 1) // 256
        - depth
    )


def blades(rng: np.random.Generator, size: Size, length: int, depth: int) -> Grain:
    """Grass: upright streaks, each column starting at its own height."""
    height, width = size
    length = max(length, 2)
    shades = rng.integers(-depth, depth + 1, (height // length + 2, width), np.int32)
    start = rng.integers(0, length, width)
    row = (np.arange(height)[:, None] + start) // length
    return shades[row, np.arange(width)]


def waves(rng: np.random.Generator, size: Size, length: int, depth: int) -> Grain:
    """Water: long flat crests with bright tips."""
    length = max(length, 4)
    swell = smooth_noise(rng, size, (max(length // 5, 2), length), depth)
    return swell + np.where(swell > depth * 2 // 5, depth, 0).astype(np.int32)


def ripples(rng: np.random.Generator, size: Size, length: int, depth: int) -> Grain:
    """Sand: fine grains over soft ripples, and a pebble here and there."""
    soft = smooth_noise(rng, size, (max(length // 4, 2), length), depth)
    grains = speckle(rng, size, depth)
    pebbles = np.where(speckle(rng, size, 50) == 50, -60, 0).astype(np.int32)
    return soft + grains + pebbles


def bricks(size: Size, corner: Point, course: int, depth: int) -> Grain:
    """Courses of bricks, laid from the pixel ``corner`` (x, y): joints are dark."""
    course = max(course, 3)
    rows = np.arange(size[0])[:, None] - int(corner[1])
    columns = np.arange(size[1])[None] - int(corner[0])
    shifted = columns + rows // course % 2 * course
    joints = (rows % course == 0) | (shifted % (2 * course) == 0)
    tone = (shifted // (2 * course) * 5 + rows // course * 3) % 7 * 6 - 18
    return np.where(joints, -depth, tone).astype(np.int32)


def planks(size: Size, corner: Point, course: int, depth: int) -> Grain:
    """Boards lying on each other: every ``course`` pixels a dark line."""
    rows = np.arange(size[0])[:, None] - int(corner[1])
    grain = np.where(rows % max(course, 3) == 0, -depth, 0).astype(np.int32)
    return np.broadcast_to(grain, size)


def _between_cells(
    length: int, cell: int
) -> tuple[Int[np.ndarray, " length"], Int[np.ndarray, " length"]]:
    """The cell of each pixel, and the position of the pixel in it (0 ... 255)."""
    position = np.arange(length) * 256 // cell
    return position // 256, position % 256
