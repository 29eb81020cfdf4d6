"""Steps that are replaced by the truth, to find the step that causes errors.

``"classes"``: exactly the classes of the photo survive early rejection.
``"seeds"``: the source of a class is uniform over the patches that are mostly this
class. ``"affinity"``: a patch attends equally to all patches of its own class.
``"map"``: the discrepancy of a class is 1 in the patches that are mostly this class.
``"shares"``: the discrepancy of a class is its share of the patch. With this and
``"map"``, only the upsampling causes errors.

The truth of a patch is that of the area of the photo under it.
"""

from collections.abc import Hashable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8

from dslo_jax import ops
from dslo_jax.config import SegmenterConfig
from dslo_jax.evaluation.datasets.samples import Sample
from dslo_jax.evaluation.metrics import IGNORE
from dslo_jax.evaluation.sweeps.cells import Cell
from dslo_jax.pipeline import (
    Batch,
    Memory,
    Networks,
    Solved,
    SolverInput,
    checks,
    programs,
)
from dslo_jax.pipeline.placement import ArrayOrShape
from dslo_jax.pipeline.stages import Stage
from dslo_jax.prompts import ClassList
from dslo_jax.solvers import Solution


# Attention to patches of other segments. It keeps the affinity positive, and is too
# small for a chain to leave its segment.
_LEAK = 1e-9


def class_shares(
    truth: UInt8[np.ndarray, "height width"], num_classes: int, grid: tuple[int, int]
) -> Float[np.ndarray, "classes patches"]:
    """Share of the area of every patch that belongs to each class.

    Args:
        truth: Labels of the pixels; 255 belongs to no class.
        num_classes: Number of classes.
        grid: Rows and columns of patches.

    Returns:
        Float32 shares; their sum in a patch is 1 minus its ignored part.
    """
    rows = ops.resize_weights(truth.shape[0], grid[0], "area")
    columns = ops.resize_weights(truth.shape[1], grid[1], "area")
    belongs = truth == np.arange(num_classes, dtype=truth.dtype)[:, None, None]
    return (rows @ belongs.astype(np.float32) @ columns.T).reshape(num_classes, -1)


def classes_of(
    truth: UInt8[np.ndarray, "height width"], num_classes: int
) -> Bool[np.ndarray, " classes"]:
    """True for each class that has a pixel in the photo."""
    return np.bincount(truth[truth != IGNORE], minlength=num_classes) > 0


def true_map(
    shares: Float[np.ndarray, "classes patches"],
) -> Float[np.ndarray, "classes patches"]:
    """1 in the patches that are mostly a class; 0 elsewhere, and in ignored patches."""
    best = shares.argmax(axis=0)
    one_hot = best == np.arange(len(shares))[:, None]
    return (one_hot & (shares.max(axis=0) > 0)).astype(np.float32)


def true_affinity(
    shares: Float[np.ndarray, "classes patches"],
) -> Float[np.ndarray, "patches patches"]:
    """The affinity of patches that attend equally to all patches of their class.

    Args:
        shares: From ``class_shares``. Ignored patches count as one class.

    Returns:
        Float32, rows sum to 1.
    """
    labels = np.where(shares.max(axis=0) > 0, shares.argmax(axis=0), IGNORE)
    same = labels[:, None] == labels[None, :]
    affinity = same / same.sum(axis=1, keepdims=True) + _LEAK
    return (affinity / affinity.sum(axis=1, keepdims=True)).astype(np.float32)


def true_seeds(
    source: Float[np.ndarray, "classes patches"],
    shares: Float[np.ndarray, "classes patches"],
) -> Float[np.ndarray, "classes patches"]:
    """The source of every class of the photo, uniform over its patches.

    Args:
        source: The estimated source; it is kept for classes that are not in the photo.
        shares: From ``class_shares``.

    Returns:
        Sources whose rows sum to 1. A class without a patch of its own has the patch
        with its largest share.
    """
    cells = true_map(shares)
    lost = (cells.sum(axis=1) == 0) & (shares.max(axis=1) > 0)
    cells[lost, shares[lost].argmax(axis=1)] = 1
    count = cells.sum(axis=1, keepdims=True)
    return np.where(count > 0, cells / np.maximum(count, 1), source).astype(np.float32)


class InformedBatch(Batch):
    """A batch of photos with steps that are replaced by the truth.

    Args:
        networks: As for ``Batch``.
        samples: Photos with their true labels.
        classes: As for ``Batch``.
        cell: Cell with the steps that are replaced, and the name of the attention.
        size: As for ``Batch``.
        memory: As for ``Batch``.
    """

    def __init__(
        self,
        networks: Networks,
        samples: Sequence[Sample],
        classes: ClassList,
        cell: Cell,
        *,
        size: int,
        memory: Memory,
    ):
        super().__init__(
            networks,
            [sample.photo for sample in samples],
            classes,
            size=size,
            affinity_name=cell.attention,
            memory=memory,
        )
        missing = size - len(samples)
        self._truths = [sample.truth for sample in [*samples, *[samples[-1]] * missing]]
        self._oracles = cell.oracles

    def prepared(self, config: SegmenterConfig) -> SolverInput:
        """As in ``Batch``, with the true classes and seeds if the cell wants them."""
        told = self._oracles & {"classes", "map", "shares", "seeds"}
        if not told:
            return super().prepared(config)
        key = ("prepared", config.clip, config.source, self.grid(config), told)
        return self.memory.recall(key, lambda: self._corrected(config))

    def affinity(self, config: SegmenterConfig) -> ArrayOrShape | None:
        """As in ``Batch``, or the true affinity."""
        if "affinity" not in self._oracles or not config.discrepancy.needs_affinity:
            return super().affinity(config)
        grid = self.grid(config)

        def compute() -> Array:
            truth = np.stack([true_affinity(each) for each in self._shares(grid)])
            return self.placement.put_batch(truth)

        return self.memory.recall_last("affinity", ("truth", grid), compute)

    def solved_key(self, config: SegmenterConfig) -> tuple[Hashable, ...]:
        """Everything that the maps depend on."""
        return (*super().solved_key(config), self._oracles)

    def solve(self, config: SegmenterConfig) -> Solved:
        """As in ``Batch``, or the true maps."""
        maps = self._oracles & {"map", "shares"}
        if not maps:
            return super().solve(config)
        active = self.placement.fetch(self.prepared(config).active)
        order, counts = checks.choose_classes(active)
        shares = self._shares(self.grid(config))
        if "map" in maps:
            shares = np.stack([true_map(each) for each in shares])
        values = np.take_along_axis(shares, order[:, :, None], axis=1)
        solution = jax.device_get(jax.vmap(Solution.exact)(jnp.asarray(values)))
        return Solved(order, counts, solution, 0.0)

    def _corrected(self, config: SegmenterConfig) -> SolverInput:
        given = super().prepared(config)
        if self._oracles & {"classes", "map", "shares"}:
            count = len(self.classes)
            present = [classes_of(truth, count) for truth in self._truths]
            given = programs.SOURCES(
                self.clock,
                given.logits,
                self.placement.put_batch(np.stack(present)),
                options=config.source,
            )
        if "seeds" in self._oracles:
            estimates = self.placement.fetch(given.source)
            shares = self._shares(self.grid(config))
            pairs = zip(estimates, shares, strict=True)
            seeds = np.stack([true_seeds(*pair) for pair in pairs])
            given = RESEED(self.clock, given, self.placement.put_batch(seeds))
        return given

    def _shares(self, grid: tuple[int, int]) -> np.ndarray:
        count = len(self.classes)

        def measure() -> np.ndarray:
            return np.stack([class_shares(t, count, grid) for t in self._truths])

        return self.memory.recall(("shares", grid), measure)


def with_sources(
    given: SolverInput, source: Float[Array, "batch classes patches"]
) -> SolverInput:
    """The solver input with other sources, whose mass is counted anew."""
    support, kept = programs.count_mass(source > 0, given.active)
    return given._replace(source=source, support=support, kept=kept)


RESEED = Stage("logits", with_sources)
