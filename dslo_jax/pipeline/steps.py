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
confidence greatest probability of any name     those of ``logits``, and ``background``
========== ==================================== =====================================
"""

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any

import numpy as np

from dslo_jax import ops, tuning
from dslo_jax.areas import area_means
from dslo_jax.config import SegmenterConfig
from dslo_jax.images import Photo
from dslo_jax.pipeline import by_device, by_host, checks, programs
from dslo_jax.pipeline.background import (
    ClassLabels,
    check_background,
    find_unsure,
    label_classes,
)
from dslo_jax.pipeline.memory import Memory, Solved
from dslo_jax.pipeline.placement import ArrayOrShape, Placement
from dslo_jax.pipeline.programs import SolverInput
from dslo_jax.pipeline.stages import Clock


class Steps(ABC):
    """The steps from logits and an affinity to labels; subclasses supply these two.

    Attributes:
        solver: The program of the solver. An ``AdjustableSolver`` needs no other
            program for another threshold.
        asked: What the logits depend on besides photos and options: the classes.

    Args:
        photos: At most ``size`` photos.
        titles: Titles of the classes.
        placement: The device of all programs.
        size: Number of photos at once, rounded up to a multiple of the parts of the
            placement; the last photo is repeated up to this number, so that no further
            shape is compiled.
        clock: Collects the timings.
        memory: Keeps the results; may be shared by batches of the same photos.
        room: The sizes to solve with where the host does not decide; may be shared by
            all batches of a run.
        background: Index of the background class, if there is one.
    """

    solver: programs.Solver = programs.DISCREPANCY

    def __init__(
        self,
        photos: Sequence[Photo],
        titles: Sequence[str],
        placement: Placement,
        *,
        size: int = 1,
        clock: Clock | None = None,
        memory: Memory | None = None,
        room: by_device.Room | None = None,
        background: int | None = None,
    ):
        self.photos = tuple(photos)
        size = placement.padded(size)
        self.padded = [*photos, *[photos[-1]] * (size - len(photos))]
        self.titles = tuple(titles)
        self.asked: Hashable = self.titles
        self.placement = placement
        self.clock = clock or Clock()
        self.memory = memory or Memory()
        self.host_decides = tuning.host_decides(placement.platform)
        self._room = room or by_device.Room()
        self.background = background

    @abstractmethod
    def grid(self, config: SegmenterConfig) -> tuple[int, int]:
        """Rows and columns of the maps."""

    @abstractmethod
    def logits(self, config: SegmenterConfig) -> ArrayOrShape:
        """Logits ``[batch classes patches]``: the greater, the better a class fits."""

    @abstractmethod
    def affinity(self, config: SegmenterConfig) -> ArrayOrShape | None:
        """Affinity ``[batch patches patches]``; ``None`` if it is not needed."""

    def solved_key(self, config: SegmenterConfig) -> tuple[Hashable, ...]:
        """Key of the maps: everything that they depend on."""
        parts = config.clip, config.source, config.affinity, config.discrepancy
        return self.asked, *parts

    def confidence(self, config: SegmenterConfig) -> ArrayOrShape | np.ndarray | None:
        """Compute the greatest probability of any class ``[batch patches]``.

        Returns:
            ``None`` without a background threshold, which alone needs it. On the host,
            once it was fetched.
        """
        if not config.background.is_used:
            return None

        def compute() -> ArrayOrShape:
            logits, scale = self.logits(config), config.background.scale
            return programs.CONFIDENCE_OF_LOGITS(self.clock, logits, scale=scale)

        return self.memory.recall(self._confidence_key(config), compute)

    def prepared(self, config: SegmenterConfig) -> SolverInput:
        """Prepare the logits: early rejection, suppression, normalisation."""

        def compute() -> SolverInput:
            logits = self.logits(config)
            return programs.SOURCES(self.clock, logits, options=config.source)

        key = "prepared", self.asked, config.clip, config.source, self.grid(config)
        return self.memory.recall(key, compute)

    def start(self, config: SegmenterConfig) -> None:
        """Start everything up to the labels, without waiting for any result.

        The labels of large photos are not started. Where the host decides (see
        ``tuning.HOST_DECIDES_ON``), the batch is solved, and no label started.

        Raises:
            SolverError: As for ``solved``, where the host decides.
        """
        self.confidence(config)
        if self.host_decides:
            self.solved(config)
            return
        self._start_solver(config)
        if self._fits_together(config):
            self._start_labels(config)

    def solved(self, config: SegmenterConfig) -> Solved:
        """Compute the maps of the classes that survive early rejection.

        Raises:
            SolverError: A logit is not finite (``S01``), or a class has no solution
                (``S03``).
        """
        key = self._key("solved", config)
        return self.memory.recall(key, partial(self.solve, config))

    def forget_inputs(self, config: SegmenterConfig) -> None:
        """Free the memory of all steps before the maps, once these are started."""
        steps = ("solved", "started", "codes")
        keys = [self._key(step, config) for step in steps]
        self.memory.keep_only(*keys, self._confidence_key(config))

    def solve(self, config: SegmenterConfig) -> Solved:
        """Compute the result of ``solved``, without the memory."""
        if self.host_decides:
            solved = self._solve_by_host(config)
        else:
            solved = self._solve_by_device(config)
        found = solved.solution, solved.order, solved.counts
        checks.check_maps(*found, self.titles, config.discrepancy, config.affinity)
        return solved

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
        chosen = range(len(self.photos)) if which is None else which
        if config.upsampling.upsampling == "dense":
            return [self._dense(config, index) for index in chosen]
        self.solved(config)  # with the labels, if they were started
        if self.host_decides:
            canvases = (self._canvas(config, index) for index in chosen)
            return by_host.label(
                self.clock, self.placement, canvases, config.upsampling
            )
        if not self._fits_together(config):
            return [self._label_alone(config, index) for index in chosen]
        codes = self.placement.fetch(self._start_labels(config))
        self.memory.keep(self._key("codes", config), codes)
        return [
            self._put_back(config, index, [part[index] for part in codes])
            for index in chosen
        ]

    def class_labels(
        self, config: SegmenterConfig, which: Sequence[int] | None = None
    ) -> list[ClassLabels]:
        """Compute the labels of photos as indices of classes, with the background.

        Args:
            config: The options of the method.
            which: Indices of the photos; default: all.

        Raises:
            OptionError: There is a threshold, and no background class (``O05``).
        """
        check_background(config, self.background)
        chosen = range(len(self.photos)) if which is None else which
        labelled, solved = self.labelled(config, chosen), self.solved(config)
        sure = self.placement.fetch(self.confidence(config))

        def finish(index: int, found: ops.PixelLabels) -> ClassLabels:
            active, unsure = solved.order[index, : solved.counts[index]], None
            if sure is not None:
                place = self.grid(config), self.photos[index].pixels.shape[:2]
                unsure = find_unsure(sure[index], *place, config.background.threshold)
            return label_classes(found, active, unsure, self.background)

        return [finish(*pair) for pair in zip(chosen, labelled, strict=True)]

    def compile_programs(self, config: SegmenterConfig) -> None:
        """Compile the programs of a batch; its ``placement`` must be for shapes only.

        Where the host decides, programs whose shapes depend on results are left out.
        """
        if not self.host_decides:
            self.start(config)
            return
        self.confidence(config)
        given = self.prepared(config), self.affinity(config)
        options = config.discrepancy, config.upsampling
        by_host.compile_programs(self.clock, self.placement, *given, *options)

    def photo_layers(self, index: int, config: SegmenterConfig) -> ops.PhotoLayers:
        """The pixels of a photo as layers of the grid."""
        grid, coloured = self.grid(config), config.upsampling.is_coloured
        pixels = self.photos[index].pixels
        make = partial(ops.PhotoLayers, pixels, grid, coloured=coloured)
        return self.memory.recall(("layers", index, grid, coloured), make)

    def _key(self, step: str, config: SegmenterConfig) -> Hashable:
        """Key of the maps or of what is made of them."""
        labels = (config.upsampling,) if step == "codes" else ()
        return step, self.solved_key(config), *labels

    def _confidence_key(self, config: SegmenterConfig) -> Hashable:
        parts = config.clip, self.grid(config), config.background.scale
        return "confidence", self.asked, *parts

    def _solve_by_host(self, config: SegmenterConfig) -> Solved:
        given = self.prepared(config)
        non_finite = self.placement.fetch(given.non_finite)
        checks.check_logits(non_finite, self.titles, self.padded)
        inputs = given, self.affinity(config), config.discrepancy
        return by_host.solve(self.clock, self.placement, *inputs, self.solver)

    def _solve_by_device(self, config: SegmenterConfig) -> Solved:
        """Wait for the maps, and for the labels if these were started.

        A batch that needs more room than it had is started again.
        """
        keys = self._key("started", config), self._key("codes", config)
        sure = self.confidence(config)
        before = self.clock.seconds_of("solver")
        while True:
            sizes, started = self._start_solver(config)
            codes = self.memory.known(keys[1])
            found, host_codes, sure = self.placement.fetch((started, codes, sure))
            checks.check_logits(found.non_finite, self.titles, self.padded)
            needed = by_device.needed_sizes(found, sizes, config.discrepancy)
            if needed == sizes:
                break
            self._room.grow(self.solved_key(config), needed)
            self.memory.forget(*keys)
            if codes is not None:
                self.start(config)
        if codes is not None:
            self.memory.keep(keys[1], host_codes)
        if sure is not None:
            self.memory.keep(self._confidence_key(config), sure)
        seconds = self.clock.seconds_of("solver") - before
        return Solved(found.order, found.counts, found.solution, seconds)

    def _start_solver(
        self, config: SegmenterConfig
    ) -> tuple[by_device.Sizes, by_device.Started]:
        """Start everything up to the maps; the sizes that they are solved with."""

        def start() -> tuple[by_device.Sizes, by_device.Started]:
            given, affinity = self.prepared(config), self.affinity(config)
            sizes = self._room.sizes(self.solved_key(config), given)
            started = by_device.start_solver(
                *(self.clock, self.placement, given, affinity, config.discrepancy),
                sizes,
                self.solver,
            )
            return sizes, started

        return self.memory.recall(self._key("started", config), start)

    def _fits_together(self, config: SegmenterConfig) -> bool:
        """Whether the labels of all photos are computed together."""
        if config.upsampling.upsampling == "dense":
            return False
        photos = range(len(self.photos))
        most = max(self.photo_layers(index, config).total for index in photos)
        cells = math.prod(self.grid(config))
        return 3 * len(self.padded) * most * cells <= tuning.LAYERS_AHEAD

    def _start_labels(self, config: SegmenterConfig) -> list[Any]:
        """Start the labels of all photos; the codes of each call."""

        def start() -> list[Any]:
            values, counts = self._maps_on_device(config)
            last = len(self.photos) - 1
            photos = [
                self.photo_layers(min(index, last), config)
                for index in range(len(self.padded))
            ]
            most = max(photo.total for photo in photos)
            label = self._label_layers(values, counts, photos, config)
            return [label(call) for call in ops.divide_layers(most)]

        return self.memory.recall(self._key("codes", config), start)

    def _maps_on_device(self, config: SegmenterConfig) -> tuple[Any, Any]:
        started = self.memory.known(self._key("started", config))
        if started is not None:
            return started[1].solution.value, started[1].counts
        solved = self.solved(config)  # of a subclass that has maps of its own
        return self.placement.put_batch((solved.solution.value, solved.counts))

    def _label_layers(
        self,
        values: Any,
        counts: Any,
        photos: Sequence[ops.PhotoLayers],
        config: SegmenterConfig,
    ) -> Callable[[ops.Call], Any]:
        given = values, counts, photos, config.upsampling
        return partial(by_device.start_labels, self.clock, self.placement, *given)

    def _label_alone(self, config: SegmenterConfig, index: int) -> ops.PixelLabels:
        """Compute the labels of one large photo, with at most two calls at a time."""
        solved, photo = self.solved(config), self.photo_layers(index, config)
        copies = self.placement.padded(1)  # every device gets one
        values, counts = self.placement.put_batch(
            (solved.solution.value[[index] * copies], solved.counts[[index] * copies])
        )
        label = self._label_layers(values, counts, [photo] * copies, config)
        running, found = deque(), []
        for call in ops.divide_layers(photo.total):
            running.append(label(call))
            if len(running) > 1:
                found.append(self.placement.fetch(running.popleft())[0])
        found += [codes[0] for codes in self.placement.fetch(list(running))]
        return self._put_back(config, index, found)

    def _put_back(
        self, config: SegmenterConfig, index: int, codes: Sequence[np.ndarray]
    ) -> ops.PixelLabels:
        photo = self.photo_layers(index, config)
        return self.clock.time("fold", photo.put_back, np.concatenate(codes))

    def _canvas(self, config: SegmenterConfig, index: int) -> ops.Canvas:
        """A photo with its maps, and with its colours unless bilinear."""
        solved, grid = self.solved(config), self.grid(config)
        maps, pixels = solved.solution.value[index], self.photos[index].pixels
        means, measure = None, partial(area_means, pixels, grid)
        if config.upsampling.is_coloured:
            means = self.memory.recall(("guide", index, grid), measure)
        return by_host.canvas(maps[: solved.counts[index]], grid, pixels, means)

    def _dense(self, config: SegmenterConfig, index: int) -> ops.PixelLabels:
        """Compute the labels of one photo by dense upsampling."""
        solved, pixels = self.solved(config), self.photos[index].pixels
        given = solved.solution.value[index], int(solved.counts[index]), pixels
        place, grid = (self.clock, self.placement), self.grid(config)
        return by_host.label_densely(*place, *given, grid, config.upsampling)
