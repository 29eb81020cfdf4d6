"""The steps from a batch of photos to labels, in one place.

A step takes a configuration and depends on some of its parts, which its docstring
names. What it computed is kept under these parts, so that many configurations on the
same photos share what they have in common: a sweep runs CLIP once for all solvers.

========== ==================================== =====================================
step       makes                                depends on
========== ==================================== =====================================
text       features of names                    ``clip.templates``
features   features of patches                  the rest of ``clip``
logits     cosines of classes, on the grid      ``clip``, ``affinity.size``
prepared   what a solver starts from            and ``source``
encoded    latents, or queries and keys         ``affinity``, as far as it matters
affinity   attention between patches            ``affinity``
solved     maps of the surviving classes        all of these and ``solver``
labelled   labels of the pixels                 and ``upsampling``
========== ==================================== =====================================
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Int32

from dslo_jax import ops
from dslo_jax.config import SegmenterConfig
from dslo_jax.images import Photo
from dslo_jax.pipeline import checks, programs
from dslo_jax.pipeline.programs import SolverInput
from dslo_jax.pipeline.stages import Clock
from dslo_jax.solvers import Solution


Guide = tuple[ops.GuideCells | np.ndarray, ops.CellLayout]


class Solved(NamedTuple):
    """The maps of a batch, on the host.

    Attributes:
        order: Index of every class that was solved for; padded, see ``counts``.
        counts: How many of them are no padding, per photo.
        solution: Maps and status of the classes in ``order``.
        seconds: Of the solver; compilation left out.
    """

    order: Int32[np.ndarray, "batch active"]
    counts: Int32[np.ndarray, " batch"]
    solution: Solution
    seconds: float


class Memory:
    """What was computed for the photos of a batch, by all that it depends on."""

    def __init__(self):
        self._known: dict[Hashable, Any] = {}
        self._last: dict[str, tuple[Hashable, Any]] = {}

    def recall(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """The result under a key, computed if it is not known."""
        if key not in self._known:
            self._known[key] = compute()
        return self._known[key]

    def recall_last(self, step: str, key: Hashable, compute: Callable[[], Any]) -> Any:
        """The same for results so large that a step keeps one of them only."""
        if step not in self._last or self._last[step][0] != key:
            self._last.pop(step, None)  # let go of the old one before the new one
            self._last[step] = key, compute()
        return self._last[step][1]


class Steps(ABC):
    """The steps from logits and an affinity to labels, wherever these two come from.

    Args:
        photos: At most ``size``.
        titles: What the classes are called.
        device: Where everything runs.
        size: Photos on the device; what is missing is filled with the last photo, so
            that no further shape compiles.
        clock: Told of every stage.
        memory: Shared by all that is done with the same photos.
    """

    def __init__(
        self,
        photos: Sequence[Photo],
        titles: Sequence[str],
        device: jax.Device,  # pyright: ignore[reportInvalidTypeForm]
        *,
        size: int = 1,
        clock: Clock | None = None,
        memory: Memory | None = None,
    ):
        self.photos = tuple(photos)
        self.padded = [*photos, *[photos[-1]] * (size - len(photos))]
        self.titles = tuple(titles)
        self.device = device
        self.clock = clock or Clock()
        self.memory = memory or Memory()

    @abstractmethod
    def grid(self, config: SegmenterConfig) -> tuple[int, int]:
        """Rows and columns of the maps."""

    @abstractmethod
    def logits(self, config: SegmenterConfig) -> Array:
        """``[batch classes patches]``: how well a class fits a patch."""

    @abstractmethod
    def affinity(self, config: SegmenterConfig) -> Array | None:
        """``[batch patches patches]``; ``None`` where the discrepancy needs none."""

    def solved_key(self, config: SegmenterConfig) -> tuple[Hashable, ...]:
        """All that the maps depend on."""
        return config.clip, config.source, config.affinity, config.discrepancy

    def put(self, tree: Any) -> Any:
        """Arrays on the device."""
        return jax.device_put(tree, self.device)

    def prepared(self, config: SegmenterConfig) -> SolverInput:
        """Rejection, suppression and normalisation of the logits.

        Raises:
            SolverError: A logit is NaN or infinite (``S01``).
        """

        def compute() -> SolverInput:
            given = programs.SOURCES(
                self.clock, self.logits(config), options=config.source
            )
            non_finite = jax.device_get(given.non_finite)
            checks.check_logits(non_finite, self.titles, self.padded)
            return given

        key = ("prepared", config.clip, config.source, self.grid(config))
        return self.memory.recall(key, compute)

    def solved(self, config: SegmenterConfig) -> Solved:
        """The maps of the classes that survive early rejection.

        Raises:
            SolverError: A logit is not finite (``S01``), or a class has no solution
                (``S03``).
        """
        key = ("solved", self.solved_key(config))
        return self.memory.recall(key, partial(self.solve, config))

    def labelled(self, config: SegmenterConfig, index: int) -> ops.PixelLabels:
        """The row of ``solved(config).order`` that wins each pixel of a photo."""
        solved, grid = self.solved(config), self.grid(config)
        folded, layout = self._fold(config, index)
        labelled = programs.LABELS(
            self.clock,
            self.put(solved.solution.value[index]),
            self.put(np.int32(solved.counts[index])),
            self.put(folded),
            grid=grid,
            options=config.upsampling,
        )
        labelled = jax.device_get(labelled)
        if not isinstance(folded, ops.GuideCells):
            return labelled
        return ops.PixelLabels(*map(layout.unfold, labelled))

    def solve(self, config: SegmenterConfig) -> Solved:
        """What ``solved`` keeps, computed anew."""
        given = self.prepared(config)
        order, counts = checks.choose_classes(jax.device_get(given.active))
        affinity = self.affinity(config)
        discrepancy = config.discrepancy
        if discrepancy.wants_counts:
            counts_of = checks.count(given, order, self.device.platform)
            discrepancy = discrepancy.fitted(counts_of)
        values = given.logits if discrepancy.takes_logits else given.source
        before = self.clock.seconds_of("solver")
        solve = partial(
            programs.DISCREPANCY,
            self.clock,
            programs.CHOSEN(self.clock, values, self.put(order)),
            affinity,
        )
        first, *others = discrepancy.attempts
        solution = jax.device_get(solve(discrepancy=first))
        for other in others:
            unsolved = np.isnan(solution.error).any(axis=1)
            if unsolved.any():
                again = jax.device_get(solve(discrepancy=other))
                solution = _choose_photos(unsolved, again, solution)
        checks.check_maps(
            solution, order, self.titles, config.discrepancy, config.affinity
        )
        seconds = self.clock.seconds_of("solver") - before
        return Solved(order, counts, solution, seconds)

    def _fold(self, config: SegmenterConfig, index: int) -> Guide:
        """A photo as the labels need it: by cells, or as it is."""
        photo, grid = self.photos[index], self.grid(config)
        dense = config.upsampling.upsampling == "dense"

        def compute() -> Guide:
            guide = photo.pixels.astype(np.float32) / 255.0
            layout = ops.cell_layout(guide.shape[:2], grid)
            if dense:
                return guide, layout
            return self.clock.time("fold", layout.fold, guide), layout

        return self.memory.recall(("guide", index, grid, dense), compute)


def _choose_photos(which: np.ndarray, these: Solution, those: Solution) -> Solution:
    """Photo by photo, ``these`` where ``which`` holds, elsewhere ``those``."""

    def leaf(this: np.ndarray, that: np.ndarray) -> np.ndarray:
        return np.where(np.expand_dims(which, tuple(range(1, this.ndim))), this, that)

    return jax.tree.map(leaf, these, those)
