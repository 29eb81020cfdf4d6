"""The sheet as one HTML file with its pictures inside, without scripts."""

from dslo_jax.demo.components import KNOWN, ComponentScore, points
from dslo_jax.demo.sheet import (
    COLUMNS,
    KNOWN_TITLE,
    MODES,
    Exhibit,
    Sheet,
    draw_map,
    draw_panels,
)
from dslo_jax.outputs import page, palette


_STYLE = """
.scores { display: flex; flex-wrap: wrap; gap: 3rem; margin: 1.5rem 0; }
.scores b { display: block; font-size: 2.5rem; font-weight: 600; line-height: 1.1;
  font-variant-numeric: tabular-nums; }
.row { display: grid; grid-template-columns: repeat(6, minmax(0, 1fr)); gap: .75rem;
  margin-top: 1.5rem; }
@media (max-width: 48rem) { .row { grid-template-columns: repeat(2, minmax(0, 1fr)); } }
.row + .legend { margin: .5rem 0 0; font-size: .875rem; }
.components :is(th, td):nth-child(2) { text-align: left; white-space: normal;
  min-width: 16rem; }
pre { overflow-x: auto; padding: .75rem 1rem; border: 1px solid var(--line);
  border-radius: .3rem; font-size: .875rem; }
details { margin-top: .25rem; }
.maps { display: grid; gap: .5rem; margin: .75rem 0 1.5rem; align-items: center;
  grid-template-columns: 5rem repeat(var(--classes), minmax(0, 8rem)); }
.maps img { aspect-ratio: 5 / 4; }
"""


def to_html(sheet: Sheet, following: str, footer: str) -> str:
    """Write the sheet as HTML.

    Args:
        sheet: The results to show.
        following: What to try next.
        footer: How the results were made.

    Returns:
        A whole document that needs no other file.
    """
    body = (
        "<h1>Twenty things, found by name</h1>"
        "<p>Drawn scenes that the bundled networks have not seen in training. All "
        "twenty classes of this small world are looked for in every scene. The "
        "baseline is the class that CLIP finds most probable in each patch; "
        "<em>path</em> and <em>velocity</em> combine patches that belong together. The "
        "networks know only this drawn world, and no photographs.</p>",
        _scores(sheet.components),
        f"<p>{_limit(sheet)}</p>",
        *map(_exhibit, sheet.world),
        "<h2>What each component adds</h2>"
        "<p>The rows of Table 2 of the paper, over all pixels of the scenes above. The "
        "points say how much mIoU a row gains over the row at the end of its line.</p>",
        _components(sheet.components),
        "<h2>In other words</h2>"
        "<p>The same networks with words of your own (<code>--classes</code>). Pixels "
        "of classes without such a word do not count.</p>",
        _exhibit(sheet.own),
        f"<h2>What to try next</h2><pre>{_lines(following)}</pre>",
        "<h2>How long it took</h2>",
        _times(sheet),
        f'<p class="pale">{page.words(footer)}</p>',
    )
    return page.document("dslo-jax: the demo", "".join(body), style=_STYLE)


_HEADLINE = {
    "I: logits": "logits alone",
    "V: IV + O.P.": "path",
    "VI: IV + M.V.": "velocity",
    KNOWN: "path, true affinity",
    "VI with the true classes": "velocity, true classes",
}


def _scores(scores: tuple[ComponentScore, ...]) -> str:
    cells = [
        f"<div><b>{page.percent(each.score)}</b>{_HEADLINE[each.row]}</div>"
        for each in scores
        if each.row in _HEADLINE
    ]
    return (
        f'<div class="scores">{"".join(cells)}</div>'
        '<p class="pale">mIoU over all scenes below: the mean over the classes of the '
        "overlap of labels and truth.</p>"
    )


def _limit(sheet: Sheet) -> str:
    """What limits the result, in a sentence."""
    scores = sheet.scores
    return (
        "Two things limit the result: the self-attention of the small UNet, and words "
        "that CLIP finds although they are not in the scene. The last column has the "
        "same logits and the same path, but an attention that tells all things apart: "
        f"{page.percent(scores[KNOWN_TITLE])} instead of "
        f"{page.percent(scores[MODES['path']])}. The baseline has the early rejection "
        "and the upsampling of the method, too; the table below shows what they add."
    )


def _components(scores: tuple[ComponentScore, ...]) -> str:
    rows = [
        [
            page.words(each.row),
            page.words(each.words),
            page.percent(each.score),
            points(each),
            page.words(each.base),
        ]
        for each in scores
    ]
    header = ["row", "what it is", "mIoU", "points", "compared with"]
    return f'<div class="components">{page.table(header, rows)}</div>'


def _lines(text: str) -> str:
    return "\n".join(map(page.words, text.splitlines()))


def _exhibit(exhibit: Exhibit) -> str:
    words = {title: title for title in COLUMNS}
    words["photo"] = f"photo (seed {exhibit.seed})"
    for title, score in exhibit.scores.items():
        words[title] = f"{title}, mIoU {page.percent(score)}"
    panels = draw_panels(exhibit)
    figures = [
        f"<figure>{page.picture(panels[title], words[title])}"
        f"<figcaption>{words[title]}</figcaption></figure>"
        for title in COLUMNS
    ]
    colours, shown = palette(exhibit.names), exhibit.shown
    key = page.legend([exhibit.names[index] for index in shown], colours[shown])
    return f'<div class="row">{"".join(figures)}</div>{key}{_maps(exhibit)}'


def _maps(exhibit: Exhibit) -> str:
    """The maps of the largest classes, folded away; a row for each mode."""
    visible = exhibit.visible
    names = [page.words(exhibit.names[index]) for index in visible]
    rows = [["", *(f"<small>{name}</small>" for name in names)]]
    for mode, title in MODES.items():
        maps = [draw_map(exhibit, mode, index) for index in visible]
        tiles = [
            page.picture(tile, exhibit.names[index], lossless=True)
            if tile
            else "<small>rejected</small>"
            for tile, index in zip(maps, visible, strict=True)
        ]
        rows.append([f"<small>{title}</small>", *tiles])
    cells = "".join(f"<div>{cell}</div>" for row in rows for cell in row)
    return (
        "<details><summary>the maps behind the labels</summary>"
        f'<div class="maps" style="--classes: {len(visible)}">{cells}</div></details>'
    )


def _times(sheet: Sheet) -> str:
    rows = [
        [stage, *(_seconds(times.get(mode)) for mode in MODES), _seconds(compiling)]
        for stage, times, compiling in sheet.times
    ]
    return page.table(["median seconds", *MODES.values(), "compiling, once"], rows)


def _seconds(seconds: float | None) -> str:
    return f"{seconds:.3f}" if seconds else ""
