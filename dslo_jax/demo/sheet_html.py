"""The sheet as one HTML file with its pictures inside, without scripts."""

from collections.abc import Mapping

from dslo_jax.demo.sheet import (
    COLUMNS,
    MODES,
    WORLD,
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
.row { display: grid; grid-template-columns: repeat(5, minmax(0, 1fr)); gap: .75rem;
  margin-top: 1rem; }
details { margin-top: .25rem; }
.maps { display: grid; gap: .5rem; margin: .75rem 0 1.5rem; align-items: center;
  grid-template-columns: 5rem repeat(var(--classes), minmax(0, 8rem)); }
.maps img { aspect-ratio: 5 / 4; }
"""


def to_html(sheet: Sheet, footer: str) -> str:
    """Write the sheet as HTML.

    Args:
        sheet: The results to show.
        footer: How they were made.

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
        _scores(sheet.scores),
        _legend(WORLD.titles),
        *map(_exhibit, sheet.world),
        "<h2>In other words</h2>"
        "<p>The same networks with words of your own (<code>--classes</code>). Pixels "
        "of classes without such a word do not count.</p>",
        _legend(sheet.own.names),
        _exhibit(sheet.own),
        "<h2>How long it took</h2>",
        _times(sheet),
        f'<p class="pale">{page.words(footer)}</p>',
    )
    return page.document("dslo-jax: the demo", "".join(body), style=_STYLE)


def _scores(scores: Mapping[str, float]) -> str:
    cells = [
        f"<div><b>{page.percent(scores[mode])}</b>{title}</div>"
        for mode, title in MODES.items()
    ]
    return (
        f'<div class="scores">{"".join(cells)}</div>'
        '<p class="pale">mIoU over all scenes below: the mean over the classes of the '
        "overlap of labels and truth.</p>"
    )


def _legend(names: tuple[str, ...]) -> str:
    return page.legend(names, palette(names))


def _exhibit(exhibit: Exhibit) -> str:
    words = {title: title for title in COLUMNS}
    words["photo"] = f"photo (seed {exhibit.seed})"
    for mode, title in MODES.items():
        words[title] = f"{title}, mIoU {page.percent(exhibit.confusion(mode).mean_iou)}"
    panels = draw_panels(exhibit)
    figures = [
        f"<figure>{page.picture(panels[title], words[title])}"
        f"<figcaption>{words[title]}</figcaption></figure>"
        for title in COLUMNS
    ]
    return f'<div class="row">{"".join(figures)}</div>{_maps(exhibit)}'


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
