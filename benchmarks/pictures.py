"""Saving of pictures for the documents."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure


DOCS = Path(__file__).parents[1] / "docs"


def save_picture(figure: Figure, path: Path) -> None:
    """Write an SVG; the same figures give the same bytes."""
    with mpl.rc_context({"svg.hashsalt": "dslo-jax"}):
        figure.savefig(path, metadata={"Date": None})
