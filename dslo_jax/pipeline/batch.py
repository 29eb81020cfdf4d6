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

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Int32

from dslo_jax import images, ops
from dslo_jax.config import SegmenterConfig
from dslo_jax.images import Photo
from dslo_jax.pipeline import checks, programs
from dslo_jax.pipeline.networks import Networks
from dslo_jax.pipeline.programs import SolverInput, network_stage
from dslo_jax.pipeline.stages import Clock
from dslo_jax.prompts import ClassList
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


class Batch:
    """A batch of photos on its way to labels.

    Args:
        networks: Loaded, on their device.
        photos: At most ``size``, which CLIP sees at the same size.
        classes: All classes.
        size: Photos on the device; what is missing is filled with the last photo, so
            that no further shape compiles.
        clock: Told of every stage.
        affinity_name: Which source of affinities.
        memory: Shared by batches of the same photos.
    """

    def __init__(
        self,
        networks: Networks,
        photos: Sequence[Photo],
        classes: ClassList,
        *,
        size: int = 1,
        clock: Clock | None = None,
        affinity_name: str = "",
        memory: Memory | None = None,
    ):
        self.networks = networks
        self.photos = tuple(photos)
        self.padded = [*photos, *[photos[-1]] * (size - len(photos))]
        self.classes = classes
        self.clock = clock or Clock()
        self.affinity_name = affinity_name
        self.memory = memory or Memory()

    def grid(self, config: SegmenterConfig) -> tuple[int, int]:
        """Rows and columns of the maps."""
        return self.networks.grid(config.affinity, self.affinity_name)

    def text(self, config: SegmenterConfig) -> Array:
        """Features of all names."""
        templates = config.clip.templates
        names = self.classes.names
        return self.networks.embed(self.clock, names, templates)

    def features(self, config: SegmenterConfig) -> Array:
        """Features of the patches that CLIP sees."""
        options, network = config.clip, self.networks.logits
        stage = network_stage("features", network.module.stages[1])

        def compute() -> Array:
            size = clip_size(self.photos[0], config, network.module.patch_size)
            return stage(
                self.clock,
                network.state,
                self._resized(size, options.resample),
                graph=network.graph,
                attention=options.attention,
            )

        key = ("features", options.attention, options.short_side, options.resample)
        return self.memory.recall(key, compute)

    def logits(self, config: SegmenterConfig) -> Array:
        """Cosines of every class, on the grid of the affinity."""
        grid = self.grid(config)

        def compute() -> Array:
            index = np.asarray(self.classes.class_of_name, np.int32)
            return programs.LOGITS(
                self.clock,
                self.features(config),
                self.text(config),
                self.networks.put(index),
                num_classes=len(self.classes),
                grid=grid,
            )

        return self.memory.recall(("logits", config.clip, grid), compute)

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
            checks.check_logits(non_finite, self.classes.titles, self.padded)
            return given

        key = ("prepared", config.clip, config.source, self.grid(config))
        return self.memory.recall(key, compute)

    def encoded(self, config: SegmenterConfig) -> Any:
        """What the source of affinities makes of photos before it attends."""
        network = self.networks.encoder(config.affinity, self.affinity_name)
        stage = network_stage("encode", network.module.stages[0])

        def compute() -> Any:
            side = config.affinity.size
            pixels = self._resized((side, side), "area")
            return stage(self.clock, network.state, pixels, graph=network.graph)

        key = ("encoded", self.affinity_name, network.module.encoding)
        return self.memory.recall(key, compute)

    def affinity(self, config: SegmenterConfig) -> Array | None:
        """Attention between patches; ``None`` where the discrepancy needs none."""
        if not config.discrepancy.needs_affinity:
            return None
        network = self.networks.affinity(config.affinity, self.affinity_name)
        stage = network_stage("attend", network.module.stages[1])

        def compute() -> Array:
            encoded = self.encoded(config)
            return stage(self.clock, network.state, encoded, graph=network.graph)

        key = (self.affinity_name, config.affinity)
        return self.memory.recall_last("affinity", key, compute)

    def solved(self, config: SegmenterConfig) -> Solved:
        """The maps of the classes that survive early rejection.

        Raises:
            SolverError: A logit is not finite (``S01``), or a class has no solution
                (``S03``).
        """
        prepared_key = ("prepared", config.clip, config.source, self.grid(config))
        key = ("solved", prepared_key, config.affinity, config.discrepancy)
        key += (self.affinity_name,)
        return self.memory.recall(key, partial(self._solve, config))

    def labelled(self, config: SegmenterConfig, index: int) -> ops.PixelLabels:
        """The row of ``solved(config).order`` that wins each pixel of a photo."""
        solved, grid = self.solved(config), self.grid(config)
        folded, layout = self._fold(config, index)
        labelled = programs.LABELS(
            self.clock,
            self.networks.put(solved.solution.value[index]),
            self.networks.put(np.int32(solved.counts[index])),
            self.networks.put(folded),
            grid=grid,
            options=config.upsampling,
        )
        labelled = jax.device_get(labelled)
        if not isinstance(folded, ops.GuideCells):
            return labelled
        return ops.PixelLabels(*map(layout.unfold, labelled))

    def _solve(self, config: SegmenterConfig) -> Solved:
        given = self.prepared(config)
        order, counts = checks.choose_classes(jax.device_get(given.active))
        affinity = self.affinity(config)
        discrepancy = config.discrepancy
        if discrepancy.wants_counts:
            counts_of = checks.count(given, order, self.networks.device.platform)
            discrepancy = discrepancy.fitted(counts_of)
        values = given.logits if discrepancy.takes_logits else given.source
        before = self.clock.seconds_of("solver")
        solve = partial(
            programs.DISCREPANCY,
            self.clock,
            programs.CHOSEN(self.clock, values, self.networks.put(order)),
            affinity,
        )
        solution = jax.device_get(solve(discrepancy=discrepancy))
        unsolved = np.isnan(solution.error).any(axis=1)
        if unsolved.any() and discrepancy.fallback is not None:
            # Logarithms take as long to compile as all the rest, and few need them.
            second = jax.device_get(solve(discrepancy=discrepancy.fallback))
            solution = _choose_photos(unsolved, second, solution)
        checks.check_maps(solution, config.discrepancy, config.affinity)
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

    def _resized(self, size: tuple[int, int], method: images.ResizeMethod) -> Array:
        def resize() -> Array:
            pixels = (photo.pixels for photo in self.padded)
            resized = [images.resize_photo(p, size, method=method) for p in pixels]
            return self.networks.put(np.stack(resized))

        return self.clock.time("resize", resize)


def clip_size(
    photo: Photo, config: SegmenterConfig, patch_size: int
) -> tuple[int, int]:
    """Height and width at which CLIP sees a photo, in pixels."""
    size = photo.pixels.shape[:2]
    return images.short_side_size(size, config.clip.short_side, patch_size)


def _choose_photos(which: np.ndarray, these: Solution, those: Solution) -> Solution:
    """Photo by photo, ``these`` where ``which`` holds, elsewhere ``those``."""

    def leaf(this: np.ndarray, that: np.ndarray) -> np.ndarray:
        return np.where(np.expand_dims(which, tuple(range(1, this.ndim))), this, that)

    return jax.tree.map(leaf, these, those)
