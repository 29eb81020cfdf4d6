"""A photo with its regions in colour, and a legend that never covers it."""

import io
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Integer, UInt8
from PIL import Image, ImageChops, ImageDraw, ImageFont

from dslo_jax.outputs.labels import check_labels, encode_png
from dslo_jax.outputs.palette import palette


_MIN_SIDE = 360  # geometric mean of the sides, below which photos are enlarged
_MAX_LONG = 4096  # greatest side of an enlarged photo
_MAX_JPEG = 65500  # greatest side of a JPEG
_STRIP = 64  # rows that are painted at a time
_LUMA = (0.299, 0.587, 0.114)  # grey of an sRGB colour, as Pillow weighs it
_MIN_FONT = 15
_MAX_ENTRIES = 60
_PAPER = (255, 255, 255)
_INK = (32, 33, 36)
_PALE_INK = (110, 113, 118)


class _Entry(NamedTuple):
    """One line of the legend. The last line, "and 5 more", has no colour."""

    colour: tuple[int, int, int] | None
    name: str
    share: str


class _Grid(NamedTuple):
    """Sizes and positions of the lines of a legend, in pixels."""

    font: ImageFont.FreeTypeFont | ImageFont.ImageFont
    unit: int  # height of the letters, and the margin all around
    line: int  # from one line to the next
    columns: int
    rows: int
    column_width: int  # without the gap that follows

    @property
    def gap(self) -> int:
        return 2 * self.unit

    @property
    def width(self) -> int:
        columns = self.columns * (self.column_width + self.gap) - self.gap
        return columns + 2 * self.unit

    @property
    def height(self) -> int:
        return self.rows * self.line + 2 * self.unit


def draw_overlay(
    pixels: UInt8[np.ndarray, "height width 3"],
    labels: Integer[np.ndarray, "height width"],
    names: Sequence[str],
    *,
    opacity: float = 0.55,
    outlines: bool = True,
    legend: bool = True,
) -> Image.Image:
    """Draw the colours of the classes over a photo, whose own colours become pale.

    The legend lists the classes that are present, largest first, with the share of the
    photo that they cover. It is below photos that are wider than high, and to the right
    of others. Small photos are enlarged by a whole factor, so that there is room for
    the legend; photos are never made smaller.

    Args:
        pixels: The photo.
        labels: Class ids, 0 to ``len(names) - 1``.
        names: Class names.
        opacity: Strength of the class colours, from 0 (only the photo) to 1.
        outlines: Whether to draw thin lines between regions.
        legend: Whether to add the legend.

    Returns:
        An RGB image.

    Raises:
        ValueError: The opacity is not in [0, 1], or a label is not the id of a class.
    """
    if not 0 <= opacity <= 1:
        raise ValueError(f"`opacity` is {opacity}, expected 0 to 1")
    check_labels(labels, len(names))
    colours = palette(names)
    pixels, labels = _enlarged(pixels, labels)
    height, width = labels.shape
    size = (width, height)
    if not legend:
        canvas = Image.new("RGB", size)
        _paint(canvas, pixels, labels, colours, opacity, outlines)
        return canvas
    entries = _entries(labels, names, colours)
    below = width > height
    grid = _grid(entries, size, below=below)
    corner = (0, height) if below else (width, 0)
    if below:
        size = (max(width, grid.width), height + grid.height)
    else:
        size = (width + grid.width, max(height, grid.height))
    canvas = Image.new("RGB", size, _PAPER)
    _paint(canvas, pixels, labels, colours, opacity, outlines)
    _draw_legend(ImageDraw.Draw(canvas), corner, entries, grid)
    return canvas


def encode_overlay(image: Image.Image, *, lossless: bool = False) -> bytes:
    """Encode an overlay.

    Args:
        image: From ``draw_overlay``.
        lossless: Whether to write a PNG; otherwise a JPEG of quality 90, which is much
            smaller. A JPEG has at most 65500 pixels along each side, so a longer
            overlay is made smaller.

    Returns:
        The content of a file.
    """
    if lossless:
        return encode_png(image)
    if max(image.size) > _MAX_JPEG:
        image = image.copy()
        image.thumbnail((_MAX_JPEG, _MAX_JPEG))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _enlarged(
    pixels: UInt8[np.ndarray, "height width 3"],
    labels: Integer[np.ndarray, "height width"],
) -> tuple[np.ndarray, np.ndarray]:
    """A small photo and its labels, enlarged by a whole factor; others as they are."""
    height, width = labels.shape
    factor = math.ceil(_MIN_SIDE / math.sqrt(height * width))
    factor = max(min(factor, _MAX_LONG // max(height, width)), 1)
    if factor == 1:
        return pixels, labels
    size = (width * factor, height * factor)
    photo = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(photo), labels.repeat(factor, axis=0).repeat(factor, axis=1)


def _paint(
    canvas: Image.Image,
    pixels: UInt8[np.ndarray, "height width 3"],
    labels: Integer[np.ndarray, "height width"],
    colours: UInt8[np.ndarray, "classes 3"],
    opacity: float,
    outlines: bool,
) -> None:
    """Mix photo and colours, with outlines, in the upper left corner of a canvas.

    A few rows are painted at a time, so that all that is between the photo and the
    canvas stays in the cache of the processor.
    """
    height, width = labels.shape
    thickness = max(1, round(math.sqrt(labels.size) / 500)) if outlines else 0
    line = len(colours)  # the outlines are one more class, which is white
    inks = np.zeros((line + 1, 4), np.uint8)
    inks[:line, :3] = np.rint(opacity * colours.astype(np.float64))
    inks[line] = 255
    inks = inks.view(np.uint32).ravel()
    for top in range(0, height, _STRIP):
        rows = labels[top : top + _STRIP]
        if outlines:
            border = _borders(labels[top : top + _STRIP + thickness], thickness)
            rows = np.where(border[: len(rows)], line, rows)
        size = (width, len(rows))
        ink = Image.frombytes("RGB", size, inks[rows].tobytes(), "raw", "RGBX")
        photo = Image.fromarray(pixels[top : top + _STRIP])
        photo = photo.convert("RGB", _paling(opacity))
        canvas.paste(ImageChops.add(photo, ink), (0, top))


def _paling(opacity: float) -> tuple[float, ...]:
    """The matrix, row by row, that makes a photo pale below colours of this opacity.

    The photo becomes grey by ``opacity``, because its colours would change those of
    the classes, which the legend shows. What remains has the weight ``1 - opacity``.
    """
    grey = opacity * np.array(_LUMA) + (1 - opacity) * np.eye(3)
    return tuple(np.pad((1 - opacity) * grey, [(0, 0), (0, 1)]).ravel().tolist())


def _borders(
    labels: Integer[np.ndarray, "height width"], thickness: int
) -> Bool[np.ndarray, "height width"]:
    """Pixels with another class within ``thickness`` below or to the right."""
    border = np.zeros(labels.shape, bool)
    border[:-1] = _any_ahead(labels[:-1] != labels[1:], thickness)
    across = (labels[:, :-1] != labels[:, 1:]).T
    border[:, :-1] |= _any_ahead(across, thickness).T
    return border


def _any_ahead(
    changes: Bool[np.ndarray, "length others"], reach: int
) -> Bool[np.ndarray, "length others"]:
    """Whether one of ``reach`` values is set, beginning with each; changes its input.

    The number of values that are looked at doubles in each step.
    """
    done = 1
    while done < reach:
        step = min(done, reach - done)
        changes[:-step] |= changes[step:]
        done += step
    return changes


def _entries(
    labels: Integer[np.ndarray, "height width"],
    names: Sequence[str],
    colours: UInt8[np.ndarray, "classes 3"],
) -> list[_Entry]:
    """Legend of the present classes, largest first; the last of many share a line."""
    counts = np.bincount(labels.ravel(), minlength=len(names))
    largest_first: list[int] = np.argsort(-counts, kind="stable").tolist()
    order = [index for index in largest_first if counts[index]]
    kept = order if len(order) <= _MAX_ENTRIES else order[: _MAX_ENTRIES - 1]
    entries = [
        _Entry(
            (int(colours[index, 0]), int(colours[index, 1]), int(colours[index, 2])),
            _printable(names[index]),
            _percent(int(counts[index]) / labels.size),
        )
        for index in kept
    ]
    if len(kept) < len(order):
        rest = order[len(kept) :]
        share = _percent(int(counts[rest].sum()) / labels.size)
        entries.append(_Entry(None, f"and {len(rest)} more", share))
    return entries


def _printable(name: str) -> str:
    return "".join(char if char.isprintable() else " " for char in name)


def _percent(share: float) -> str:
    percent = 100 * share
    if percent < 0.1:
        return "<0.1%"
    return "100%" if share == 1 else f"{min(percent, 99.9):.1f}%"


def _grid(entries: Sequence[_Entry], size: tuple[int, int], *, below: bool) -> _Grid:
    """Fit the legend below the picture in its width, or beside it in its height."""
    width, height = size
    unit = max(_MIN_FONT, round(0.024 * math.sqrt(width * height)))
    line = round(1.55 * unit)
    font = ImageFont.load_default(unit)
    share_width = max(font.getlength(entry.share) for entry in entries)
    name_width = max(font.getlength(entry.name) for entry in entries)
    # Swatch and gaps; a name of more than about 30 letters is cut.
    column_width = math.ceil(min(name_width, 16 * unit) + share_width + 3 * unit)
    if below:
        room = width - 2 * unit
        column_width = min(column_width, max(room, 8 * unit))
        columns = max(1, (room + 2 * unit) // (column_width + 2 * unit))
    else:
        columns = math.ceil(len(entries) / max(1, height // line - 2))
    rows = math.ceil(len(entries) / columns)
    columns = math.ceil(len(entries) / rows)
    return _Grid(font, unit, line, columns, rows, column_width)


def _draw_legend(
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    entries: Sequence[_Entry],
    grid: _Grid,
) -> None:
    for index, entry in enumerate(entries):
        column, row = divmod(index, grid.rows)
        left = corner[0] + grid.unit + column * (grid.column_width + grid.gap)
        middle = corner[1] + grid.unit + row * grid.line + grid.line // 2
        right = left + grid.column_width
        if entry.colour is not None:
            half = grid.unit // 2
            box = (left, middle - half, left + 2 * half, middle + half)
            draw.rounded_rectangle(box, radius=grid.unit // 4, fill=entry.colour)
        start = left + round(1.6 * grid.unit)
        end = right - grid.font.getlength(entry.share)
        name = _elide(entry.name, grid.font, end - start - grid.unit)
        draw.text((start, middle), name, _INK, grid.font, anchor="lm")
        draw.text((right, middle), entry.share, _PALE_INK, grid.font, anchor="rm")


def _elide(
    name: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: float
) -> str:
    """The name, or its beginning and an ellipsis where it is too long."""
    if font.getlength(name) <= room:
        return name
    fitting = [
        length
        for length in range(1, len(name))
        if font.getlength(f"{name[:length].rstrip()}…") <= room
    ]
    return f"{name[: max(fitting, default=1)].rstrip()}…"
