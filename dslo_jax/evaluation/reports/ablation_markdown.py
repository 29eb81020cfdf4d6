"""The result of an ablation as Markdown tables."""

from typing import Any


_OF_LOGITS = "versatility"  # the table whose rows differ by the network of the logits
_STATED_ELSEWHERE = ("name", "photos", "sha256")


def render(result: dict[str, Any]) -> str:
    """All tables of an ablation: mIoU in percent, with the best of each column bold.

    Args:
        result: From ``ablation_result``.
    """
    dataset = result["dataset"]
    versions = result["versions"]
    chosen = [
        f"{name.replace('_', ' ')} {value}"
        for name, value in dataset.items()
        if name not in _STATED_ELSEWHERE and value is not None
    ]
    lines = [
        f"# Ablations on {dataset['name']}: {result['scored']} of "
        f"{result['expected']} photos",
        "",
        f"mIoU in percent. {', '.join([*chosen, ''])}{len(result['classes'])} classes; "
        f"{result['device']['kind']}, jax {versions['jax']}, dslo-jax "
        f"{versions['dslo-jax']}, checkpoint {result['checkpoint'][:12]}.",
        *_paper(result),
    ]
    for table in result["tables"]:
        lines += ["", f"## {table['title']}", "", *_scores(table, result["cells"])]
        lines += _citations(table)
        lines += ["", *_details(table, result["cells"])]
    return "\n".join([*lines, ""])


def _paper(result: dict[str, Any]) -> list[str]:
    """The scores of the paper on this data set, if it has any."""
    if "paper" not in result:
        return []
    scores = "; ".join(
        f"{backbone}, {', '.join(f'{mode} {score}' for mode, score in found.items())}"
        for backbone, found in result["paper"]["percent"].items()
    )
    whole = result["dataset"].get("published_photos", result["expected"])
    part = "" if whole == result["expected"] else f" on {whole} photos"
    return [
        "",
        f"The paper ({result['paper']['source']}) has{part}: {scores}. The numbers of "
        "its ablations are beside ours. Its Figures 5 and 6 have no numbers, except "
        "for the velocity of 5 (d).",
    ]


def _citations(table: dict[str, Any]) -> list[str]:
    """Sources of the columns of the paper, and notes on how to compare them."""
    columns = table.get("paper", [])
    if not columns:
        return []
    citations = "; ".join(f"{each['title']}: {each['source']}" for each in columns)
    notes = "".join(f" {note}." for note in {c["note"] for c in columns} if note)
    return ["", f"{citations}; all with CLIP ViT-B/16.{notes}"]


def _scores(table: dict[str, Any], cells: dict[str, Any]) -> list[str]:
    rows = [[cells[k] if k else {} for k in row["cells"]] for row in table["rows"]]
    columns = list(zip(*rows, strict=True))
    best = [max(cell.get("miou") or 0.0 for cell in column) for column in columns]
    paper = table.get("paper", [])
    titles = [*table["columns"], *(column["title"] for column in paper)]
    timed = table["name"] == _OF_LOGITS
    if timed:
        titles.append("seconds for the logits")
    lines = [f"| | {' | '.join(titles)} |", "|---" * (1 + len(titles)) + "|"]
    for index, (row, found) in enumerate(zip(table["rows"], rows, strict=True)):
        scores = [_score(c, top) for c, top in zip(found, best, strict=True)]
        scores += [str(column["percent"][index] or "") for column in paper]
        if timed:
            scores.append(_logits_seconds(found))
        lines.append(f"| {row['label']} | {' | '.join(scores)} |")
    return lines


def _logits_seconds(cells: list[dict[str, Any]]) -> str:
    """Median seconds per photo of the network; the cells of a row share its result."""
    known = [cell["logits_seconds"] for cell in cells if "logits_seconds" in cell]
    return f"{max(known):.3g}" if known else ""


def _score(cell: dict[str, Any], best: float) -> str:
    if not cell:
        return ""
    if cell.get("miou") is None:
        return "no solution" if cell.get("failed") else "-"
    text = f"{100 * cell['miou']:.1f}"
    return f"**{text}**" if cell["miou"] == best else text


def _details(table: dict[str, Any], cells: dict[str, Any]) -> list[str]:
    """A line for each cell with everything but the IoU of the classes."""
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
