"""The sheet as one HTML file: pictures inside, no script, nothing fetched."""

import base64
import io
from collections.abc import Iterable, Mapping
from html import escape

from PIL import Image

from dslo_jax.config import Mode
from dslo_jax.demo.sheet import (
    COLUMNS,
    MODES,
    WORLD,
    Exhibit,
    Sheet,
    draw_map,
    draw_panels,
    percent,
)
from dslo_jax.outputs import palette


_STYLE = """
:root { color-scheme: light dark; --ink: #202124; --pale: #6e7176; --paper: #fff;
  --line: #e4e5e8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e9ec; --pale: #9ba0a6;
  --paper: #16171a; --line: #2f3136; } }
body { max-width: 84rem; margin: 3rem auto; padding: 0 1.5rem; color: var(--ink);
  background: var(--paper); font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.25rem; margin: 3rem 0 .25rem; }
p { max-width: 44rem; margin: .25rem 0 1rem; }
small, .pale, figcaption { color: var(--pale); font-size: .875rem; }
.scores { display: flex; flex-wrap: wrap; gap: 3rem; margin: 1.5rem 0; }
.scores b { display: block; font-size: 2.5rem; font-weight: 600; line-height: 1.1;
  font-variant-numeric: tabular-nums; }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin: 1rem 0 1.5rem;
  padding: 0; list-style: none; }
.legend i { display: inline-block; width: .9em; height: .9em; margin-right: .4em;
  border-radius: .2em; vertical-align: -.08em; }
.row { display: grid; grid-template-columns: repeat(5, minmax(0, 1fr)); gap: .75rem;
  margin-top: 1rem; }
figure { margin: 0; }
figcaption { padding-top: .2rem; font-variant-numeric: tabular-nums; }
img { display: block; width: 100%; border-radius: .3rem; }
details { margin-top: .25rem; }
summary { cursor: pointer; color: var(--pale); font-size: .875rem; }
.maps { display: grid; gap: .5rem; margin: .75rem 0 1.5rem; align-items: center;
  grid-template-columns: 5rem repeat(var(--classes), minmax(0, 8rem)); }
.maps img { aspect-ratio: 5 / 4; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem 1.5rem .3rem 0; text-align: right; font-weight: 400;
  border-bottom: 1px solid var(--line); }
th { color: var(--pale); }
th:first-child, td:first-child { text-align: left; }
"""


def to_html(sheet: Sheet, footer: str) -> str:
    """Write the sheet as HTML.

    Args:
        sheet: What to show.
        footer: How it was made.

    Returns:
        A whole document that needs no other file.
    """
    body = (
        "<h1>Twenty things, found by name</h1>"
        "<p>Drawn scenes that the bundled networks have not seen before. All twenty "
        "classes of this small world are asked for in every scene. The baseline is "
        "the word that CLIP finds likeliest in each patch; <em>path</em> and "
        "<em>velocity</em> let every patch hear from those that belong to it. The "
        "networks know this world alone: photographs mean nothing to them.</p>",
        _scores(sheet.scores),
        _legend(WORLD.titles),
        *map(_exhibit, sheet.world),
        "<h2>In other words</h2>"
        "<p>The same networks, asked for words of your own (<code>--classes</code>). "
        "What no word stands for does not count.</p>",
        _legend(sheet.own.names),
        _exhibit(sheet.own),
        "<h2>How long it took</h2>",
        _times(sheet),
        f'<p class="pale">{escape(footer)}</p>',
    )
    return (
        '<!doctype html>\n<html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>dslo-jax: the demo</title><style>{_STYLE}</style>"
        f"<body>{''.join(body)}</body></html>\n"
    )


def _scores(scores: Mapping[Mode, float]) -> str:
    cells = [
        f"<div><b>{percent(scores[mode])}</b>{title}</div>"
        for mode, title in MODES.items()
    ]
    return (
        f'<div class="scores">{"".join(cells)}</div>'
        '<p class="pale">mIoU over all scenes below: the overlap of labels and truth, '
        "as a mean over the classes.</p>"
    )


def _legend(names: tuple[str, ...]) -> str:
    entries = [
        f'<li><i style="background: rgb({red} {green} {blue})"></i>{escape(name)}</li>'
        for name, (red, green, blue) in zip(names, palette(names), strict=True)
    ]
    return f'<ul class="legend">{"".join(entries)}</ul>'


def _exhibit(exhibit: Exhibit) -> str:
    words = {title: title for title in COLUMNS}
    words["photo"] = f"photo (seed {exhibit.seed})"
    for mode, title in MODES.items():
        words[title] = f"{title}, mIoU {percent(exhibit.confusion(mode).mean_iou)}"
    panels = draw_panels(exhibit)
    figures = [
        f"<figure>{_image(panels[title], words[title], 'JPEG')}"
        f"<figcaption>{words[title]}</figcaption></figure>"
        for title in COLUMNS
    ]
    return f'<div class="row">{"".join(figures)}</div>{_maps(exhibit)}'


def _maps(exhibit: Exhibit) -> str:
    """The maps of the largest classes, one row a mode, folded away."""
    visible = exhibit.visible
    names = [escape(exhibit.names[index]) for index in visible]
    rows = [["", *(f"<small>{name}</small>" for name in names)]]
    for mode, title in MODES.items():
        maps = [draw_map(exhibit, mode, index) for index in visible]
        tiles = [
            _image(tile, name, "PNG") if tile else "<small>rejected</small>"
            for tile, name in zip(maps, names, strict=True)
        ]
        rows.append([f"<small>{title}</small>", *tiles])
    cells = "".join(f"<div>{cell}</div>" for row in rows for cell in row)
    return (
        "<details><summary>the maps behind the labels</summary>"
        f'<div class="maps" style="--classes: {len(visible)}">{cells}</div></details>'
    )


def _times(sheet: Sheet) -> str:
    rows = [
        _cells(
            "td", [stage, *(_seconds(times.get(mode)) for mode in MODES), _seconds(c)]
        )
        for stage, times, c in sheet.times
    ]
    head = _cells("th", ["median seconds", *MODES.values(), "compiling, once"])
    return f"<table>{head}{''.join(rows)}</table>"


def _cells(tag: str, texts: Iterable[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{text}</{tag}>' for text in texts)}</tr>"


def _seconds(seconds: float | None) -> str:
    return f"{seconds:.3f}" if seconds else ""


def _image(image: Image.Image, words: str, kind: str) -> str:
    """An ``img`` with its pixels inside; JPEG for what is a photo, PNG for the rest."""
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=88) if kind == "JPEG" else image.save(buffer, kind)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{words}" src="data:image/{kind.lower()};base64,{data}">'
