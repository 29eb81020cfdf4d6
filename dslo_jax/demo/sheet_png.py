"""The sheet as one picture, for programs that cannot show HTML."""

from PIL import Image, ImageDraw, ImageFont

from dslo_jax.demo.sheet import (
    COLUMNS,
    MODES,
    Exhibit,
    Sheet,
    draw_map,
    draw_panels,
)
from dslo_jax.outputs import palette
from dslo_jax.outputs.page import percent


_PAPER, _INK, _PALE = (255, 255, 255), (32, 33, 36), (110, 113, 118)
_EMPTY = (236, 237, 240)
_PANEL, _MAP = (240, 192), (184, 147)
_GAP, _MARGIN = 10, 28
_TEXT = 15
_LINE = 24
_INSIDE = len(COLUMNS) * (_PANEL[0] + _GAP) - _GAP
_WIDTH = _INSIDE + 2 * _MARGIN
_LABEL = 84  # room for the name of a mode beside its maps
_LONGEST = 40  # letters of a name that are shown


def to_image(sheet: Sheet) -> Image.Image:
    """Draw the sheet: strips of equal width, one below the other.

    Args:
        sheet: The results to show; maps are shown for the first scene only.
    """
    strips = [
        _words("Twenty things, found by name", size=26),
        _words("Drawn scenes that the networks have not seen in training", _PALE),
        _head(sheet),
        *(strip for each in sheet.world for strip in (_row(each), _legend(each))),
        _words("The same networks with other words"),
        _row(sheet.own),
        _legend(sheet.own),
        _words("The maps behind the labels of the first scene"),
        _maps(sheet.world[0]),
    ]
    height = sum(strip.height for strip in strips) + 2 * _MARGIN
    picture = Image.new("RGB", (_WIDTH, height), _PAPER)
    top = _MARGIN
    for strip in strips:
        picture.paste(strip, (_MARGIN, top))
        top += strip.height
    return picture


def _strip(height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (_INSIDE, height), _PAPER)
    return image, ImageDraw.Draw(image)


def _words(
    text: str, colour: tuple[int, int, int] = _INK, size: int = _TEXT
) -> Image.Image:
    image, draw = _strip(2 * size)
    font = ImageFont.load_default(size)
    draw.text((0, round(1.2 * size)), text, colour, font, anchor="lm")
    return image


def _legend(exhibit: Exhibit) -> Image.Image:
    """The classes of a scene with their colours, in as many lines as needed."""
    font = ImageFont.load_default(_TEXT)
    names = [exhibit.names[index] for index in exhibit.shown]
    colours = palette(exhibit.names)[exhibit.shown]
    places, left, line = [], 0, 0
    for name in names:
        width = 22 + round(font.getlength(name[:_LONGEST])) + 22
        if left + width > _INSIDE:
            left, line = 0, line + 1
        places.append((left, line))
        left += width
    image, draw = _strip((line + 1) * _LINE + 12)
    for name, colour, (left, line) in zip(names, colours, places, strict=True):
        top = line * _LINE + 6
        fill = (int(colour[0]), int(colour[1]), int(colour[2]))
        draw.rounded_rectangle((left, top, left + 15, top + 15), radius=4, fill=fill)
        word = name[:_LONGEST]
        draw.text((left + 22, top + 8), word, _INK, font, anchor="lm")
    return image


def _head(sheet: Sheet) -> Image.Image:
    """Titles of the columns, with the mIoU over all scenes."""
    texts = dict.fromkeys(COLUMNS, "")
    texts |= {title: f"mIoU {percent(score)}" for title, score in sheet.scores.items()}
    image, draw = _strip(_LINE)
    font = ImageFont.load_default(_TEXT)
    for column, (title, score) in enumerate(texts.items()):
        left = column * (_PANEL[0] + _GAP)
        draw.text((left, 10), title, _INK, font, anchor="lm")
        draw.text((left + _PANEL[0], 10), score, _INK, font, anchor="rm")
    return image


def _row(exhibit: Exhibit) -> Image.Image:
    image, draw = _strip(_PANEL[1] + _LINE)
    font = ImageFont.load_default(_TEXT - 2)
    scores = {title: percent(score) for title, score in exhibit.scores.items()}
    for column, (title, panel) in enumerate(draw_panels(exhibit).items()):
        left = column * (_PANEL[0] + _GAP)
        image.paste(panel.resize(_PANEL, Image.Resampling.LANCZOS), (left, 0))
        corner = (left + _PANEL[0], _PANEL[1] + 10)
        draw.text(corner, scores.get(title, ""), _PALE, font, anchor="rm")
    return image


def _maps(exhibit: Exhibit) -> Image.Image:
    """The maps of the largest classes: a row for each mode, a column for each class."""
    image, draw = _strip(_LINE + len(MODES) * (_MAP[1] + _GAP))
    font = ImageFont.load_default(_TEXT - 2)
    for column, index in enumerate(exhibit.visible):
        left = _LABEL + column * (_MAP[0] + _GAP)
        name = exhibit.names[index][:_LONGEST]
        draw.text((left, 10), name, _INK, font, anchor="lm")
        for row, mode in enumerate(MODES):
            top = _LINE + row * (_MAP[1] + _GAP)
            tile = draw_map(exhibit, mode, index)
            if tile is None:
                draw.rectangle((left, top, left + _MAP[0], top + _MAP[1]), _EMPTY)
                draw.text((left + 8, top + 14), "rejected", _PALE, font, anchor="lm")
            else:
                tile = tile.resize(_MAP, Image.Resampling.BICUBIC)
                image.paste(tile, (left, top))
    for row, title in enumerate(MODES.values()):
        middle = _LINE + row * (_MAP[1] + _GAP) + _MAP[1] // 2
        draw.text((0, middle), title, _PALE, font, anchor="lm")
    return image
