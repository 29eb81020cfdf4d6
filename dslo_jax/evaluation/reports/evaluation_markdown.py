"""The result of an evaluation as Markdown."""

from collections.abc import Mapping
from typing import Any

from dslo_jax.evaluation.reports.evaluation_result import SCORES
from dslo_jax.evaluation.reports.paper import BACKBONES, published


def render(metrics: Mapping[str, Any]) -> str:
    """Scores by mode and by class, in percent, and the photos without a score.

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
        *_unsure(metrics),
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
    """Reasons why the scores are not those of the whole benchmark."""
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
    """A row for each mode, with the scores of the paper on this data set."""
    name, results = metrics["dataset"]["name"], metrics["results"]
    paper = {
        f"paper, {title}": [published(name, mode, backbone) for mode in results]
        for backbone, title in BACKBONES.items()
    }
    paper = {title: scores for title, scores in paper.items() if any(scores)}
    titles = [*SCORES.values(), *paper]
    lines = [f"| mode | {' | '.join(titles)} |", "|---" + "|---:" * len(titles) + "|"]
    for index, (mode, found) in enumerate(results.items()):
        row = [_percent(found[score]) for score in SCORES]
        row += [str(scores[index] or "") for scores in paper.values()]
        lines.append(f"| {mode} | {' | '.join(row)} |")
    return lines


def _unsure(metrics: Mapping[str, Any]) -> list[str]:
    """What a background threshold did; it is the same for all modes."""
    shares = [
        found["unsure"] for found in metrics["results"].values() if "unsure" in found
    ]
    if not shares:
        return []
    found = next(iter(metrics["results"].values()))["config"]
    return [
        "",
        f"{_percent(shares[0])} % of the pixels are background because their greatest "
        f"probability is below {found['background_threshold']} (`background_scale` "
        f"{found['background_scale']:g}), mean over the photos.",
    ]


def _classes(metrics: Mapping[str, Any]) -> list[str]:
    """IoU and accuracy of every class; empty for a class that never occurs."""
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
    """Text for a table or a list: on one line, with special characters escaped."""
    line = " ".join(str(text).split())
    return "".join(f"\\{char}" if char in r"\`*_[]<>|#" else char for char in line)
