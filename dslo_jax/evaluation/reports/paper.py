"""What the paper prints, to stand beside what is measured here.

The figures are in ``paper.toml``: every number of every table of arXiv 2604.07723v1.
Its Figures 3, 5 and 6 are drawn without numbers, and so have none here; but what Figure
5 (d) shows of foundation models, Sec. 8 has as a table.
"""

import functools
import math
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import NamedTuple


BACKBONES = {"clip-b16": "ViT-B/16", "clip-l14": "ViT-L/14"}
"""The CLIPs of the paper, and what people call them."""


class PaperRow(NamedTuple):
    """One row of a table of the paper.

    Attributes:
        label: What it is about.
        figures: By column; those that the paper leaves out are absent.
        average: The printed mean over the columns, if there is one.
        numeral: The row's number in the paper, such as ``"VI"``, or empty.
        backbone: The CLIP, ``"clip-b16"`` or ``"clip-l14"``, or empty where all rows of
            the table share one.
        mode: ``"path"``, ``"velocity"``, ``"none"``, or empty where the table says it.
    """

    label: str
    figures: Mapping[str, float]
    average: float | None
    numeral: str
    backbone: str
    mode: str


class PaperTable(NamedTuple):
    """One table of the paper.

    Attributes:
        citation: Paper and number of the table.
        caption: What is compared.
        columns: Data sets (scores are mIoU in percent), or what else is measured.
        rows: In the order of the paper.
    """

    citation: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[PaperRow, ...]


class PaperColumn(NamedTuple):
    """What the paper has for the rows of one of our tables.

    Attributes:
        title: What to call it beside our columns.
        citation: Paper and number of the table.
        scores: mIoU in percent, one per row of ours; ``None`` where it has none.
        note: What has to be known to compare them, or empty.
    """

    title: str
    citation: str
    scores: tuple[float | None, ...]
    note: str


class _Counterpart(NamedTuple):
    """Which rows of the paper are those of a table of ours.

    Attributes:
        tables: Of the paper, by what to call their column beside ours.
        rows: Rows of the paper, by numeral or label, by the labels of ours.
        note: What has to be known to compare them.
    """

    tables: Mapping[str, str]
    rows: Mapping[str, str]
    note: str = ""


_COUNTERPARTS = {
    "components": _Counterpart(
        {"paper": "components"},
        {
            "I: logits": "I",
            "II: I + KL": "II",
            "III: II + NMS": "III",
            "IV: III + JBU": "IV",
            "V: IV + O.P.": "V",
            "VI: IV + M.V.": "VI",
            "VII: V + VI": "VII",
        },
        "Its row I is CLIP with the attention it comes with, its rows V and VI have "
        "the k-k mean",
    ),
    "attention": _Counterpart(
        {"paper M.V.": "attention_velocity", "paper O.P.": "attention_path"},
        {"vanilla": "I", "qk_mean": "I", "qq_mean": "II", "kk_mean": "III"},
        "Its origin may be vanilla or qk_mean, and stands beside both",
    ),
    "layers": _Counterpart(
        {"paper M.V.": "layers_velocity", "paper O.P.": "layers_path"},
        {
            **{"down0": "I", "down1": "II"},
            **{"up0": "III", "up1": "IV", "up2": "V", "up0 + up1": "VI"},
        },
    ),
    "foundation": _Counterpart(
        {"paper M.V.": "foundation_models"},
        {
            "none": "without self-attention",
            "clip-b16": "CLIP-B/16",
            "dino-b8": "DINO-B/8",
            "dinov2-b14": "DINOv2-B/14",
            "dinov2-reg-b14": "DINOv2-B/14 with registers",
            **dict.fromkeys(("sd2-base", "sd2.1-base", "sd2", "sd2.1"), "SD2"),
        },
        "It names neither the layers of the others nor the size of the photo they see, "
        "nor which Stable Diffusion 2 it takes",
    ),
}


@functools.cache
def paper_tables() -> Mapping[str, PaperTable]:
    """All tables by name.

    ``systems`` (Table 1), ``components`` (2), ``layers_velocity`` and
    ``attention_velocity`` (3), ``layers_path`` and ``attention_path`` (4), and those of
    Sec. 8: ``efficiency``, ``seconds``, ``foundation_models``, ``versatility``.
    """
    file = resources.files("dslo_jax.evaluation.reports") / "paper.toml"
    content = tomllib.loads(file.read_text("utf-8"))
    paper = content.pop("citation")
    return {name: _table(paper, table) for name, table in content.items()}


def published(dataset: str, mode: str, backbone: str) -> float | None:
    """The mIoU that the paper reports, in percent (Table 1; ``fused`` from Table 2).

    Args:
        dataset: ``"voc21"``, ``"voc20"``, ``"context60"``, ``"context59"``,
            ``"coco_object"``, ``"coco_stuff"``, ``"cityscapes"`` or ``"ade20k"``.
        mode: ``"path"``, ``"velocity"`` or ``"fused"``. The rows on ``kl`` and
            ``logits`` are of a CLIP as it comes, which those modes are not by default.
        backbone: ``"clip-b16"`` or ``"clip-l14"``.

    Returns:
        The score, or ``None`` where the paper has none.
    """
    tables = paper_tables()
    if mode == "fused" and backbone == "clip-b16":
        fused = next(row for row in tables["components"].rows if row.numeral == "VII")
        return fused.figures.get(dataset)
    ours = {"path": "optimal path", "velocity": "maximum velocity"}
    for row in tables["systems"].rows:
        if (row.label, row.backbone) == (ours.get(mode), backbone):
            return row.figures.get(dataset)
    return None


def paper_columns(
    table: str, labels: Sequence[str], dataset: str
) -> tuple[PaperColumn, ...]:
    """The figures of the paper's ablations, all with CLIP ViT-B/16.

    Args:
        table: One of ``TABLES``.
        labels: Of the rows of that table.
        dataset: As for ``published``.

    Returns:
        One or two columns for Tables 2 to 4 on VOC21, COCO-Stuff, Cityscapes and
        ADE20K; one for the foundation models of Sec. 8, on these and Context60; none
        for all else.
    """
    if table not in _COUNTERPARTS:
        return ()
    columns = []
    counterpart = _COUNTERPARTS[table]
    for title, name in counterpart.tables.items():
        theirs = paper_tables()[name]
        scores = {
            row.numeral or row.label: row.figures.get(dataset) for row in theirs.rows
        }
        column = PaperColumn(
            title,
            theirs.citation,
            tuple(scores.get(counterpart.rows.get(label, "")) for label in labels),
            counterpart.note,
        )
        if any(column.scores):
            columns.append(column)
    return tuple(columns)


def _table(paper: str, content: Mapping) -> PaperTable:
    columns = tuple(content["columns"])
    return PaperTable(
        citation=f"{paper}, {content['citation']}",
        caption=content["caption"],
        columns=columns,
        rows=tuple(_row(columns, row) for row in content["rows"]),
    )


def _row(columns: tuple[str, ...], content: Mapping) -> PaperRow:
    scores = zip(columns, content["scores"], strict=True)
    average = content.get("average", math.nan)
    return PaperRow(
        label=content["label"],
        figures={name: score for name, score in scores if not math.isnan(score)},
        average=None if math.isnan(average) else average,
        numeral=content.get("numeral", ""),
        backbone=content.get("backbone", ""),
        mode=content.get("mode", ""),
    )
