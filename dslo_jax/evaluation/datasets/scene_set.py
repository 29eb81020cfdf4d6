"""Drawn scenes as photos with truth."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from dslo_jax import scenes
from dslo_jax.evaluation.datasets.samples import Sample
from dslo_jax.images import Photo
from dslo_jax.prompts import ClassList, parse_classes


Protocol = Literal["all", "foreground"]
"""Whether every class counts, or those of ``scenes.FOREGROUND`` and a background."""


@dataclass(frozen=True)
class SceneSet:
    """The procedural scenes of some seeds, drawn as they are asked for.

    Args:
        seeds: Which scenes.
        protocol: ``"all"``: the 20 classes. ``"foreground"``: 13 things, and a
            background class 0 that is told by the names of all the rest, as in a
            21-class benchmark.
        size: Height and width of every scene; None lets the seeds choose. One size
            compiles far fewer programs than eight.
    """

    seeds: range
    protocol: Protocol = "all"
    size: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.seeds)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the samples, without drawing them."""
        return tuple(f"scene {seed}" for seed in self.seeds)

    def __iter__(self) -> Iterator[Sample]:
        return map(self.read, range(len(self)))

    def read(self, index: int) -> Sample:
        """Draw one scene."""
        scene = scenes.draw_scene(self.seeds[index], size=self.size)
        truth = scene.labels
        if self.protocol == "foreground":
            truth = scenes.foreground_labels(truth)
        photo = Photo(scene.pixels, None, (), False)
        return Sample(f"scene {self.seeds[index]}", photo, truth)

    @property
    def classes(self) -> ClassList:
        """The classes of the truth, each with its synonyms."""
        if self.protocol == "all":
            return parse_classes([each.names for each in scenes.CLASSES])
        things = [c for c in scenes.CLASSES if c.kind == "thing"]
        stuff = [name for c in scenes.CLASSES if c.kind == "stuff" for name in c.names]
        listed = parse_classes([stuff, *(thing.names for thing in things)])
        return dataclasses.replace(listed, background=0)

    def describe(self) -> dict[str, object]:
        """What the scenes depend on, for a report."""
        return {
            "name": "scenes",
            "version": scenes.VERSION,
            "protocol": self.protocol,
            "size": self.size and list(self.size),
            "first_seed": self.seeds.start,
            "photos": len(self),
        }
