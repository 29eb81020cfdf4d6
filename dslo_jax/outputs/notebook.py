"""A result as HTML, for notebooks."""

from collections.abc import Mapping, Sequence

from PIL import Image

from dslo_jax.outputs.page import picture, words
from dslo_jax.outputs.palette import hex_colours


_WIDTH = 960
# A notebook has a style of its own, so each element brings what it needs.
_ENTRY = "display: inline-block; margin: .4em 1.2em 0 0"
_SWATCH = (
    "display: inline-block; width: .9em; height: .9em; margin-right: .4em; "
    "border-radius: .2em; vertical-align: -.1em"
)


def to_html(
    overlay: Image.Image, areas: Mapping[str, float], notes: Sequence[str]
) -> str:
    """The overlay, the classes by area with their colours, and the notes.

    Args:
        overlay: Without a legend; it is made smaller if it is large.
        areas: Share of the photo by class name, in [0, 1].
        notes: Remarks, as plain text.

    Returns:
        HTML without scripts, in which all names are escaped.
    """
    overlay.thumbnail((_WIDTH, _WIDTH))
    colours = dict(zip(areas, hex_colours(tuple(areas)), strict=True))
    shown = [name for name in sorted(areas, key=lambda n: -areas[n]) if areas[name]]
    entries = [
        f'<span style="{_ENTRY}"><i style="{_SWATCH}; background: {colours[name]}"></i>'
        f"{words(name)} {areas[name]:.1%}</span>"
        for name in shown
    ]
    absent = len(areas) - len(shown)
    count = "1 class is" if absent == 1 else f"{absent} classes are"
    remarks = [*notes, *([f"{count} absent"] if absent else [])]
    return (
        f'<div style="max-width: {overlay.width}px">'
        f"{picture(overlay, 'The photo with its classes in colour')}"
        f"<div>{''.join(entries)}</div>"
        f"{''.join(f'<div><small>{words(note)}</small></div>' for note in remarks)}"
        "</div>"
    )
