"""The common parts of all HTML pages: style, text, pictures, tables, legends.

A page is one file. It loads no other file and runs no script, and all text that came
from a user is escaped.
"""

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np
from jaxtyping import Shaped
from PIL import Image


_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_LIGHT = """color-scheme: light; --ink: #202124; --pale: #6e7176; --paper: #fff;
  --line: #e4e5e8;"""
_DARK = """color-scheme: dark; --ink: #e8e9ec; --pale: #9ba0a6; --paper: #16171a;
  --line: #2f3136;"""
_STYLE = f"""
:root {{ {_LIGHT} }}
@media screen and (prefers-color-scheme: dark) {{ :root {{ {_DARK} }} }}
* {{ print-color-adjust: exact; -webkit-print-color-adjust: exact; }}
body {{ max-width: 84rem; margin: 3rem auto; padding: 0 1.5rem; color: var(--ink);
  background: var(--paper); font: 1rem/1.5 system-ui, sans-serif; }}
h1 {{ font-size: 2rem; line-height: 1.2; margin: 0 0 .5rem; }}
h2 {{ font-size: 1.25rem; margin: 3rem 0 .25rem; break-after: avoid; }}
p {{ max-width: 44rem; margin: .25rem 0 1rem; }}
small, .pale, figcaption {{ color: var(--pale); font-size: .875rem; }}
.legend {{ display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin: .5rem 0 1.5rem;
  padding: 0; list-style: none; }}
.legend i {{ display: inline-block; width: .9em; height: .9em; margin-right: .4em;
  border-radius: .2em; vertical-align: -.08em; }}
figure {{ margin: 0; }}
figcaption {{ padding-top: .2rem; font-variant-numeric: tabular-nums; }}
img {{ display: block; width: 100%; border-radius: .3rem; }}
summary {{ cursor: pointer; color: var(--pale); font-size: .875rem; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .3rem 1.5rem .3rem 0; text-align: right; font-weight: 400;
  border-bottom: 1px solid var(--line); }}
th {{ color: var(--pale); }}
td {{ white-space: nowrap; }}
th:first-child, td:first-child {{ text-align: left; }}
@media print {{ body {{ margin: 0; max-width: none; }}
  details::details-content {{ content-visibility: visible; block-size: auto; }} }}
"""


def document(title: str, body: str, *, style: str = "") -> str:
    """An HTML page.

    Args:
        title: Title of the window, as plain text.
        body: HTML.
        style: CSS, in addition to that of all pages.

    Returns:
        The page; its policy forbids it to load other files.
    """
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{words(title)}</title><style>{_STYLE}{style}</style></head>"
        f"<body>{body}</body></html>\n"
    )


def words(text: object) -> str:
    """Escape text for HTML; characters that cannot be printed become their code."""
    return escape(
        "".join(
            each if each.isprintable() else f"\\u{ord(each):04x}" for each in str(text)
        )
    )


def percent(score: float | None) -> str:
    """A score in [0, 1] as a percentage; a dash where there is no score."""
    return "-" if score is None or np.isnan(score) else f"{100 * score:.1f} %"


def picture(image: Image.Image, alternative: str, *, lossless: bool = False) -> str:
    """An ``img`` element that contains its pixels.

    Args:
        image: RGB.
        alternative: Description of the image, as plain text.
        lossless: Whether to use PNG; otherwise JPEG, which is smaller for photos.
    """
    buffer = io.BytesIO()
    kind = "png" if lossless else "jpeg"
    image.save(buffer, kind, **({} if lossless else {"quality": 88}))
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{words(alternative)}" src="data:image/{kind};base64,{data}">'


def legend(
    names: Sequence[str], colours: Shaped[np.ndarray, "classes 3"] | Sequence[str]
) -> str:
    """A list of colours and their names.

    Args:
        names: Names, as plain text.
        colours: Colour of each name: RGB, 0 to 255, or CSS.
    """
    entries = [
        f'<li><i style="background: {_css(colour)}"></i>{words(name)}</li>'
        for name, colour in zip(names, colours, strict=True)
    ]
    return f'<ul class="legend">{"".join(entries)}</ul>'


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of HTML cells, which scrolls sideways where it is too wide.

    Args:
        head: Titles of the columns.
        rows: Cells of each row, one for each column.
    """
    body = "".join(_cells("td", row) for row in rows)
    return f'<div class="wide"><table>{_cells("th", head)}{body}</table></div>'


def _cells(tag: str, texts: Iterable[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{text}</{tag}>' for text in texts)}</tr>"


def _css(colour: np.ndarray | str) -> str:
    if isinstance(colour, str):
        return colour
    red, green, blue = colour
    return f"rgb({red} {green} {blue})"
