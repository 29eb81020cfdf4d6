"""Draw ``docs/solver-sizes.svg`` from ``results/solver-sizes.json``: time against size.

python benchmarks/plots.py
"""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from harness import RESULTS
from pictures import DOCS, save_picture
from solvers import BASELINE, SAME_TRICKS


PICTURE = DOCS / "solver-sizes.svg"
_STYLES = {
    "dslo-jax": ("#0b6e4f", "o-"),
    SAME_TRICKS: ("#d1791e", "s--"),
    BASELINE["path"]: ("#7a7a7a", "^:"),
    BASELINE["velocity"]: ("#7a7a7a", "^:"),
}
_CLASSES, _PATCHES = 8, 4096


def draw(rows: list[dict[str, Any]], picture: Path) -> None:
    """Draw times and errors: over patches on the left, over classes on the right."""
    figure, panels = plt.subplots(
        4, 2, figsize=(9, 11), layout="constrained", height_ratios=(2, 1, 2, 1)
    )
    for number, solver in enumerate(BASELINE):
        mine = [row for row in rows if row["solver"] == solver]
        over_patches = [row for row in mine if row["classes"] == _CLASSES]
        over_classes = [row for row in mine if row["patches"] == _PATCHES]
        times, errors = panels[2 * number : 2 * number + 2]
        times[0].set_title(f"{solver}, {_CLASSES} classes")
        times[1].set_title(f"{solver}, {_PATCHES} patches")
        for column, (over, shown) in enumerate(
            (("patches", over_patches), ("classes", over_classes))
        ):
            _panel(times[column], shown, over, "median_s", "seconds")
            _panel(errors[column], shown, over, "error", "error")
            errors[column].set_ylim(1e-8, 1e-3)
    panels[0, 0].legend(fontsize=8)
    panels[2, 0].legend(fontsize=8)
    save_picture(figure, picture)


def _panel(
    axes: Any, rows: list[dict[str, Any]], over: str, field: str, label: str
) -> None:
    for name, (colour, style) in _STYLES.items():
        points = sorted((row[over], row[field]) for row in rows if row["name"] == name)
        if points:
            sizes, values = zip(*points, strict=True)
            axes.loglog(sizes, values, style, color=colour, label=name)
    sizes = sorted({row[over] for row in rows})
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.xaxis.minorticks_off()
    axes.set(xlabel=over, ylabel=label)
    axes.grid(alpha=0.3)


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    results = RESULTS / "solver-sizes.json"
    parser.add_argument("--results", type=Path, default=results)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    options = parser.parse_args()
    draw(json.loads(options.results.read_text())["rows"], options.picture)


if __name__ == "__main__":
    main()
