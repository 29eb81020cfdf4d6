"""The result of an ablation as plots like Figures 5 and 6; they need matplotlib."""

from pathlib import Path
from typing import Any

from dslo_jax.errors import OptionError
from dslo_jax.files import atomic_file


_INCHES = (5.0, 3.2)
_LOGARITHMIC = 30.0  # ratio of the ends of an axis above which it is logarithmic


def draw_tables(result: dict[str, Any], folder: Path) -> list[Path]:
    """Draw every table of an ablation: curves over numbers, bars over names.

    Bars have a mark for each figure of the paper.

    Args:
        result: From ``ablation_result``.
        folder: Folder of the PNG files, one for each table.

    Returns:
        The files.

    Raises:
        OptionError: matplotlib is not installed (``O05``).
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise OptionError(
            "O05", "plots need matplotlib; install dslo-jax[plot]"
        ) from error
    files = []
    for table in result["tables"]:
        figure = Figure(figsize=_INCHES, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        if all(row["position"] is not None for row in table["rows"]):
            _draw_curves(axes, table, result["cells"])
        else:
            _draw_bars(axes, table, result["cells"])
        axes.set_title(table["title"], fontsize=9)
        axes.tick_params(labelsize=7)
        # Below the axes, so that it hides no bar.
        figure.legend(loc="outside lower center", ncols=4, fontsize=7)
        files.append(folder / f"{table['name']}.png")
        with atomic_file(files[-1]) as file:
            figure.savefig(file, format="png", dpi=150)
    return files


def _draw_curves(axes: Any, table: dict[str, Any], cells: dict[str, Any]) -> None:
    """Draw mIoU over the number that is varied, a curve for each column."""
    positions = [row["position"] for row in table["rows"]]
    for index, column in enumerate(table["columns"]):
        axes.plot(positions, _scores(table, cells, index), "o-", label=column)
    low = min(positions)
    if low > 0 and max(positions) / low > _LOGARITHMIC:
        axes.set_xscale("log")
    axes.set_ylabel("mIoU (%)", fontsize=8)
    axes.grid(alpha=0.3)


def _draw_bars(axes: Any, table: dict[str, Any], cells: dict[str, Any]) -> None:
    """Draw mIoU of every row, a bar for each column; the first row is on top."""
    rows, columns = table["rows"], table["columns"]
    thickness = 0.8 / len(columns)
    for index, column in enumerate(columns):
        places = [row + index * thickness for row in range(len(rows))]
        axes.barh(places, _scores(table, cells, index), thickness, label=column)
    middle = 0.4 - thickness / 2
    _mark_paper(axes, table, thickness, middle)
    axes.set_yticks([row + middle for row in range(len(rows))])
    axes.set_yticklabels([row["label"] for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("mIoU (%)", fontsize=8)


def _mark_paper(
    axes: Any, table: dict[str, Any], thickness: float, middle: float
) -> None:
    """Mark the figures of the paper, on their bars or in the middle of a row."""
    paper = table.get("paper", [])
    side_by_side = len(paper) == len(table["columns"])
    for index, column in enumerate(paper):
        known = [row for row, score in enumerate(column["percent"]) if score]
        offset = index * thickness if side_by_side else middle
        axes.plot(
            [column["percent"][row] for row in known],
            [row + offset for row in known],
            "kD",
            markersize=4,
            label="_" if index else "paper",
        )


def _scores(table: dict[str, Any], cells: dict[str, Any], column: int) -> list[float]:
    """The mIoU of a column in percent; NaN leaves a gap."""
    found = [
        cells[key] if (key := row["cells"][column]) else {} for row in table["rows"]
    ]
    scores = (cell.get("miou") for cell in found)
    return [float("nan") if score is None else 100 * score for score in scores]
