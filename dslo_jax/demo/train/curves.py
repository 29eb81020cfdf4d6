"""Plots of training curves."""

import json
from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def plot_curves(curves: Sequence[Path], picture: Path) -> None:
    """Draw the losses of one or more runs over their steps.

    Args:
        curves: A file for each run, drawn as a row of panels. Each line is a JSON
            object with a step and the mean losses since the line before.
        picture: A PNG or SVG file; an existing one is replaced.
    """
    runs = {curve.stem: read_curve(curve) for curve in curves}
    width = max(len(rows[0]) - 1 for rows in runs.values())
    figure = Figure(figsize=(2.4 * width, 1.9 * len(runs)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(runs), width, squeeze=False)
    for (run, rows), line in zip(runs.items(), panels, strict=True):
        names = [name for name in rows[0] if name != "step"]
        for axis in line[len(names) :]:
            axis.set_axis_off()
        for name, axis in zip(names, line, strict=False):
            axis.plot([row["step"] for row in rows], [row[name] for row in rows])
            axis.set_title(f"{run}: {name}", fontsize=9)
            axis.tick_params(labelsize=7)
            axis.grid(alpha=0.3)
    figure.savefig(picture, dpi=110)


def read_curve(curve: Path) -> list[dict[str, int | float]]:
    """Read the rows of a curve; each has a ``step``."""
    return [json.loads(line) for line in curve.read_text("utf-8").splitlines()]
