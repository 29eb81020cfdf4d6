"""A batch of photos whose logits and affinity come from networks."""

from collections.abc import Hashable, Sequence
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Array, UInt8

from dslo_jax import images
from dslo_jax.config import SegmenterConfig
from dslo_jax.images import Photo
from dslo_jax.pipeline import programs
from dslo_jax.pipeline.networks import Networks
from dslo_jax.pipeline.programs import network_stage
from dslo_jax.pipeline.stages import Clock
from dslo_jax.pipeline.steps import Memory, Steps
from dslo_jax.prompts import ClassList


class ScaledPhoto:
    """A photo, and its copies in the sizes of the networks.

    Copies are made when they are asked for and kept, so that a thread can make them
    before the photo joins a batch.

    Args:
        photo: The photo.
        clock: Gets the time of the copies.
    """

    def __init__(self, photo: Photo, clock: Clock | None = None):
        self.photo = photo
        self.clock = clock or Clock()
        self._copies: dict[Hashable, UInt8[np.ndarray, "height width 3"]] = {}

    def copy(
        self, size: tuple[int, int], method: images.ResizeMethod
    ) -> UInt8[np.ndarray, "height width 3"]:
        """The photo in another size; see ``images.resize_photo``."""
        key = size, method
        if key not in self._copies:
            resize = partial(images.resize_photo, method=method)
            self._copies[key] = self.clock.time(
                "resize", resize, self.photo.pixels, size
            )
        return self._copies[key]


class Batch(Steps):
    """The steps for a batch of photos, with logits and affinity from networks.

    Args:
        networks: The networks, on their device.
        photos: At most ``size`` photos that have the same size for CLIP.
        classes: All classes.
        size: As for ``Steps``.
        clock: As for ``Steps``.
        affinity_name: Name of the source of affinities.
        memory: As for ``Steps``.
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
            networks.device,
            size=size,
            clock=clock,
            memory=memory,
        )
        self.networks = networks
        self.classes = classes
        self.affinity_name = affinity_name

    def grid(self, config: SegmenterConfig) -> tuple[int, int]:
        """Rows and columns of the maps."""
        return self.networks.grid(config.affinity, self.affinity_name)

    def solved_key(self, config: SegmenterConfig) -> tuple[Hashable, ...]:
        """Key of the maps: everything that they depend on."""
        return (*super().solved_key(config), self.affinity_name)

    def text(self, config: SegmenterConfig) -> Array:
        """Compute the features of all names."""
        templates = config.clip.templates
        names = self.classes.names
        return self.networks.embed(self.clock, names, templates)

    def features(self, config: SegmenterConfig) -> Array:
        """Compute CLIP's features of the patches."""
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
        """Compute the cosines of every class, on the grid of the affinity."""
        grid = self.grid(config)

        def compute() -> Array:
            index = np.asarray(self.classes.class_of_name, np.int32)
            return programs.LOGITS(
                self.clock,
                self.features(config),
                self.text(config),
                self.put(index),
                num_classes=len(self.classes),
                grid=grid,
            )

        return self.memory.recall(("logits", config.clip, grid), compute)

    def encoded(self, config: SegmenterConfig) -> Any:
        """Encode the photos with the source of affinities."""
        network = self.networks.encoder(config.affinity, self.affinity_name)
        stage = network_stage("encode", network.module.stages[0])

        def compute() -> Any:
            side = config.affinity.size
            pixels = self._resized((side, side), "area")
            return stage(self.clock, network.state, pixels, graph=network.graph)

        key = ("encoded", self.affinity_name, network.module.encoding)
        return self.memory.recall(key, compute)

    def affinity(self, config: SegmenterConfig) -> Array | None:
        """Compute the affinity; ``None`` if the discrepancy needs none."""
        if not config.discrepancy.needs_affinity:
            return None
        network = self.networks.affinity(config.affinity, self.affinity_name)
        stage = network_stage("attend", network.module.stages[1])

        def compute() -> Array:
            encoded = self.encoded(config)
            return stage(self.clock, network.state, encoded, graph=network.graph)

        key = (self.affinity_name, config.affinity)
        return self.memory.recall_last("affinity", key, compute)

    def _resized(self, size: tuple[int, int], method: images.ResizeMethod) -> Array:
        copies = [photo.copy(size, method) for photo in self.scaled]
        padding = len(self.padded) - len(copies)
        return self.put(np.stack(copies + copies[-1:] * padding))


def scale_for(photo: ScaledPhoto, config: SegmenterConfig, networks: Networks) -> None:
    """Make the copies of a photo that ``Batch`` needs."""
    patch = networks.logits.module.patch_size
    photo.copy(clip_size(photo.photo, config, patch), config.clip.resample)
    if config.discrepancy.needs_affinity:
        side = config.affinity.size
        photo.copy((side, side), "area")


def clip_size(
    photo: Photo, config: SegmenterConfig, patch_size: int
) -> tuple[int, int]:
    """Height and width of a photo for CLIP, in pixels."""
    size = photo.pixels.shape[:2]
    return images.short_side_size(size, config.clip.short_side, patch_size)
