"""Pictures of training curves."""

import json
from pathlib import Path

import matplotlib.pyplot as plt


def plot_curve(curve: Path, picture: Path) -> None:
    """Draw the losses of a run over its steps, one panel each.

    Args:
        curve: Lines of JSON: a step and the mean losses up to it since the row before.
        picture: A PNG or SVG file, written anew.
    """
    rows = [json.loads(line) for line in curve.read_text("utf-8").splitlines()]
    names = [name for name in rows[0] if name != "step"]
    figure, axes = plt.subplots(
        1, len(names), figsize=(3.2 * len(names), 2.6), squeeze=False
    )
    for name, axis in zip(names, axes[0], strict=True):
        axis.plot([row["step"] for row in rows], [row[name] for row in rows])
        axis.set(title=name, xlabel="step")
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(picture, dpi=110)
    plt.close(figure)
