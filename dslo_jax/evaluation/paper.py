"""What the paper prints, to stand beside what is measured here.

The figures are in ``paper.toml``: every table of arXiv 2604.07723v1 that has any.
"""

import functools
import math
import tomllib
from collections.abc import Mapping
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
        source: Paper and number of the table.
        caption: What is compared.
        columns: Data sets (scores are mIoU in percent), or what else is measured.
        rows: In the order of the paper.
    """

    source: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[PaperRow, ...]


@functools.cache
def paper_tables() -> Mapping[str, PaperTable]:
    """All tables by name.

    ``systems`` (Table 1), ``components`` (2), ``layers_velocity`` and
    ``attention_velocity`` (3), ``layers_path`` and ``attention_path`` (4), and those of
    Sec. 8: ``efficiency``, ``seconds``, ``foundation_models``, ``versatility``.
    """
    file = resources.files("dslo_jax.evaluation") / "paper.toml"
    content = tomllib.loads(file.read_text("utf-8"))
    source = content.pop("source")
    return {name: _table(source, table) for name, table in content.items()}


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


def _table(source: str, content: Mapping) -> PaperTable:
    columns = tuple(content["columns"])
    return PaperTable(
        source=f"{source}, {content['source']}",
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
