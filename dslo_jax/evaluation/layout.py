"""A report as Markdown tables."""

from typing import Any


_SAID_ELSEWHERE = ("name", "photos", "sha256")


def markdown(report: dict[str, Any]) -> str:
    """Every table of a report, mIoU in percent, the best of each column bold.

    Args:
        report: From ``report.report``.
    """
    dataset = report["dataset"]
    versions = report["versions"]
    chosen = [
        f"{name.replace('_', ' ')} {value}"
        for name, value in dataset.items()
        if name not in _SAID_ELSEWHERE and value is not None
    ]
    lines = [
        f"# Ablations on {dataset['name']}: {report['scored']} of "
        f"{report['expected']} photos",
        "",
        f"mIoU in percent. {', '.join([*chosen, ''])}{len(report['classes'])} classes; "
        f"{report['device']['kind']}, jax {versions['jax']}, dslo-jax "
        f"{versions['dslo-jax']}, checkpoint {report['checkpoint'][:12]}.",
    ]
    for table in report["tables"]:
        lines += ["", f"## {table['title']}", "", *_scores(table, report["cells"])]
        lines += ["", *_details(table, report["cells"])]
    return "\n".join([*lines, ""])


def _scores(table: dict[str, Any], cells: dict[str, Any]) -> list[str]:
    rows = [[cells[k] if k else {} for k in row["cells"]] for row in table["rows"]]
    columns = list(zip(*rows, strict=True))
    best = [max(cell.get("miou") or 0.0 for cell in column) for column in columns]
    lines = [
        f"| | {' | '.join(table['columns'])} |",
        "|---" * (1 + len(table["columns"])) + "|",
    ]
    for row, found in zip(table["rows"], rows, strict=True):
        scores = [_score(c, top) for c, top in zip(found, best, strict=True)]
        lines.append(f"| {row['label']} | {' | '.join(scores)} |")
    return lines


def _score(cell: dict[str, Any], best: float) -> str:
    if not cell:
        return ""
    if cell.get("miou") is None:
        return "no solution" if cell.get("failed") else "-"
    text = f"{100 * cell['miou']:.1f}"
    return f"**{text}**" if cell["miou"] == best else text


def _details(table: dict[str, Any], cells: dict[str, Any]) -> list[str]:
    """One line per cell with everything but the IoU of the classes."""
    lines = [
        "| | | mIoU | pixels | lost | false | false area | steps | converged | ties | "
        "ms |",
        "|---" * 11 + "|",
    ]
    for row in table["rows"]:
        for column, key in zip(table["columns"], row["cells"], strict=True):
            cell = cells[key] if key else {}
            if cell.get("miou") is None:
                continue
            lines.append(
                f"| {row['label']} | {column} | {100 * cell['miou']:.2f} "
                f"| {100 * cell['pixel_accuracy']:.1f} | {cell['lost']:.2f} "
                f"| {cell['false']:.2f} | {100 * cell['false_area']:.1f} % "
                f"| {cell['num_steps']:.1f} | {100 * cell['converged']:.0f} % "
                f"| {100 * cell['ties']:.2f} % | {1e3 * cell['seconds']:.1f} |"
            )
    return lines
