"""A result as HTML, for notebooks."""

from collections.abc import Sequence

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
    overlay: Image.Image,
    names: Sequence[str],
    areas: Sequence[float],
    notes: Sequence[str],
) -> str:
    """The overlay, the classes by area with their colours, and the notes.

    Args:
        overlay: Without a legend; it is made smaller if it is large.
        names: Class names.
        areas: Share of the photo that each class covers, in [0, 1].
        notes: Remarks, as plain text.

    Returns:
        HTML without scripts, in which all names are escaped.
    """
    overlay.thumbnail((_WIDTH, _WIDTH))
    classes = sorted(
        zip(areas, names, hex_colours(names), strict=True), key=lambda each: -each[0]
    )
    shown = [each for each in classes if each[0]]
    entries = [
        f'<span style="{_ENTRY}"><i style="{_SWATCH}; background: {colour}"></i>'
        f"{words(name)} {area:.1%}</span>"
        for area, name, colour in shown
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
