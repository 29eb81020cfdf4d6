"""A batch of photos whose logits and affinity come from networks."""

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, UInt8

from dslo_jax import images, ops, tuning
from dslo_jax.config import SegmenterConfig
from dslo_jax.images import Photo
from dslo_jax.logits import ClipOptions, Windows
from dslo_jax.pipeline import programs
from dslo_jax.pipeline.by_device import Room
from dslo_jax.pipeline.memory import Memory
from dslo_jax.pipeline.networks import Networks
from dslo_jax.pipeline.placement import ArrayOrShape, Placement
from dslo_jax.pipeline.programs import PhotoFeatures, network_stage
from dslo_jax.pipeline.sequences import cut_photo, sequence_lengths, turns
from dslo_jax.pipeline.stages import Clock
from dslo_jax.pipeline.steps import Steps
from dslo_jax.prompts import ClassList


class ScaledPhoto:
    """A photo, and its copies in the sizes of the networks.

    A copy is made when it is asked for and kept, so that a thread can make the copies
    before the photo joins a batch.

    Args:
        photo: The photo.
        clock: Gets the time of the copies.
    """

    def __init__(self, photo: Photo, clock: Clock | None = None):
        self.photo = photo
        self.clock = clock or Clock()
        self._copies: dict[Hashable, Any] = {}

    def patches(
        self, options: ClipOptions, sides: tuple[int, ...]
    ) -> tuple[ops.Patches, ...]:
        """The photo as sequences of patches; see ``sequences.cut_photo``."""
        key = _sequence_key(options), sides
        return self._copy(key, partial(cut_photo, options=options, sides=sides))

    def square(self, side: int) -> UInt8[np.ndarray, "side side 3"]:
        """The photo as a square, for sources of affinities."""
        area = partial(images.resize_photo, size=(side, side), method="area")
        return self._copy(side, area)

    def layers(self, grid: tuple[int, int], *, coloured: bool) -> ops.PhotoLayers:
        """The pixels as layers of a grid, for labels; see ``ops.PhotoLayers``."""
        key = "layers", grid, coloured
        if key not in self._copies:
            self._copies[key] = ops.PhotoLayers(
                self.photo.pixels, grid, coloured=coloured
            )
        return self._copies[key]

    def prepare(
        self,
        config: SegmenterConfig,
        sides: tuple[int, ...],
        *,
        layers_of: tuple[int, int] | None = None,
    ) -> None:
        """Make the copies that a configuration needs.

        Args:
            config: The configuration.
            sides: Sides of the patches of the source of logits; see ``Cuts``.
            layers_of: Grid whose layers the labels need; ``None`` if they need none.
        """
        self.patches(config.clip, sides)
        if config.discrepancy.needs_affinity:
            self.square(config.affinity.size)
        if layers_of is not None and self.photo.pixels.nbytes <= tuning.LAYERS_AHEAD:
            layers = self.layers(layers_of, coloured=config.upsampling.is_coloured)
            self.clock.time("fold", layers.make_all)

    def _copy(self, key: Hashable, make: Callable[[np.ndarray], Any]) -> Any:
        if key not in self._copies:
            self._copies[key] = self.clock.time("resize", make, self.photo.pixels)
        return self._copies[key]


class Batch(Steps):
    """The steps for a batch of photos, with logits and affinity from networks.

    Args:
        networks: The networks, on their device.
        photos: At most ``size`` photos of any sizes.
        classes: All classes.
        size: As for ``Steps``.
        clock: As for ``Steps``.
        affinity_name: Name of the source of affinities.
        memory: As for ``Steps``.
        room: As for ``Steps``.
        placement: The device, if not that of the networks.
    """

    def __init__(
        self,
        networks: Networks,
        photos: Sequence[Photo | ScaledPhoto],
        classes: ClassList,
        *,
        size: int = 1,
        clock: Clock | None = None,
        affinity_name: str = "",
        memory: Memory | None = None,
        room: Room | None = None,
        placement: Placement | None = None,
    ):
        clock = clock or Clock()
        self.scaled = [
            photo if isinstance(photo, ScaledPhoto) else ScaledPhoto(photo, clock)
            for photo in photos
        ]
        for scaled in self.scaled:
            if scaled.clock is not clock:
                clock.include(scaled.clock.timings)
        super().__init__(
            [scaled.photo for scaled in self.scaled],
            classes.titles,
            placement or networks.placement,
            size=size,
            clock=clock,
            memory=memory,
            room=room,
            background=classes.background,
        )
        self.networks = networks
        self.classes = self.asked = classes
        self.affinity_name = affinity_name

    def grid(self, config: SegmenterConfig) -> tuple[int, int]:
        """Rows and columns of the maps."""
        return self.networks.grid(config.affinity, self.affinity_name)

    def solved_key(self, config: SegmenterConfig) -> tuple[Hashable, ...]:
        """Key of the maps: everything that they depend on."""
        return (*super().solved_key(config), self.affinity_name)

    def photo_layers(self, index: int, config: SegmenterConfig) -> ops.PhotoLayers:
        """The pixels of a photo as layers, which may have been made before."""
        return self.scaled[index].layers(
            self.grid(config), coloured=config.upsampling.is_coloured
        )

    def text(self, config: SegmenterConfig) -> ArrayOrShape:
        """Compute the features of all names."""
        templates = config.clip.templates
        names = self.classes.names
        return self.networks.embed(self.clock, names, templates)

    def features(self, config: SegmenterConfig) -> PhotoFeatures:
        """Compute the source's features of the patches, of one photo after the other.

        A photo is in a sequence of its own length, whatever the others are. So its
        features do not depend on the photos that share its batch. Of several devices,
        each computes those of its own photos.
        """
        options = config.clip
        network = self.networks.source_of_logits(options.attention)
        stage = network_stage("features", network.module.stages[1])
        sides, output = network.module.cuts(options.attention)
        longest = sequence_lengths(options, sides[output])[-1]
        windows = Windows.of(options, sides)
        if windows is not None:
            together = tuning.windows_together(self.placement.platform)
            windows = windows._replace(output=output, together=together)

        def has_windows(photo: Sequence[ops.Patches]) -> bool:
            grids = [np.asarray(each.grid)[0].tolist() for each in photo]
            return windows is not None and windows.are_several(grids)

        def compute() -> PhotoFeatures:
            cut = [photo.patches(options, sides) for photo in self.scaled]
            kinds = [
                (has_windows(photo), *(each.pixels.shape[1] for each in photo))
                for photo in cut
            ]
            owned = self._owned()
            found: dict[tuple[int, int], Array] = {}
            for turn in turns(kinds, [list(dict.fromkeys(own)) for own in owned]):
                patches = jax.tree.map(
                    lambda *each: np.concatenate(each), *(cut[photo] for photo in turn)
                )
                features = stage(
                    self.clock,
                    network.state,
                    *self.placement.put_batch(patches),
                    graph=network.graph,
                    attention=options.attention,
                    longest=longest,
                    **({"windows": windows} if kinds[turn[0]][0] else {}),
                )
                found |= {pair: features for pair in enumerate(turn)}
            features = (
                self.placement.joined([found[pair] for pair in enumerate(slot)])
                for slot in zip(*owned, strict=True)
            )
            grids = np.concatenate(
                [cut[each][output].grid for own in owned for each in own]
            )
            return PhotoFeatures(tuple(features), self.placement.put_batch(grids))

        key = ("features", options.attention, _sequence_key(options))
        return self.memory.recall(key, compute)

    def logits(self, config: SegmenterConfig) -> ArrayOrShape:
        """Compute the cosines of every class, on the grid of the affinity."""
        grid = self.grid(config)

        def compute() -> ArrayOrShape:
            index = np.asarray(self.classes.class_of_name, np.int32)
            return programs.LOGITS(
                self.clock,
                self.features(config),
                self.text(config),
                self.placement.put(index),
                num_classes=len(self.classes),
                grid=grid,
            )

        return self.memory.recall(("logits", self.classes, config.clip, grid), compute)

    def confidence(self, config: SegmenterConfig) -> ArrayOrShape | np.ndarray | None:
        """Compute the greatest probability of any name; see ``Steps.confidence``."""
        if not config.background.is_used:
            return None
        grid, scale = self.grid(config), config.background.scale

        def compute() -> ArrayOrShape:
            photos, text = self.features(config), self.text(config)
            return programs.CONFIDENCE(self.clock, photos, text, scale=scale, grid=grid)

        return self.memory.recall(self._confidence_key(config), compute)

    def encoded(self, config: SegmenterConfig) -> Any:
        """Encode the photos with the source of affinities."""
        network = self.networks.encoder(config.affinity, self.affinity_name)
        stage = network_stage("encode", network.module.stages[0])

        def compute() -> Any:
            pixels = self._squares(config.affinity.size)
            return stage(self.clock, network.state, pixels, graph=network.graph)

        key = ("encoded", self.affinity_name, network.module.encoding)
        return self.memory.recall(key, compute)

    def affinity(self, config: SegmenterConfig) -> ArrayOrShape | None:
        """Compute the affinity; ``None`` if the discrepancy needs none."""
        if not config.discrepancy.needs_affinity:
            return None
        network = self.networks.affinity(config.affinity, self.affinity_name)
        stage = network_stage("attend", network.module.stages[1])

        def compute() -> ArrayOrShape:
            encoded = self.encoded(config)
            found = stage(self.clock, network.state, encoded, graph=network.graph)
            return self.placement.put_affinity(found)

        key = (self.affinity_name, config.affinity)
        return self.memory.recall_last("affinity", key, compute)

    def _owned(self) -> list[list[int]]:
        """For each part of the batch, its photos; the padding repeats the last one."""
        size, last = len(self.padded), len(self.scaled) - 1
        each = size // self.placement.parts
        return [
            [min(photo, last) for photo in range(first, first + each)]
            for first in range(0, size, each)
        ]

    def _squares(self, side: int) -> ArrayOrShape:
        squares = [photo.square(side) for photo in self.scaled]
        padding = len(self.padded) - len(squares)
        return self.placement.put_batch(np.stack(squares + squares[-1:] * padding))


def _sequence_key(options: ClipOptions) -> Hashable:
    """The options that the sequence of a photo depends on, and its windows."""
    size = options.short_side, options.shape, options.resample
    return *size, options.window, options.window_stride
