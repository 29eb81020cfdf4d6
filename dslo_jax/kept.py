"""A photo that is kept with the results of the networks, for another try."""

from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any

import jax
import numpy as np

from dslo_jax import prompts
from dslo_jax.config import SegmenterConfig
from dslo_jax.images import Photo
from dslo_jax.model_info import ModelInfo
from dslo_jax.pairs import World
from dslo_jax.pipeline import AdjustableSolver, Batch, Memory, Networks, ScaledPhoto
from dslo_jax.pipeline.stages import Announce, Clock
from dslo_jax.points import PointMaps, check_points, solve_points, with_velocity
from dslo_jax.segmentation import Segmentation, assemble
from dslo_jax.small_world import world_logits, world_notes


_NO_WORDS = prompts.ClassList(())
_KEPT_RESULTS = 4  # of each step; they are small, except for affinities: one is kept


class KeptPhoto:
    """A photo that computes only what other words or options change.

    ``Segmenter.keep`` makes it. It is not thread safe.

    Args:
        networks: The networks.
        photo: The photo.
        configure: Makes a configuration from options by their flat names.
        model: Tells what the networks are, for the results.
        world: As for ``Segmenter``.
    """

    def __init__(
        self,
        networks: Networks,
        photo: Photo,
        configure: Callable[[Mapping[str, Any]], SegmenterConfig],
        *,
        model: Callable[[SegmenterConfig], ModelInfo | None],
        world: World | None = None,
    ):
        self.photo = photo
        self._networks = networks
        self._configure = configure
        self._model = model
        self._world = world
        self.forget()

    def forget(self) -> None:
        """Free the memory of all results; the next call computes them again."""
        self._scaled = ScaledPhoto(self.photo)
        self._memory = Memory(_KEPT_RESULTS)

    def __call__(
        self,
        classes: prompts.ClassList | Any,
        *,
        announce: Announce | None = None,
        **options: Any,
    ) -> Segmentation:
        """Segment the photo.

        Args:
            classes: As for ``Segmenter``.
            announce: Called as each stage begins, with its name and whether it compiles
                first. What it raises ends the call.
            **options: As for ``Segmenter``.

        Returns:
            The result. Its labels are those of ``Segmenter``; its maps may differ from
            those by the rounding of float32.

        Raises:
            ClassListError: The class list cannot be used.
            OptionError: An option is unknown or out of range.
            SolverError: The logits or the affinity have values that no solver can use.
            DeviceError: The device has too little memory (``D01``).
        """
        config = self._configure(options)
        listed = prompts.parse_classes(classes)
        clock = Clock(announce)
        batch = self._batch(listed, clock)
        batch.solver = AdjustableSolver(batch.placement)
        solved = batch.solved(config)
        (labelled,) = batch.class_labels(config)
        (photo,) = batch.photos
        return assemble(
            photo,
            listed,
            solved.order[0, : solved.counts[0]],
            jax.tree.map(itemgetter(0), solved.solution),
            labelled,
            grid=batch.grid(config),
            timings=clock.timings,
            config=config,
            model=self._model(config),
            notes=self._world_notes(batch, listed),
        )

    def prompt(
        self, points: Any, *, announce: Announce | None = None, **options: Any
    ) -> PointMaps:
        """Find what belongs to points; see ``Segmenter.prompt``.

        Args:
            points: As for ``Segmenter.prompt``.
            announce: As for a call.
            **options: As for ``Segmenter.prompt``.

        Raises:
            OptionError: As for ``Segmenter.prompt``.
            SolverError: The affinity has values that no solver can use (``S03``).
            DeviceError: The device has too little memory (``D01``).
        """
        config = self._configure(with_velocity(self._configure({}), None, options).flat)
        clicked = check_points(points, self.photo)
        clock = Clock(announce)
        batch = self._batch(_NO_WORDS, clock)
        affinity = batch.affinity(config)
        assert isinstance(affinity, jax.Array)  # a Markov chain always needs one
        grid = batch.grid(config)
        return solve_points(affinity, clicked, self.photo, grid, config, clock)

    def _batch(self, classes: prompts.ClassList, clock: Clock) -> Batch:
        return Batch(
            self._networks, [self._scaled], classes, clock=clock, memory=self._memory
        )

    def _world_notes(self, batch: Batch, classes: prompts.ClassList) -> tuple[str, ...]:
        if self._world is None:
            return ()
        logits = batch.placement.fetch(world_logits(self._world, batch))
        (notes,) = world_notes(self._world, classes, logits.astype(np.float32))
        return notes
