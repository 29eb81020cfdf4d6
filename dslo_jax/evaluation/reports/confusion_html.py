"""A confusion matrix as HTML: the most frequent confusions in words, and a map.

The map is an SVG. With few classes, shares are written into the cells; with many, the
cells scroll under their names. Every cell has a tooltip.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int64

from dslo_jax.outputs.page import legend, percent, table, words


STYLE = """
.confusions :is(th, td):nth-child(2) { text-align: left; }
.map { display: grid; grid-template-columns: max-content max-content; overflow: auto;
  max-height: 90vh; margin: 1rem 0; break-inside: avoid; }
.map svg { display: block; background: var(--paper); }
.map text { fill: var(--ink); font: .75rem system-ui, sans-serif; }
.map .corner, .map .top { position: sticky; top: 0; z-index: 1; }
.map .left, .map .corner { position: sticky; left: 0; z-index: 1; }
.map .corner { z-index: 2; }
.map .right { fill: var(--right); }
.map .wrong { fill: var(--wrong); }
.map .grid { fill: none; stroke: var(--line); }
@media print { .map { max-height: none; overflow: visible; zoom: var(--shrink); }
  .map svg { position: static !important; } }
"""
MOST_WORDS = 12
_WRITTEN = 24  # greatest number of classes with shares in the cells
_LEAST_SHARE = 0.002  # cells with smaller shares are empty
_LETTER = 7  # greatest width of a letter of a name, in pixels
_LONGEST = 22  # greatest number of letters of a name
_PRINTED = 680  # width of a printed page, in pixels


def confusions_in_words(
    counts: Int64[np.ndarray, "classes classes"], titles: Sequence[str]
) -> str:
    """The pairs of classes with the most wrong pixels, as a table.

    Args:
        counts: Confusion matrix: true class (row), predicted class (column).
        titles: Names of the classes.
    """
    wrong = counts * ~np.eye(len(counts), dtype=bool)
    if not counts.any():
        return "<p>No pixel was scored.</p>"
    if not wrong.any():
        return "<p>Every pixel is right.</p>"
    largest = np.argsort(-wrong, axis=None, kind="stable")[:MOST_WORDS]
    rows = []
    for true, given in zip(*np.unravel_index(largest, wrong.shape), strict=True):
        pixels = wrong[true, given]
        if pixels:
            shares = pixels / counts[true].sum(), pixels / wrong.sum()
            names = words(titles[true]), words(titles[given])
            rows.append([*names, *map(percent, shares)])
    head = ["true", "taken for", "of its pixels", "of all errors"]
    return f'<div class="confusions">{table(head, rows)}</div>'


def confusion_map(
    counts: Int64[np.ndarray, "classes classes"], titles: Sequence[str]
) -> str:
    """The matrix as a map, every row divided by its sum.

    Args:
        counts: Confusion matrix: true class (row), predicted class (column).
        titles: Names of the classes.
    """
    total = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(total, 1)
    cell = 40 if len(titles) <= _WRITTEN else 14
    length = cell * len(titles)
    names = [_short(title) for title in titles]
    margin = _LETTER * max(map(len, names)) + 12
    rows = "".join(
        f'<text x="{margin - 6}" y="{_middle(i, cell)}" text-anchor="end">{name}</text>'
        for i, name in enumerate(map(words, names))
    )
    columns = "".join(
        f'<text transform="translate({_middle(i, cell)} {margin - 6}) rotate(-90)">'
        f"{name}</text>"
        for i, name in enumerate(map(words, names))
    )
    shrink = min(1.0, _PRINTED / (margin + length))
    return (
        f'<div class="map" style="--shrink: {shrink:.3f}" tabindex="0">'
        f"{_svg('corner', margin, margin, _corner(margin))}"
        f"{_svg('top', length, margin, columns)}"
        f"{_svg('left', margin, length, rows)}"
        f"{_svg('cells', length, length, _cells(shares, titles, cell))}</div>"
    )


def map_key() -> str:
    """The legend of the colours of a map."""
    shares = (0.01, 0.05, 0.25, 1.0)
    colours = [
        f"color-mix(in srgb, var(--{kind}) {100 * _strength(share):.0f}%, transparent)"
        for kind in ("right", "wrong")
        for share in shares
    ]
    names = [f"{kind} {share:.0%}" for kind in ("right", "wrong") for share in shares]
    return legend(names, colours)


def _cells(
    shares: Float[np.ndarray, "classes classes"], titles: Sequence[str], cell: int
) -> str:
    """The cells that are not empty, each with a tooltip."""
    written = len(titles) <= _WRITTEN
    lines = "".join(
        f"M0 {i * cell}H{len(titles) * cell}M{i * cell} 0V{len(titles) * cell}"
        for i in range(len(titles) + 1)
    )
    parts = [f'<path class="grid" d="{lines}"/>']
    for true, given in np.argwhere(shares >= _LEAST_SHARE).tolist():
        share = float(shares[true, given])
        kind = "right" if true == given else "wrong"
        verb = "found" if true == given else f"taken for {words(titles[given])}"
        parts.append(
            f'<rect class="{kind}" x="{given * cell}" y="{true * cell}" width="{cell}" '
            f'height="{cell}" fill-opacity="{_strength(share):.2f}">'
            f"<title>{words(titles[true])} {verb}: {percent(share)}</title></rect>"
        )
        if written and share >= 0.01:
            parts.append(
                f'<text x="{given * cell + cell // 2}" y="{_middle(true, cell)}" '
                f'text-anchor="middle" pointer-events="none">{100 * share:.0f}</text>'
            )
    return "".join(parts)


def _strength(share: float) -> float:
    """Opacity for a share: its square root, so that a few percent are visible."""
    return 0.85 * share**0.5


def _svg(name: str, width: int, height: int, content: str) -> str:
    return (
        f'<svg class="{name}" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}">{content}</svg>'
    )


def _corner(margin: int) -> str:
    return (
        f'<text x="{margin - 6}" y="{margin - 20}" text-anchor="end">true ↓</text>'
        f'<text x="{margin - 6}" y="{margin - 4}" text-anchor="end">given →</text>'
    )


def _middle(index: int, cell: int) -> int:
    """Position of the base line of letters."""
    return index * cell + cell // 2 + 4


def _short(title: str) -> str:
    return title if len(title) <= _LONGEST else title[: _LONGEST - 1].rstrip() + "…"
