"""Many configurations on the same photos, each network run once per distinct setting.

A cell takes the very steps of ``Segmenter`` (``pipeline.Batch``), and gets its labels;
what an earlier cell has computed for the same photos and the same choices is taken from
the memory that the batches of all cells share.
"""

from collections.abc import Sequence
from operator import itemgetter
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int32

from dslo_jax import prompts
from dslo_jax.errors import SolverError
from dslo_jax.evaluation.datasets.samples import Sample
from dslo_jax.evaluation.metrics import Confusion
from dslo_jax.evaluation.sweeps import oracles
from dslo_jax.evaluation.sweeps.cells import Cell
from dslo_jax.evaluation.sweeps.oracles import InformedBatch
from dslo_jax.pipeline import Memory, Networks, check_background
from dslo_jax.pipeline.stages import Clock
from dslo_jax.solvers import Solution


class Measurement(NamedTuple):
    """What one cell made of one photo.

    Attributes:
        labels: Index of the class of every pixel.
        confusion: True and given classes of the pixels.
        lost: Classes of the photo that early rejection dropped.
        false: Classes that survived it and are not in the photo.
        false_area: Share of the pixels that such classes won, in [0, 1].
        num_steps: Solver steps, mean over the surviving classes.
        converged: Share of the surviving classes that the solver converged for.
        ties: Share of the pixels whose best value two classes share.
        seconds: Of solver and labels; compilation left out.
        logits_seconds: Of the features of the patches; ``None`` where an earlier cell
            had computed them.
        unsure: Share of the pixels that are background by the threshold; ``None``
            without one.
    """

    labels: Int32[np.ndarray, "height width"]
    confusion: Confusion
    lost: int
    false: int
    false_area: float
    num_steps: float
    converged: float
    ties: float
    seconds: float
    logits_seconds: float | None
    unsure: float | None = None


class Labelled(NamedTuple):
    """The labels of one photo by one cell, and how they came about.

    Attributes:
        labels: Index of the class of every pixel.
        active: The classes that survived, in order.
        solved: Status of those classes; the arrays have no batch axis.
        ties: Share of tied pixels.
        seconds: As in ``Measurement``.
        logits_seconds: As in ``Measurement``.
        unsure: As in ``Measurement``.
    """

    labels: Int32[np.ndarray, "height width"]
    active: Int32[np.ndarray, " active"]
    solved: Solution
    ties: float
    seconds: float
    logits_seconds: float | None
    unsure: float | None = None


class Sweep:
    """Measures cells on batches of photos.

    Args:
        networks: The networks of all cells.
        classes: The classes of the truth.
        cells: What will be measured.
        batch_size: Photos at once; each holds two arrays of the size of an affinity.
    """

    def __init__(
        self,
        networks: Networks,
        classes: prompts.ClassList,
        cells: Sequence[Cell],
        *,
        batch_size: int = 8,
    ):
        self.networks = networks
        self.classes = classes
        self.batch_size = batch_size
        # Cells with the same affinity side by side: only one is held at a time.
        self.cells = sorted(dict.fromkeys(cells), key=_affinity)
        for cell in self.cells:  # errors are told now
            networks.check(cell.config, cell.attention)
            check_background(cell.config, classes.background)
            if cell.config.discrepancy.needs_affinity:
                networks.affinity(cell.config.affinity, cell.attention)

    def label(
        self, samples: Sequence[Sample], cells: Sequence[Cell]
    ) -> dict[Cell, list[Labelled] | SolverError]:
        """Labels of a batch by several cells.

        Args:
            samples: At most ``batch_size``.
            cells: Some of the sweep's.

        Returns:
            One result per photo and cell, or why a cell has no solution.
        """
        memory, wanted = Memory(), set(cells)
        results: dict[Cell, list[Labelled] | SolverError] = {}
        for cell in self.cells:
            if cell in wanted:
                batch = InformedBatch(
                    self.networks,
                    samples,
                    self.classes,
                    cell,
                    size=self.batch_size,
                    memory=memory,
                )
                try:
                    results[cell] = _labels(batch, cell, len(samples))
                except SolverError as error:
                    results[cell] = error
        return results

    def measure(
        self, samples: Sequence[Sample], cells: Sequence[Cell]
    ) -> dict[Cell, list[Measurement] | SolverError]:
        """Compare the labels of a batch with the truth; arguments as for ``label``."""
        return {
            cell: found
            if isinstance(found, SolverError)
            else [self._compare(*pair) for pair in zip(samples, found, strict=True)]
            for cell, found in self.label(samples, cells).items()
        }

    def _compare(self, sample: Sample, found: Labelled) -> Measurement:
        count = len(self.classes)
        confusion = Confusion.of(sample.truth, found.labels, count)
        present = oracles.classes_of(sample.truth, count)
        survived = np.zeros(count, bool)
        survived[found.active] = True
        pixels = max(int(confusion.counts.sum()), 1)
        return Measurement(
            labels=found.labels,
            confusion=confusion,
            lost=int(np.sum(present & ~survived)),
            false=int(np.sum(survived & ~present)),
            false_area=float(confusion.counts[:, ~present].sum() / pixels),
            num_steps=float(found.solved.num_steps.mean()),
            converged=float(found.solved.converged.mean()),
            ties=found.ties,
            unsure=found.unsure,
            seconds=found.seconds,
            logits_seconds=found.logits_seconds,
        )


def _labels(batch: InformedBatch, cell: Cell, count: int) -> list[Labelled]:
    """The labels of every photo by one cell."""
    solved = batch.solved(cell.config)
    stage = batch.networks.logits.module.stages[1]
    spent = batch.clock.seconds_of(stage) / count  # one photo after the other
    batch.clock = Clock()
    found = batch.class_labels(cell.config)
    seconds = batch.clock.seconds_of("labels") / count
    results = []
    for i, labelled in enumerate(found):
        active = solved.order[i, : solved.counts[i]]
        mine = jax.tree.map(itemgetter((i, slice(len(active)))), solved.solution)
        results.append(
            Labelled(
                labels=labelled.labels,
                active=active,
                solved=mine,
                ties=labelled.ties,
                unsure=labelled.unsure,
                seconds=solved.seconds / len(batch.padded) + seconds,
                logits_seconds=spent or None,
            )
        )
    return results


def _affinity(cell: Cell) -> str:
    """Equal for cells with the same affinity."""
    return repr((cell.config.affinity, "affinity" in cell.oracles, cell.attention))
