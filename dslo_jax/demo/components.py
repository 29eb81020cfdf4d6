"""The rows of the paper on the scenes of the demo: what each component adds.

The rows are those of the table "components" of ``dslo ablate`` (Table 2 of the paper),
and the rows in which something is true those of its table "oracles".
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from dslo_jax.config import SegmenterConfig
from dslo_jax.evaluation.datasets.samples import Sample
from dslo_jax.evaluation.metrics import Confusion
from dslo_jax.evaluation.sweeps.cells import Cell
from dslo_jax.evaluation.sweeps.sweep import Sweep
from dslo_jax.evaluation.sweeps.tables import build_tables
from dslo_jax.images import Photo
from dslo_jax.pipeline import Networks
from dslo_jax.prompts import ClassList


KNOWN = "V with a true affinity"
# For each row: the row that it changes, and what it is in plain words.
_WORDS: Mapping[str, tuple[str, str]] = {
    "I: logits": ("", "each patch gets the word that CLIP finds likeliest"),
    "I + rejection + JBU": (
        "I: logits",
        "the same; classes that win almost no patch are left out, and the edges of the "
        "labels follow those of the photo",
    ),
    "II: I + KL": (
        "I: logits",
        "the discrepancy of a class is a divergence, computed for each patch alone",
    ),
    "III: II + NMS": ("II: I + KL", "only the best patches of a class stay"),
    "IV: III + JBU": ("III: II + NMS", "edges follow those of the photo"),
    "V: IV + O.P.": (
        "IV: III + JBU",
        "path: transport of the best patches to all patches, along the self-attention",
    ),
    "VI: IV + M.V.": (
        "IV: III + JBU",
        "velocity: how fast a Markov chain brings the best patches to each patch",
    ),
    "VII: V + VI": ("VI: IV + M.V.", "the mean of path and velocity"),
    KNOWN: ("V: IV + O.P.", "path, if the self-attention told all things apart"),
    "VI with a true affinity": (
        "VI: IV + M.V.",
        "velocity, if the self-attention told all things apart",
    ),
    "VI with the true classes": (
        "VI: IV + M.V.",
        "velocity, if CLIP knew which of the words are in the scene",
    ),
}

Labels = Int[np.ndarray, "height width"]


class ComponentScore(NamedTuple):
    """A row of the table of components.

    Attributes:
        row: Name of the row.
        words: What it does.
        score: Mean IoU over all pixels of the scenes, in [0, 1].
        base: The row that it changes; empty for the first one.
        gain: Score minus that of ``base``; ``None`` for the first one.
    """

    row: str
    words: str
    score: float
    base: str
    gain: float | None


class Components:
    """Labels of scenes by each row.

    Args:
        networks: The bundled networks.
        config: Their options.
    """

    def __init__(self, networks: Networks, config: SegmenterConfig):
        self.networks = networks
        self.cells = _cells(config)

    def __call__(
        self,
        pixels: UInt8[np.ndarray, "height width 3"],
        truth: UInt8[np.ndarray, "height width"],
        classes: ClassList,
        rows: Sequence[str] = tuple(_WORDS),
    ) -> dict[str, Labels]:
        """The labels of a scene, by row.

        Args:
            pixels: The scene.
            truth: Its true labels; 255 where no class is true.
            classes: The classes.
            rows: The rows that are wanted.
        """
        cells = [self.cells[row] for row in rows]
        sweep = Sweep(self.networks, classes, cells, batch_size=1)
        sample = Sample("scene", Photo(pixels, None, (), False), truth)
        labelled = sweep.label([sample], cells)
        found = {}
        for row, cell in zip(rows, cells, strict=True):
            if isinstance(result := labelled[cell], Exception):
                raise result
            found[row] = result[0].labels
        return found


def scores_of(confusions: Mapping[str, Confusion]) -> tuple[ComponentScore, ...]:
    """The table of components.

    Args:
        confusions: Of all scenes together, by row.
    """
    scores = {row: confusion.mean_iou for row, confusion in confusions.items()}
    return tuple(
        ComponentScore(
            row,
            words,
            scores[row],
            base,
            scores[row] - scores[base] if base else None,
        )
        for row, (base, words) in _WORDS.items()
    )


def points(score: ComponentScore) -> str:
    """The gain of a row in points of mIoU, with its sign."""
    return "" if score.gain is None else f"{100 * score.gain:+.1f}"


def _cells(config: SegmenterConfig) -> dict[str, Cell]:
    (components,) = build_tables(config, (), ["components"])
    cells = {row.label: row.cells[-1] for row in components.rows}
    (oracles,) = build_tables(config, (), ["oracles"])
    known = {row.label: row.cells for row in oracles.rows}
    cells["VI with a true affinity"], cells[KNOWN] = known["affinity"]
    cells["VI with the true classes"], _ = known["classes"]
    return {row: cell for row, cell in cells.items() if cell is not None}
