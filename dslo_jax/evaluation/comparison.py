"""Scores of several discrepancies on the same photos, for research on solvers."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from dslo_jax.errors import OptionError, SolverError
from dslo_jax.evaluation.datasets.samples import SampleSet
from dslo_jax.evaluation.metrics import Confusion
from dslo_jax.evaluation.sweeps.cells import Cell
from dslo_jax.evaluation.sweeps.sweep import Measurement, Sweep
from dslo_jax.segmenter import Segmenter
from dslo_jax.solvers import Discrepancy


class Compared(NamedTuple):
    """What one discrepancy made of all photos.

    Attributes:
        confusion: True and given classes of all pixels.
        converged: Share of the surviving classes that converged, mean over the photos.
        num_steps: Steps of a surviving class, mean over classes and photos.
        seconds: Seconds of solver and labels for a photo, mean; without compilation.
    """

    confusion: Confusion
    converged: float
    num_steps: float
    seconds: float

    @property
    def mean_iou(self) -> float:
        """Mean IoU over the classes, in [0, 1]."""
        return self.confusion.mean_iou


def compare(
    segmenter: Segmenter,
    samples: SampleSet,
    discrepancies: Mapping[str, Discrepancy | str],
    *,
    batch_size: int = 8,
) -> dict[str, Compared]:
    """Score discrepancies on the same photos; each network runs once per photo.

    Nothing is written, and a comparison that is interrupted begins again.

    Args:
        segmenter: Its networks and its options are used.
        samples: Photos with true labels, such as ``SceneSet(range(16))``.
        discrepancies: Discrepancies under names of your choice; a text is a mode, such
            as ``"velocity"``, with the options of the segmenter.
        batch_size: Photos at once; each holds two arrays of the size of an affinity.

    Returns:
        The scores under the same names.

    Raises:
        OptionError: There is nothing to compare (``O05``), an argument is of another
            type or a mode is unknown (``O03``), or a discrepancy of one's own cannot be
            used (``O10``).
        SolverError: A class has no solution (``S03``).
        DsloError: A photo cannot be read.
    """
    if not isinstance(discrepancies, Mapping):
        raise OptionError(
            "O03",
            f"the discrepancies are a {type(discrepancies).__name__}; expected a dict "
            "of discrepancies by names of your choice, such as {'mine': Mine()}",
        )
    if not hasattr(samples, "classes"):
        raise OptionError(
            "O03",
            f"the samples are a {type(samples).__name__}; expected photos with true "
            "labels, such as SceneSet(range(16))",
        )
    if not discrepancies or not len(samples):
        what = "photos" if discrepancies else "discrepancies"
        raise OptionError("O05", f"there are no {what} to compare; give at least one")
    cells = {
        name: Cell(
            segmenter.configured(mode=each)
            if isinstance(each, str)
            else segmenter.configured(discrepancy=each)
        )
        for name, each in discrepancies.items()
    }
    chosen = list(dict.fromkeys(cells.values()))
    size = max(1, min(batch_size, len(samples)))
    sweep = Sweep(segmenter.networks, samples.classes, chosen, batch_size=size)
    found: dict[Cell, list[Measurement]] = {cell: [] for cell in chosen}
    for first in range(0, len(samples), size):
        batch = range(first, min(first + size, len(samples)))
        measured = sweep.measure([samples.read(index) for index in batch], chosen)
        for cell, photos in measured.items():
            if isinstance(photos, SolverError):
                raise photos
            found[cell] += photos
    count = len(samples.classes)
    return {name: _summed(found[cell], count) for name, cell in cells.items()}


def _summed(photos: list[Measurement], num_classes: int) -> Compared:
    confusions = (photo.confusion for photo in photos)
    means = np.mean(
        [(photo.converged, photo.num_steps, photo.seconds) for photo in photos], axis=0
    )
    return Compared(sum(confusions, Confusion.empty(num_classes)), *means.tolist())
