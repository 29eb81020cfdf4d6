"""Draw ``docs/solver-sizes.svg`` from ``results/solver-sizes.json``: time against size.

python benchmarks/plots.py
"""

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from solvers import BASELINE, SAME_TRICKS


RESULTS = Path(__file__).parent / "results" / "solver-sizes.json"
PICTURE = Path(__file__).parents[1] / "docs" / "solver-sizes.svg"
_STYLES = {
    "dslo-jax": ("#0b6e4f", "o-"),
    SAME_TRICKS: ("#d1791e", "s--"),
    BASELINE["path"]: ("#7a7a7a", "^:"),
    BASELINE["velocity"]: ("#7a7a7a", "^:"),
}
_CLASSES, _PATCHES = 8, 4096


def draw(rows: list[dict[str, Any]]) -> None:
    """Two rows of panels, one per solver: over the patches, and over the classes."""
    figure, panels = plt.subplots(2, 2, figsize=(9, 7), layout="constrained")
    for line, solver in zip(panels, BASELINE, strict=True):
        mine = [row for row in rows if row["solver"] == solver]
        over_patches = [row for row in mine if row["classes"] == _CLASSES]
        over_classes = [row for row in mine if row["patches"] == _PATCHES]
        _panel(line[0], over_patches, "patches", f"{solver}, {_CLASSES} classes")
        _panel(line[1], over_classes, "classes", f"{solver}, {_PATCHES} patches")
    figure.savefig(PICTURE, metadata={"Date": None})


def _panel(axes: Any, rows: list[dict[str, Any]], over: str, title: str) -> None:
    for name, (colour, style) in _STYLES.items():
        points = sorted(
            (row[over], row["median_s"]) for row in rows if row["name"] == name
        )
        if points:
            sizes, seconds = zip(*points, strict=True)
            axes.loglog(
                sizes, [1e3 * s for s in seconds], style, color=colour, label=name
            )
    sizes = sorted({row[over] for row in rows})
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.set(xlabel=over, ylabel="milliseconds", title=title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def main() -> None:
    """Draw, the same bytes from the same figures."""
    mpl.rcParams["svg.hashsalt"] = "dslo-jax"
    draw(json.loads(RESULTS.read_text())["rows"])


if __name__ == "__main__":
    main()
