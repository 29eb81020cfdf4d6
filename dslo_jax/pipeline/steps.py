"""The steps from a batch of photos to labels.

A step takes a configuration, and depends only on some of its parts. Its result is kept
in a ``Memory`` under these parts, so that configurations on the same photos share the
steps that they have in common. For example, a sweep runs CLIP once for all solvers.

========== ==================================== =====================================
step       result                               parts of the configuration
========== ==================================== =====================================
text       features of names                    ``clip.templates``
features   features of patches                  the rest of ``clip``
logits     cosines of classes, on the grid      ``clip``, ``affinity.size``
prepared   input of a solver                    those of ``logits``, and ``source``
encoded    latents, or queries and keys         the part of ``affinity`` that it reads
affinity   affinity between patches             ``affinity``
solved     maps of the active classes           all of the above, and ``solver``
labelled   labels of the pixels                 those of ``solved``, and ``upsampling``
========== ==================================== =====================================
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Int32

from dslo_jax import ops
from dslo_jax.areas import area_means
from dslo_jax.config import SegmenterConfig
from dslo_jax.images import Photo
from dslo_jax.pipeline import checks, programs
from dslo_jax.pipeline.placement import Placement
from dslo_jax.pipeline.programs import SolverInput
from dslo_jax.pipeline.stages import Clock
from dslo_jax.solvers import Solution


class Solved(NamedTuple):
    """The maps of a batch, on the host.

    Attributes:
        order: Index of every class that was solved for, and padding.
        counts: Number of classes of each photo that are not padding.
        solution: Maps and status of the classes in ``order``.
        seconds: Time of the solver, without compilation.
    """

    order: Int32[np.ndarray, "batch active"]
    counts: Int32[np.ndarray, " batch"]
    solution: Solution
    seconds: float


class Memory:
    """Results of the steps for the photos of one batch.

    The key of a result holds everything that the result depends on.
    """

    def __init__(self):
        self._known: dict[Hashable, Any] = {}
        self._last: dict[str, tuple[Hashable, Any]] = {}

    def recall(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """Return the result of a key; compute it if it is not known."""
        if key not in self._known:
            self._known[key] = compute()
        return self._known[key]

    def recall_last(self, step: str, key: Hashable, compute: Callable[[], Any]) -> Any:
        """Return the result of a key; keep only the last one of each step.

        This is for large results, such as affinities.
        """
        if step not in self._last or self._last[step][0] != key:
            self._last.pop(step, None)  # free the old one before the new one is made
            self._last[step] = key, compute()
        return self._last[step][1]

    def keep_only(self, key: Hashable) -> None:
        """Forget all results but that of one key."""
        self._known = {key: self._known[key]}
        self._last = {}


class Steps(ABC):
    """The steps from logits and an affinity to labels; subclasses supply these two.

    Args:
        photos: At most ``size`` photos.
        titles: Titles of the classes.
        placement: The device of all programs.
        size: Number of photos at once, rounded up to a multiple of the parts of the
            placement; the last photo is repeated up to this number, so that no further
            shape is compiled.
        clock: Collects the timings.
        memory: Keeps the results; may be shared by batches of the same photos.
    """

    def __init__(
        self,
        photos: Sequence[Photo],
        titles: Sequence[str],
        placement: Placement,
        *,
        size: int = 1,
        clock: Clock | None = None,
        memory: Memory | None = None,
    ):
        self.photos = tuple(photos)
        size = placement.padded(size)
        self.padded = [*photos, *[photos[-1]] * (size - len(photos))]
        self.titles = tuple(titles)
        self.placement = placement
        self.clock = clock or Clock()
        self.memory = memory or Memory()

    @abstractmethod
    def grid(self, config: SegmenterConfig) -> tuple[int, int]:
        """Rows and columns of the maps."""

    @abstractmethod
    def logits(self, config: SegmenterConfig) -> Array:
        """Logits ``[batch classes patches]``: the greater, the better a class fits."""

    @abstractmethod
    def affinity(self, config: SegmenterConfig) -> Array | None:
        """Affinity ``[batch patches patches]``; ``None`` if it is not needed."""

    def solved_key(self, config: SegmenterConfig) -> tuple[Hashable, ...]:
        """Key of the maps: everything that they depend on."""
        return config.clip, config.source, config.affinity, config.discrepancy

    def _maps_key(self, config: SegmenterConfig) -> Hashable:
        return "solved", self.solved_key(config)

    def prepared(self, config: SegmenterConfig) -> SolverInput:
        """Prepare the logits: early rejection, suppression, normalisation.

        Raises:
            SolverError: A logit is NaN or infinite (``S01``).
        """

        def compute() -> SolverInput:
            given = programs.SOURCES(
                self.clock, self.logits(config), options=config.source
            )
            non_finite = self.placement.fetch(given.non_finite)
            checks.check_logits(non_finite, self.titles, self.padded)
            return given

        key = ("prepared", config.clip, config.source, self.grid(config))
        return self.memory.recall(key, compute)

    def solved(self, config: SegmenterConfig) -> Solved:
        """Compute the maps of the classes that survive early rejection.

        Raises:
            SolverError: A logit is not finite (``S01``), or a class has no solution
                (``S03``).
        """
        return self.memory.recall(self._maps_key(config), partial(self.solve, config))

    def forget_all_but_maps(self, config: SegmenterConfig) -> None:
        """Free the memory of all steps before ``solved``, which must have run."""
        self.memory.keep_only(self._maps_key(config))

    def labelled(
        self, config: SegmenterConfig, which: Sequence[int] | None = None
    ) -> list[ops.PixelLabels]:
        """Compute the labels of photos, on the host.

        Args:
            config: The options of the method.
            which: Indices of the photos; default: all.

        Returns:
            For each photo, at its own size: for every pixel a row of
            ``solved(config).order``, and whether it is tied.
        """
        options = config.upsampling
        chosen = range(len(self.photos)) if which is None else which
        if options.upsampling == "dense":
            return [self._dense(config, index) for index in chosen]
        solved, grid = self.solved(config), self.grid(config)
        bilinear = options.upsampling == "bilinear"
        spatial, colour = options.spatial_variance, options.range_variance
        variances = self.placement.put(np.array([spatial, colour], np.float32))
        form = "hat" if bilinear else ops.form_of(spatial, colour)
        elsewhere = 0.0

        def run(tile: ops.Tile) -> ops.PixelLabels:
            nonlocal elsewhere
            start = time.perf_counter()
            together = ops.units_together(
                tile.classes.shape[1], self.placement.platform
            )
            found = programs.LABELS(
                self.clock,
                self.placement.put(tile),
                variances,
                form=form,
                together=together,
            )
            elsewhere += time.perf_counter() - start
            return self.placement.fetch(found)

        self.clock.announce("fold")
        start = time.perf_counter()
        canvases = [
            self._canvas(solved, index, grid, bilinear=bilinear) for index in chosen
        ]
        found = ops.label_photos(canvases, run, radius=1 if bilinear else 2)
        self.clock.add("fold", time.perf_counter() - start - elsewhere)
        return found

    def solve(self, config: SegmenterConfig) -> Solved:
        """Compute the result of ``solved``, without the memory."""
        given = self.prepared(config)
        order, counts = checks.choose_classes(self.placement.fetch(given.active))
        affinity = self.affinity(config)
        discrepancy = config.discrepancy
        if discrepancy.wants_counts:
            needed = checks.count(given, order, counts, self.placement)
            discrepancy = discrepancy.fitted(needed)
        values = given.logits if discrepancy.takes_logits else given.source
        before = self.clock.seconds_of("solver")
        chosen = programs.CHOSEN(
            self.clock, values, *self.placement.put_batch((order, counts))
        )
        solve = partial(
            programs.DISCREPANCY,
            self.clock,
            self.placement.put_classes(chosen),
            affinity,
        )
        first, *others = discrepancy.attempts
        solution = self.placement.fetch(solve(discrepancy=first))
        for other in others:
            failed = np.isnan(solution.error) & checks.real_rows(order, counts)
            unsolved = failed.any(axis=1)
            if unsolved.any():
                again = self.placement.fetch(solve(discrepancy=other))
                solution = _choose_photos(unsolved, again, solution)
        checks.check_maps(
            solution, order, counts, self.titles, config.discrepancy, config.affinity
        )
        seconds = self.clock.seconds_of("solver") - before
        return Solved(order, counts, solution, seconds)

    def _canvas(
        self, solved: Solved, index: int, grid: tuple[int, int], *, bilinear: bool
    ) -> ops.Canvas:
        """A photo with its maps, and with its colours unless bilinear."""
        maps = solved.solution.value[index, : solved.counts[index]]
        values = np.asarray(maps, np.float32).reshape(-1, *grid)
        pixels = self.photos[index].pixels
        if bilinear:
            return ops.Canvas(values, pixels.shape[:2])
        means = self.memory.recall(
            ("guide", index, grid), partial(area_means, pixels, grid)
        )
        return ops.Canvas(values, pixels.shape[:2], ops.Colours(pixels, means))

    def _dense(self, config: SegmenterConfig, index: int) -> ops.PixelLabels:
        """Compute the labels of one photo by dense upsampling."""
        solved = self.solved(config)
        values = solved.solution.value[index]
        guide = self.photos[index].pixels.astype(np.float32) / 255.0
        labelled = programs.DENSE_LABELS(
            self.clock,
            *self.placement.put((values, np.int32(solved.counts[index]), guide)),
            grid=self.grid(config),
            options=config.upsampling,
        )
        return self.placement.fetch(labelled)


def _choose_photos(which: np.ndarray, these: Solution, those: Solution) -> Solution:
    """For each photo, take ``these`` where ``which`` is true, else ``those``."""

    def leaf(this: np.ndarray, that: np.ndarray) -> np.ndarray:
        return np.where(np.expand_dims(which, tuple(range(1, this.ndim))), this, that)

    return jax.tree.map(leaf, these, those)
