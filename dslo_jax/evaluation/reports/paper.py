"""The figures of the paper, to be shown beside measured ones.

``paper.toml`` has all numbers of all tables of arXiv 2604.07723v1. Figures 3, 5 and 6
of the paper have no numbers; those of Figure 5 (d), on foundation models, are in a
table of Sec. 8.
"""

import functools
import math
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from types import MappingProxyType
from typing import NamedTuple


BACKBONES = {"clip-b16": "ViT-B/16", "clip-l14": "ViT-L/14"}
"""The CLIP networks of the paper, and their usual names."""


class PaperRow(NamedTuple):
    """One row of a table of the paper.

    Attributes:
        label: Label of the row.
        figures: Figures by column; those that the paper leaves out are absent.
        average: The printed mean over the columns, if there is one.
        numeral: Number of the row in the paper, such as ``"VI"``, or empty.
        backbone: The CLIP, ``"clip-b16"`` or ``"clip-l14"``; empty if all rows of the
            table have the same.
        mode: ``"path"``, ``"velocity"`` or ``"none"``; empty if all rows of the table
            have the same.
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
        columns: Data sets, with mIoU in percent; or names of other quantities.
        rows: In the order of the paper.
    """

    citation: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[PaperRow, ...]


class PaperColumn(NamedTuple):
    """The figures of the paper for the rows of one of our tables.

    Attributes:
        title: Title of the column beside ours.
        citation: Paper and number of the table.
        scores: mIoU in percent for each of our rows; ``None`` where there is none.
        note: Note on how to compare them, or empty.
    """

    title: str
    citation: str
    scores: tuple[float | None, ...]
    note: str


class _Counterpart(NamedTuple):
    """The tables and rows of the paper that correspond to one of our tables.

    Attributes:
        tables: Tables of the paper by the titles of their columns beside ours.
        rows: Numerals or labels of rows of the paper, by the labels of our rows.
        note: Note on how to compare them.
        modes: The mode of the rows of each column, where a table has rows of several.
    """

    tables: Mapping[str, str]
    rows: Mapping[str, str]
    note: str = ""
    modes: Mapping[str, str] = MappingProxyType({})


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
    "versatility": _Counterpart(
        {
            "paper alone": "versatility",
            "paper + O.P.": "versatility",
            "paper + M.V.": "versatility",
        },
        {"cass": "CASS", "sc-clip": "SC-CLIP", "rf-clip": "RF-CLIP"},
        "Its figures alone are those of the methods with all their parts, such as "
        "sliding windows and adapted words, which ours do without",
        {
            "paper alone": "none",
            "paper + O.P.": "path",
            "paper + M.V.": "velocity",
        },
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
        mode: ``"path"``, ``"velocity"`` or ``"fused"``. The rows of the paper on
            ``kl`` and ``logits`` use the unchanged CLIP, unlike our defaults.
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
        ADE20K; one for the foundation models of Sec. 8 on these and Context60; three
        for the logits of other methods (Sec. 8) on all benchmarks; none for everything
        else.
    """
    if table not in _COUNTERPARTS:
        return ()
    columns = []
    counterpart = _COUNTERPARTS[table]
    for title, name in counterpart.tables.items():
        theirs = paper_tables()[name]
        mode = counterpart.modes.get(title, "")
        scores = {
            row.numeral or row.label: row.figures.get(dataset)
            for row in theirs.rows
            if row.mode == mode and row.backbone in ("", "clip-b16")
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
