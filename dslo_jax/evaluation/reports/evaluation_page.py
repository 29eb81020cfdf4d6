"""The result of an evaluation as one HTML file."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32, Shaped, UInt8
from PIL import Image

from dslo_jax.evaluation.metrics import IGNORE
from dslo_jax.evaluation.reports.confusion_html import (
    STYLE as MAP_STYLE,
    confusion_map,
    confusions_in_words,
    map_key,
)
from dslo_jax.evaluation.reports.evaluation_result import SCORES
from dslo_jax.evaluation.reports.paper import BACKBONES, paper_tables, published
from dslo_jax.evaluation.sweeps.records import dense
from dslo_jax.outputs import draw_overlay, palette
from dslo_jax.outputs.page import document, legend, percent, picture, table, words


_STYLE = """
:root { --right: #2f6fd0; --wrong: #d0641c; }
@media screen and (prefers-color-scheme: dark) {
  :root { --right: #79a9f5; --wrong: #f0934e; } }
.scores { display: flex; flex-wrap: wrap; gap: 1rem 3rem; margin: 1.5rem 0; }
.scores b { display: block; font-size: 2.5rem; font-weight: 600; line-height: 1.1;
  font-variant-numeric: tabular-nums; }
.notice { padding: .75rem 1rem; border-left: .25rem solid var(--wrong); }
.classes { columns: 19rem; column-gap: 2.5rem; margin: 0; padding: 0; }
.classes div { display: grid; grid-template-columns: 8rem 1fr; align-items: center;
  break-inside: avoid; padding: .15rem 0; }
.classes dt, .classes dd { margin: 0; font-size: .8125rem; line-height: 1.15; }
.classes dt { overflow: hidden; text-overflow: ellipsis; white-space: nowrap;
  padding-right: .75rem; }
.bar { display: grid; grid-template-columns: 1fr 3.25rem; align-items: center; }
.bar i { display: block; height: .55rem; border-radius: 0 .2rem .2rem 0; }
.bar span { text-align: right; font-variant-numeric: tabular-nums; font-size: .75rem; }
.row { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: .75rem;
  margin-top: 1.25rem; break-inside: avoid; }
.row + .legend { font-size: .875rem; }
details { margin: .5rem 0; }
.facts td { text-align: left; vertical-align: top; overflow-wrap: anywhere;
  white-space: normal; }
.facts th { text-align: left; }
@media (max-width: 34rem) { .row { grid-template-columns: 1fr; }
  body { padding: 0 1rem; margin-top: 1.5rem; } th, td { padding-right: 1rem; } }
"""
# A colour for each mode, visible on white and on black.
_COLOURS = ("#4a80d9", "#d9782f", "#3d9a6a", "#9a6fc9", "#868b93")
_LONG_SIDE = 640  # of a picture, in pixels


class Example(NamedTuple):
    """A photo to show.

    Attributes:
        name: Name of the photo.
        pixels: The photo.
        truth: True labels; 255 is ignored.
        labels: Predicted labels.
        miou: mIoU of this photo, in [0, 1].
    """

    name: str
    pixels: UInt8[np.ndarray, "height width 3"]
    truth: UInt8[np.ndarray, "height width"]
    labels: Int32[np.ndarray, "height width"]
    miou: float


def render(metrics: dict[str, Any], examples: Sequence[Example]) -> str:
    """Write the report.

    Args:
        metrics: The content of metrics.json.
        examples: The worst and the best photos, in any order.

    Returns:
        A whole document that loads no other file.
    """
    name = metrics["dataset"]["name"]
    sections = (
        f"<h1>Evaluation on {words(name)}</h1>",
        _summary(metrics),
        _headline(metrics["results"]),
        _scores(metrics["results"]),
        _gap(name, metrics["results"]),
        _classes(metrics["results"], metrics["classes"]),
        _confusions(metrics["results"], metrics["classes"]),
        _examples(examples, metrics),
        _skipped(metrics["skipped"]),
        _circumstances(metrics),
    )
    return document(f"dslo-jax: {name}", "".join(sections), style=_STYLE + MAP_STYLE)


def _summary(metrics: Mapping[str, Any]) -> str:
    text = (
        f"<p>{metrics['scored']:,} of {metrics['expected']:,} photos, "
        f"{len(metrics['classes'])} classes, {words(metrics['device']['kind'])}.</p>"
    )
    notices = []
    if metrics["skipped"]:
        notices.append("photos were skipped; the list is below")
    whole = metrics["dataset"].get("published_photos")
    if whole is not None and whole != metrics["expected"]:
        notices.append(f"the benchmark has {whole:,} photos")
    notices += [
        f"{words(mode)} found no solution for {found['failed']:,} photos and has no "
        f"score: {words(found['error'])}"
        for mode, found in metrics["results"].items()
        if "failed" in found
    ]
    if not notices:
        return text
    return (
        f'{text}<p class="notice"><b>{words(metrics["status"])}</b>, not to be '
        f"compared with other scores: {'; '.join(notices)}.</p>"
    )


def _headline(results: Mapping[str, Any]) -> str:
    blocks = [
        f"<div><b>{percent(found['miou'])}</b>{words(mode)}</div>"
        for mode, found in results.items()
    ]
    return (
        f'<div class="scores">{"".join(blocks)}</div>'
        '<p class="pale">mIoU: the overlap of labels and truth over all photos, '
        "averaged over the classes that occur.</p>"
    )


def _scores(results: Mapping[str, Any]) -> str:
    rows = [
        [words(mode), *(percent(found[score]) for score in SCORES)]
        for mode, found in results.items()
    ]
    return table(["", *SCORES.values()], rows)


def _gap(dataset: str, results: Mapping[str, Any]) -> str:
    """The scores of the paper on this data set beside ours, if it has any."""
    rows = []
    for mode, found in results.items():
        theirs = [published(dataset, mode, backbone) for backbone in BACKBONES]
        if any(theirs):
            cells = [_distance(found["miou"], score) for score in theirs]
            rows.append([words(mode), percent(found["miou"]), *cells])
    if not rows:
        return ""
    citation = words(paper_tables()["systems"].citation)
    heads = [f"paper, {backbone}" for backbone in BACKBONES.values()]
    return (
        "<h2>Beside the paper</h2>"
        f"<p>mIoU of {citation}, and the difference of the mIoU measured here, in "
        "points.</p>" + table(["", "here", *heads], rows)
    )


def _distance(ours: float | None, theirs: float | None) -> str:
    if theirs is None or ours is None:
        return "-" if theirs is None else f"{theirs:.1f} %"
    return f"{theirs:.1f} % ({100 * ours - theirs:+.1f})"


def _classes(results: Mapping[str, Any], titles: Sequence[str]) -> str:
    """Bars of every class, the best first; classes that never occur are only named."""

    def rank(title: str) -> float:
        return fmean(_known(found["iou"][title] for found in results.values()))

    seen = [t for t in titles if _known(f["iou"][t] for f in results.values())]
    entries = [
        f'<div><dt title="{words(title)}">{words(title)}</dt>'
        f"<dd>{_bars([found['iou'][title] for found in results.values()])}</dd></div>"
        for title in sorted(seen, key=rank, reverse=True)
    ]
    absent = [words(title) for title in titles if title not in seen]
    return (
        "<h2>Classes</h2><p>IoU of each class, best first.</p>"
        + legend(list(results), _COLOURS[: len(results)])
        + f'<dl class="classes">{"".join(entries)}</dl>'
        + (f"<p class='pale'>Never seen: {', '.join(absent)}.</p>" if absent else "")
    )


def _known(scores: Iterable[float | None]) -> list[float]:
    return [score for score in scores if score is not None]


def _bars(scores: Sequence[float | None]) -> str:
    return "".join(
        f'<div class="bar"><i style="width: {100 * (score or 0):.2f}%; '
        f'background: {colour}"></i><span>{percent(score)}</span></div>'
        for score, colour in zip(scores, _COLOURS, strict=False)
    )


def _confusions(results: Mapping[str, Any], titles: Sequence[str]) -> str:
    parts = [
        "<h2>Confusions</h2><p>The predicted classes of the pixels of each true class. "
        "Every row of a map adds up to 100 %. Point at a cell to read it.</p>",
        map_key(),
    ]
    for index, (mode, found) in enumerate(results.items()):
        counts = dense([found["confusion"]], len(titles))
        parts.append(
            f"<details{' open' if index == 0 else ''}><summary>{words(mode)}</summary>"
            f"{confusions_in_words(counts, titles)}{confusion_map(counts, titles)}"
            "</details>"
        )
    return "".join(parts)


def _examples(examples: Sequence[Example], metrics: Mapping[str, Any]) -> str:
    """The worse half, worst first, and the better half, best first."""
    ranked = sorted(examples, key=lambda example: example.miou)
    half = (len(ranked) + 1) // 2
    parts = []
    for title, some in (
        ("Worst photos", ranked[:half]),
        ("Best photos", ranked[half:]),
    ):
        if some:
            parts.append(f"<h2>{title}</h2>")
        for example in some if title.startswith("Worst") else reversed(some):
            parts.append(_example(example, metrics))
    return "".join(parts)


def _example(example: Example, metrics: Mapping[str, Any]) -> str:
    titles = metrics["classes"]
    small = _shrunk(example)
    photo = Image.fromarray(small.pixels)
    truth = _drawn(small, small.truth, titles)
    labels = _drawn(
        small, np.where(small.truth == IGNORE, IGNORE, small.labels), titles
    )
    captions = (
        words(example.name),
        "truth",
        f"labels, mIoU {percent(example.miou)}",
    )
    figures = [
        f"<figure>{picture(image, f'{kind} of {example.name}')}"
        f"<figcaption>{caption}</figcaption></figure>"
        for image, kind, caption in zip(
            (photo, truth, labels), ("photo", "truth", "labels"), captions, strict=True
        )
    ]
    known = example.truth != IGNORE
    seen = np.concatenate([example.truth[known], example.labels[known]])
    shown = np.argsort(-np.bincount(seen, minlength=len(titles)), kind="stable")
    shown = [int(index) for index in shown if (seen == index).any()]
    key = legend([titles[i] for i in shown], palette(titles)[shown])
    return f'<div class="row">{"".join(figures)}</div>{key}'


def _shrunk(example: Example) -> Example:
    """The example, shrunk to the size in which it is shown."""
    height, width = example.truth.shape
    factor = min(1.0, _LONG_SIDE / max(height, width))
    size = max(1, round(factor * width)), max(1, round(factor * height))

    def nearest(labels: Shaped[np.ndarray, "height width"]) -> np.ndarray:
        image = Image.fromarray(labels.astype(np.int32))
        return np.asarray(image.resize(size, Image.Resampling.NEAREST))

    photo = Image.fromarray(example.pixels).resize(size, Image.Resampling.LANCZOS)
    return example._replace(
        pixels=np.asarray(photo),
        truth=nearest(example.truth).astype(np.uint8),
        labels=nearest(example.labels),
    )


def _drawn(example: Example, labels: np.ndarray, titles: Sequence[str]) -> Image.Image:
    """Labels drawn over the photo; pixels with the label 255 show the photo."""
    ignored = labels == IGNORE
    filled = np.where(ignored, 0, labels)
    drawn = draw_overlay(example.pixels, filled, titles, opacity=0.65, legend=False)
    photo = Image.fromarray(example.pixels).resize(drawn.size)
    mask = Image.fromarray(ignored).convert("L").resize(drawn.size)
    drawn.paste(photo, mask=mask)
    return drawn


def _skipped(skipped: Sequence[Mapping[str, str]]) -> str:
    if not skipped:
        return ""
    rows = [[words(each["name"]), words(each["reason"])] for each in skipped]
    return (
        f"<h2>Photos that were skipped: {len(skipped)}</h2>"
        f'<div class="facts">{table(["photo", "reason"], rows)}</div>'
    )


def _circumstances(metrics: Mapping[str, Any]) -> str:
    """Everything that the scores depend on."""
    facts = {
        **{f"data set: {key}": value for key, value in metrics["dataset"].items()},
        **{f"device: {key}": value for key, value in metrics["device"].items()},
        **{key: metrics[key] for key in ("machine", "checkpoint", "batch_size")},
        "precision": metrics["precision"],
        **{f"version: {key}": value for key, value in metrics["versions"].items()},
        "schema": metrics["schema"],
    }
    configs = [found["config"] for found in metrics["results"].values()]
    fields = dict.fromkeys(field for config in configs for field in config)
    choices = [
        [words(field), *(words(config.get(field)) for config in configs)]
        for field in fields
    ]
    return (
        "<h2>Circumstances</h2>"
        f'<div class="facts">{table(["", ""], _pairs(facts))}</div>'
        "<h2>Choices of the method</h2>"
        f'<div class="facts">{table(["", *map(words, metrics["results"])], choices)}'
        "</div>"
    )


def _pairs(facts: Mapping[str, Any]) -> list[list[str]]:
    return [[words(name), words(value)] for name, value in facts.items()]
