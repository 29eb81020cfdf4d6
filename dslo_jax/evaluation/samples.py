"""Photos with truth: what a sweep is measured on."""

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import UInt8

from dslo_jax.demo import scenes
from dslo_jax.images import Photo
from dslo_jax.prompts import ClassList, parse_classes


Protocol = Literal["all", "foreground"]
"""Whether every class counts, or those of ``scenes.FOREGROUND`` and a background."""


class Sample(NamedTuple):
    """A photo and what it shows.

    Attributes:
        name: Tells it from the others of its data set.
        photo: The photo.
        truth: Label of every pixel of the photo; 255 is ignored.
    """

    name: str
    photo: Photo
    truth: UInt8[np.ndarray, "height width"]


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
        for name, seed in zip(self.names, self.seeds, strict=True):
            scene = scenes.draw_scene(seed, size=self.size)
            truth = scene.labels
            if self.protocol == "foreground":
                truth = scenes.foreground_labels(truth)
            yield Sample(name, Photo(scene.pixels, None, (), False), truth)

    @property
    def classes(self) -> ClassList:
        """The classes of the truth, each with its synonyms."""
        if self.protocol == "all":
            return parse_classes([_names(each) for each in scenes.CLASSES])
        things = [c for c in scenes.CLASSES if c.kind == "thing"]
        stuff = [
            name for c in scenes.CLASSES if c.kind == "stuff" for name in _names(c)
        ]
        return parse_classes([stuff, *map(_names, things)])

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


def batches(
    samples: Iterable[Sample], key: Callable[[Sample], Hashable], batch_size: int
) -> Iterator[list[Sample]]:
    """Group samples that may share a batch; the same samples give the same groups.

    Args:
        samples: Read one at a time; at most one incomplete group per key is held.
        key: Only samples with equal keys go together.
        batch_size: Size of a group; the last of a key may be smaller.

    Yields:
        Groups, in the order in which they fill up.
    """
    waiting: dict[Hashable, list[Sample]] = {}
    for sample in samples:
        group = waiting.setdefault(key(sample), [])
        group.append(sample)
        if len(group) == batch_size:
            yield waiting.pop(key(sample))
    yield from waiting.values()


def _names(each: scenes.SceneClass) -> tuple[str, ...]:
    return (each.name, *each.synonyms)
