"""From maps to the labels of whole photos: what the host does around the tiles.

An upsampled value is a convex combination of the values of the neighbours. Where one
class is greater than all others in every neighbour of a cell, it is so in every pixel
of the cell: the cell is *decided*, and its pixels are neither read nor computed. The
same argument drops classes: one that is below another in every neighbour cannot win.
The pixels of undecided cells are copied into tiles, computed, and put back.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8
from numpy.lib.stride_tricks import as_strided, sliding_window_view

from dslo_jax.ops.labels import PixelLabels
from dslo_jax.ops.tiles import SLOTS, UNITS, Tile
from dslo_jax.ops.weights import steps


Run = Callable[[Tile], PixelLabels]
"""A function that computes a tile, as NumPy arrays; see ``tiles.label_tile``."""

ROOMS = 8, 32
"""Classes that a piece has room for. Pieces that need more have room for all classes,
rounded up to a power of two: so there are at most three programs."""

_SIDE = 64  # pixels of the longest side of a piece
_PIECES = 1 << 14  # divided by the room: pieces of a tile
_CLOSE = 2.0**-18  # of the greatest value: a difference that float32 sums may lose


class Colours(NamedTuple):
    """The colours of a photo, from 0 to 255.

    Attributes:
        pixels: The photo.
        means: Mean of every cell of the grid; see ``areas.area_means``.
    """

    pixels: UInt8[np.ndarray, "height width 3"]
    means: Float[np.ndarray, "h w 3"]


@dataclass(frozen=True, eq=False)
class Canvas:
    """A photo whose pixels are to be labelled.

    Args:
        values: Maps of the classes on the grid, finite.
        size: Height and width of the photo; may be smaller than the grid.
        colours: Its colours; None for bilinear labels.
    """

    values: Float32[np.ndarray, "classes h w"]
    size: tuple[int, int]
    colours: Colours | None = None


class Outlook(NamedTuple):
    """What the maps alone say about the pixels of every cell.

    Attributes:
        best: Class with the greatest value in the cell itself.
        rivals: Classes that may win a pixel of the cell; none where it is decided.
    """

    best: Int[np.ndarray, "h w"]
    rivals: Bool[np.ndarray, "h w classes"]


def label_photos(
    canvases: Sequence[Canvas], run: Run, *, radius: int
) -> list[PixelLabels]:
    """Compute the labels of the pixels of several photos.

    Args:
        canvases: The photos; their sizes, grids and numbers of classes may differ.
        run: Computes a tile.
        radius: Neighbours on each side of a cell.

    Returns:
        Labels and ties of every photo. Other memory: a tile and its result, and 25
        values for each class and undecided cell of a row.
    """
    rooms = rooms_for(max((len(canvas.values) for canvas in canvases), default=1))
    photos = [_Photo(canvas, radius) for canvas in canvases]
    for below, room in zip([0, *rooms], rooms, strict=False):
        writer = _Writer(room, radius, run)
        for photo in photos:
            for pieces in photo.pieces(below, room):
                writer.add(photo, pieces)
        writer.flush()
    return [PixelLabels(photo.labels, photo.tied) for photo in photos]


def find_rivals(values: Float32[np.ndarray, "classes h w"], radius: int) -> Outlook:
    """Find what the maps alone say about the pixels of every cell.

    Differences that the rounding of float32 sums may change count as none: labels and
    ties are those that the maps would have.

    Args:
        values: Maps of the classes.
        radius: Neighbours on each side of a cell.
    """
    best = values.argmax(axis=0)
    greatest = values.max(axis=0)
    others = values.copy()
    np.put_along_axis(others, best[None], -np.inf, axis=0)
    close = _CLOSE * np.abs(values).max()
    clear = greatest - others.max(axis=0) > close
    same = _windowed(np.minimum, best, radius) == _windowed(np.maximum, best, radius)
    decided = same & _windowed(np.minimum, clear, radius)
    rivals = np.repeat(~decided[:, :, None], len(values), axis=2)
    if len(values) > ROOMS[0]:
        windows = _windows(values, radius)
        for row, open_cells in enumerate(~decided):
            (columns,) = np.nonzero(open_cells)
            near = windows[:, row, columns]
            winner = near[best[row, columns], np.arange(len(columns))]
            behind = (near - winner).max(axis=(2, 3))
            rivals[row, columns] = (behind >= -close).T
    return Outlook(best, rivals)


def rooms_for(num_classes: int) -> list[int]:
    """The rooms of the tiles of photos with at most so many classes, ascending."""
    largest = max(ROOMS[0], 1 << (num_classes - 1).bit_length())
    return [*(room for room in ROOMS if room < num_classes), largest]


def empty_tile(room: int, radius: int, *, coloured: bool) -> Tile:
    """A tile without units.

    Args:
        room: Classes that a piece has room for.
        radius: Neighbours on each side of a cell.
        coloured: Whether it has room for colours, which bilinear labels do not need.
    """
    pieces, neighbours = _most_pieces(room), len(steps(radius))
    return Tile(
        pixels=np.zeros((UNITS, SLOTS, 3), np.uint8) if coloured else None,
        piece=np.zeros(UNITS, np.int32),
        start=np.zeros(UNITS, np.int32),
        used=np.array(0, np.int32),
        width=np.ones(pieces, np.int32),
        origin=np.zeros((pieces, 2), np.float32),
        step=np.zeros((pieces, 2), np.float32),
        mean=np.zeros((pieces, 3), np.float32),
        colours=np.zeros((pieces, neighbours, 3), np.float32),
        inside=np.zeros((pieces, neighbours), bool),
        values=np.zeros((pieces, room, neighbours), np.float32),
        classes=np.zeros((pieces, room), np.int32),
        count=np.zeros(pieces, np.int32),
    )


def _most_pieces(room: int) -> int:
    """Pieces of a tile."""
    return min(max(_PIECES // room, 64), UNITS)


class _Runs(NamedTuple):
    """The pixels of one side of a photo, in runs of at most ``_SIDE`` of one cell."""

    start: np.ndarray
    length: np.ndarray
    cell: np.ndarray


class _Pieces(NamedTuple):
    """Pieces with equal sides: their first pixels, and their cells."""

    sides: tuple[int, int]
    first: tuple[np.ndarray, np.ndarray]
    cell: tuple[np.ndarray, np.ndarray]

    def part(self, part: slice) -> "_Pieces":
        """Some of the pieces."""
        (y, x), (row, column) = self.first, self.cell
        return _Pieces(self.sides, (y[part], x[part]), (row[part], column[part]))


class _Photo:
    """A photo, what its maps say, and the labels as far as they are known."""

    def __init__(self, canvas: Canvas, radius: int):
        self.canvas = canvas
        (_, h, w), (height, width) = canvas.values.shape, canvas.size
        self._runs = _runs(height, h), _runs(width, w)
        best, self.rivals = find_rivals(canvas.values, radius)
        self.windows = _windows(canvas.values, radius)
        self.colours = None
        if canvas.colours is not None:
            means = np.moveaxis(canvas.colours.means / 255, 2, 0).astype(np.float32)
            self.colours = canvas.colours.pixels, _windows(means, radius)
        within = np.pad(np.ones((h, w), bool), radius)
        self.inside = sliding_window_view(within, (2 * radius + 1,) * 2)
        rows, columns = (
            np.repeat(runs.cell, runs.length).astype(np.intp) for runs in self._runs
        )
        labels = best.astype(np.int32).take(columns, axis=1).take(rows, axis=0)
        self.labels, self.tied = labels, np.zeros(canvas.size, bool)

    def pieces(self, below: int, room: int) -> Iterator[_Pieces]:
        """The pieces of the cells with more rivals than ``below``, at most ``room``."""
        count = self.rivals.sum(axis=2)
        chosen = (count > below) & (count <= room)
        rows, columns = self._runs
        for height in np.unique(rows.length):
            for width in np.unique(columns.length):
                (i,), (j,) = (
                    np.nonzero(runs.length == side)
                    for runs, side in ((rows, height), (columns, width))
                )
                y, x = np.nonzero(chosen[np.ix_(rows.cell[i], columns.cell[j])])
                i, j = i[y], j[x]
                yield _Pieces(
                    sides=(int(height), int(width)),
                    first=(rows.start[i], columns.start[j]),
                    cell=(rows.cell[i], columns.cell[j]),
                )


class _Writer:
    """Fills tiles with pieces, runs them, and puts the labels in their places.

    Args:
        room: Classes that a piece has room for.
        radius: Neighbours on each side of a cell.
        run: Computes a tile.
    """

    def __init__(self, room: int, radius: int, run: Run):
        self._room, self._radius, self._run = room, radius, run
        self._limit = _most_pieces(room)
        self._added: list[tuple[_Photo, _Pieces, int]] = []
        self._units = self._count = 0
        self._tile: Tile | None = None

    def add(self, photo: _Photo, pieces: _Pieces) -> None:
        """Add pieces; a tile that becomes full is computed."""
        height, width = pieces.sides
        each = -(-height * width // SLOTS)
        total, done = len(pieces.first[0]), 0
        while done < total:
            free = min((UNITS - self._units) // each, self._limit - self._count)
            if not free:
                self.flush()
                continue
            self._write(photo, pieces.part(slice(done, done + free)), each)
            done += free

    def flush(self) -> None:
        """Compute the tile, and put its labels in their places."""
        if self._tile is None:
            return
        found = self._run(self._tile._replace(used=np.array(self._units, np.int32)))
        for photo, pieces, first in self._added:
            (height, width), count = pieces.sides, len(pieces.first[0])
            each = -(-height * width // SLOTS)
            for image, slots in zip((photo.labels, photo.tied), found, strict=True):
                mine = np.asarray(slots)[first : first + count * each].reshape(
                    count, -1
                )
                mine = mine[:, : height * width].reshape(count, height, width)
                _rectangles(image, height, width)[pieces.first] = mine
        self._added, self._tile = [], None
        self._units = self._count = 0

    def _write(self, photo: _Photo, pieces: _Pieces, each: int) -> None:
        tile = self._tile = self._tile or empty_tile(
            self._room, self._radius, coloured=photo.colours is not None
        )
        (height, width), cell, count = pieces.sides, pieces.cell, len(pieces.first[0])
        units = slice(self._units, self._units + count * each)
        mine = slice(self._count, self._count + count)
        tile.piece[units] = np.repeat(np.arange(mine.start, mine.stop), each)
        tile.start[units] = np.tile(SLOTS * np.arange(each), count)
        tile.width[mine] = width
        for axis in (0, 1):
            step = photo.canvas.values.shape[1 + axis] / photo.canvas.size[axis]
            first = (pieces.first[axis] + 0.5) * step - 0.5 - cell[axis]
            tile.origin[mine, axis], tile.step[mine, axis] = first, step
        tile.inside[mine] = photo.inside[cell].reshape(count, -1)
        rivals = photo.rivals[cell]
        rows = np.argsort(~rivals, axis=1, kind="stable")[:, : self._room]
        near = photo.windows[rows, cell[0][:, None], cell[1][:, None]]
        tile.values[mine, : rows.shape[1]] = near.reshape(*rows.shape, -1)
        tile.classes[mine, : rows.shape[1]] = rows
        tile.count[mine] = rivals.sum(axis=1)
        if photo.colours is not None and tile.pixels is not None:
            image, means = photo.colours
            near = means[:, *cell].reshape(3, count, -1).transpose(1, 2, 0)
            own = near[:, near.shape[1] // 2]
            tile.mean[mine], tile.colours[mine] = own, near - own[:, None]
            slots = tile.pixels[units].reshape(count, each * SLOTS, 3)
            cut = _rectangles(image, height, width)[pieces.first]
            slots[:, : height * width] = cut.reshape(count, -1, 3)
        self._added.append((photo, pieces, units.start))
        self._units, self._count = units.stop, mine.stop


def _runs(length: int, cells: int) -> _Runs:
    """Divide a side; a pixel belongs to the cell that contains its centre."""
    edges = -((cells - 2 * length * np.arange(cells + 1)) // (2 * cells))
    parts = -(-np.diff(edges) // _SIDE)
    cell = np.repeat(np.arange(cells), parts)
    within = np.arange(len(cell)) - np.repeat(np.cumsum(parts) - parts, parts)
    size = np.diff(edges)[cell]
    start, end = (size * (within + more) // parts[cell] for more in (0, 1))
    return _Runs(edges[cell] + start, end - start, cell)


def _windows(maps: np.ndarray, radius: int) -> np.ndarray:
    """Neighbours ``[maps h w span span]`` of every cell, as a view; edges repeated."""
    border = ((0, 0), (radius, radius), (radius, radius))
    padded = np.pad(maps, border, mode="edge")
    return sliding_window_view(padded, (2 * radius + 1,) * 2, axis=(1, 2))


def _windowed(reduce: np.ufunc, image: np.ndarray, radius: int) -> np.ndarray:
    """Least or greatest value of all neighbours."""
    for axis in (0, 1):
        border = [(0, 0), (0, 0)]
        border[axis] = (radius, radius)
        padded = np.pad(image, border, mode="edge")
        windows = sliding_window_view(padded, 2 * radius + 1, axis=axis)
        image = reduce.reduce(windows, axis=-1)
    return image


def _rectangles(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """All rectangles of this size, as a view that is indexed by the first pixel."""
    rows, columns = image.shape[0] - height + 1, image.shape[1] - width + 1
    return as_strided(
        image,
        (rows, columns, height, width, *image.shape[2:]),
        (*image.strides[:2], *image.strides),
    )
