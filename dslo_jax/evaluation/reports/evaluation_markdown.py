"""The result of an evaluation as Markdown."""

from collections.abc import Mapping
from typing import Any

from dslo_jax.evaluation.reports.paper import BACKBONES, published


_SCORES = {
    "miou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "class accuracy",
    "weighted_iou": "weighted IoU",
    "boundary_iou": "boundary IoU",
}


def render(metrics: Mapping[str, Any]) -> str:
    """Scores by mode, by class, and what is missing; all in percent.

    Args:
        metrics: The content of metrics.json.
    """
    dataset, versions = metrics["dataset"], metrics["versions"]
    lines = [
        f"# {_cell(dataset['name'])}: {metrics['scored']} of {metrics['expected']} "
        "photos",
        "",
        f"{metrics['status']}. In percent; {len(metrics['classes'])} classes, "
        f"{metrics['device']['kind']}, {metrics['precision']}, batches of "
        f"{metrics['batch_size']}, jax {versions['jax']}, dslo-jax "
        f"{versions['dslo-jax']}, checkpoint {metrics['checkpoint'][:12]}.",
        *_warnings(metrics),
        "",
        *_overall(metrics),
        "",
        *_classes(metrics),
    ]
    if metrics["skipped"]:
        lines += ["", "## Photos without a score", ""]
        lines += [
            f"- {_cell(photo['name'])}: {_cell(photo['reason'])}"
            for photo in metrics["skipped"]
        ]
    return "\n".join([*lines, ""])


def _warnings(metrics: Mapping[str, Any]) -> list[str]:
    """Why the scores are not those of the whole benchmark."""
    dataset = metrics["dataset"]
    whole = dataset.get("published_photos")
    lines = []
    if whole is not None and whole != metrics["expected"]:
        lines += ["", f"The benchmark has {whole} photos, these scores do not compare."]
    for mode, found in metrics["results"].items():
        if "failed" in found:
            lines += [
                "",
                f"{mode}: no solution for {found['failed']} photos, hence no score: "
                f"{_cell(found['error'])}",
            ]
    return lines


def _overall(metrics: Mapping[str, Any]) -> list[str]:
    """One row per mode, with what the paper has on this data set."""
    name, results = metrics["dataset"]["name"], metrics["results"]
    paper = {
        f"paper, {title}": [published(name, mode, backbone) for mode in results]
        for backbone, title in BACKBONES.items()
    }
    paper = {title: scores for title, scores in paper.items() if any(scores)}
    titles = [*_SCORES.values(), *paper]
    lines = [f"| mode | {' | '.join(titles)} |", "|---" + "|---:" * len(titles) + "|"]
    for index, (mode, found) in enumerate(results.items()):
        row = [_percent(found[score]) for score in _SCORES]
        row += [str(scores[index] or "") for scores in paper.values()]
        lines.append(f"| {mode} | {' | '.join(row)} |")
    return lines


def _classes(metrics: Mapping[str, Any]) -> list[str]:
    """IoU and accuracy of every class; empty where it is in no truth and no label."""
    results = metrics["results"]
    titles = [f"{mode} {score}" for mode in results for score in ("IoU", "accuracy")]
    lines = [f"| class | {' | '.join(titles)} |", "|---" + "|---:" * len(titles) + "|"]
    for name in metrics["classes"]:
        row = [
            _percent(found[score][name])
            for found in results.values()
            for score in ("iou", "accuracy")
        ]
        lines.append(f"| {_cell(name)} | {' | '.join(row)} |")
    return lines


def _percent(score: float | None) -> str:
    return "" if score is None else f"{100 * score:.2f}"


def _cell(text: str) -> str:
    """Words from elsewhere inside a table or a list: on one line, and as they are."""
    line = " ".join(str(text).split())
    return "".join(f"\\{char}" if char in r"\`*_[]<>|#" else char for char in line)
