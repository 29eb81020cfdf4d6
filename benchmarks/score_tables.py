"""The tables of scores on drawn scenes; ``tables.py`` writes them."""

from typing import Any

from harness import markdown, read

from dslo_jax.evaluation.reports.paper import BACKBONES, paper_tables


# Tables of an ablation that do not compare choices.
_NO_CHOICES = ("components", "oracles", "grid")


def choices_table() -> str:
    """Every choice of the method on the bundled scenes, in a line each."""
    result = read("ablation/ablation")
    rows = [
        [
            f"{table['title']}: {title}",
            ", ".join(
                f"{row['label']}: {_scores(row['cells'][first:last], result)}"
                for row in table["rows"]
            ),
        ]
        for table in result["tables"]
        if table["name"] not in _NO_CHOICES
        for title, first, last in _groups(table["columns"])
    ]
    return markdown(["choice", "mIoU in percent"], rows, f"{_photos(result)}.")


def _groups(columns: list[str]) -> list[tuple[str, int, int]]:
    """Titles and ranges of neighbouring columns that differ only in their mode."""
    groups = []
    for first in range(0, len(columns), 2):
        pair = columns[first : first + 2]
        reading, comma, mode = pair[0].rpartition(", ")
        modes = [mode, *(column.rpartition(", ")[2] for column in pair[1:])]
        groups.append((f"{reading}{comma}{' / '.join(modes)}", first, first + 2))
    return groups


def ablation_table(name: str, result: str) -> str:
    """One table of an ablation."""
    report = read(result)
    table = _table_of(report, name)
    rows = [
        [row["label"], *(_scores([key], report) for key in row["cells"])]
        for row in table["rows"]
    ]
    return markdown(["", *table["columns"]], rows, f"{_photos(report)}.")


def versatility_table() -> str:
    """All logits alone and with the method, and the seconds of their networks."""
    report = read("versatility")
    table = _table_of(report, "versatility")
    rows = []
    for row in table["rows"]:
        cells = [report["cells"][key] for key in row["cells"]]
        spent = max(cell.get("logits_seconds", 0.0) for cell in cells)
        scores = (_scores([key], report) for key in row["cells"])
        rows.append([f"`{row['label']}`", *scores, f"{spent:.3f}"])
    return markdown(["", *table["columns"], "seconds"], rows, f"{_photos(report)}.")


def versatility_of_the_paper() -> str:
    """The paper's figures on the logits of other methods."""
    table = paper_tables()["versatility"]
    modes = {"none": "alone", "path": "+ O.P.", "velocity": "+ M.V."}
    rows = [
        [
            f"{row.label}, {BACKBONES[row.backbone]}, {modes[row.mode]}",
            *(f"{row.figures[name]:.1f}" for name in table.columns),
        ]
        for row in table.rows
    ]
    return markdown(["", *table.columns], rows, f"mIoU in percent; {table.citation}.")


def neighbours_table() -> str:
    """How often near patches show the same thing."""
    result = read("neighbours")
    rows = [
        [
            f"{row['where']}: {row['name']}",
            *(f"{100 * share:.1f}" for share in row["shares"]),
        ]
        for row in result["rows"]
    ]
    where = result["machine"]["device"]["platform"]
    note = f"Percent; {result['scenes']} held-out scenes; {where}."
    return markdown(["", *(f"nearest {k}" for k in result["nearest"])], rows, note)


def points_table() -> str:
    """How well clicks find drawn things."""
    result = read("points")
    rows = [[row["name"], f"{100 * row['iou']:.1f}"] for row in result["rows"]]
    note = (
        f"{result['rows'][0]['clicks']} clicks into {result['scenes']} held-out "
        f"scenes, bundled networks; {_where(result)}; `python benchmarks/points.py`."
    )
    return markdown(["", "mean IoU in percent"], rows, note)


def background_table() -> str:
    """What windows and a background threshold do, on drawn scenes."""
    result = read("background")
    heads = {
        "input": "all classes",
        "words": "things and a background with its words, threshold",
        "single": 'things and the word "background", threshold',
    }
    tables = []
    for part, head in heads.items():
        found = [row for row in result["rows"] if row["part"] == part]
        titles, is_cut = [head, *found[0]["miou"]], part != "input"
        rows = [
            [row["name"], *(f"{100 * score:.1f}" for score in row["miou"].values())]
            + [f"{row['unsure']:.1%}"] * is_cut
            for row in found
        ]
        tables.append(markdown(titles + ["pixels below the threshold"] * is_cut, rows))
    note = (
        f"{result['scenes']} held-out scenes, mIoU in percent, `background_scale` "
        f"{result['scale']:g}; {_where(result)}; `python benchmarks/background.py`."
    )
    return "\n\n".join([*tables, note])


def _table_of(report: dict[str, Any], name: str) -> dict[str, Any]:
    (table,) = (each for each in report["tables"] if each["name"] == name)
    return table


def _where(result: dict[str, Any]) -> str:
    machine = result["machine"]
    return f"{machine['device']['platform']}, jax {machine['versions']['jax']}"


def _scores(keys: list[str | None], result: dict[str, Any]) -> str:
    cells = result["cells"]
    return " / ".join(f"{100 * cells[key]['miou']:.1f}" if key else "" for key in keys)


def _photos(result: dict[str, Any]) -> str:
    """Scenes, device and weights of an ablation."""
    dataset, versions = result["dataset"], result["versions"]
    first = dataset["first_seed"]
    return (
        f"{result['scored']} scenes that were not trained on, seeds {first} to "
        f"{first + result['expected'] - 1}; {result['device']['kind']}, jax "
        f"{versions['jax']}; weights {result['checkpoint'][:12]}"
    )
