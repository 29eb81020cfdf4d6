"""Photos with truth: what a sweep is measured on."""

import typing
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import numpy as np
from jaxtyping import UInt8

from dslo_jax import scenes
from dslo_jax.images import Photo
from dslo_jax.prompts import ClassList, parse_classes


T = TypeVar("T")
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


@typing.runtime_checkable
class SampleSet(typing.Protocol):
    """Photos with truth, each read when it is asked for."""

    @property
    def names(self) -> tuple[str, ...]:
        """Unique names in a fixed order, known before anything is read."""
        ...

    @property
    def classes(self) -> ClassList:
        """The classes of the truth, each with its synonyms."""
        ...

    def __len__(self) -> int: ...

    def read(self, index: int) -> Sample:
        """Read the sample of ``names[index]``; from several threads at once.

        Raises:
            DsloError: The photo or its truth is missing or damaged.
        """
        ...

    def describe(self) -> dict[str, object]:
        """What a measurement on these samples depends on, as plain values."""
        ...


@dataclass(frozen=True)
class First:
    """The first samples of a data set.

    Args:
        samples: The data set.
        count: How many of its samples, at least 1; all if it has fewer.
    """

    samples: SampleSet
    count: int

    def __len__(self) -> int:
        return min(self.count, len(self.samples))

    @property
    def names(self) -> tuple[str, ...]:
        """The first names."""
        return self.samples.names[: self.count]

    @property
    def classes(self) -> ClassList:
        """The classes of the data set, shown by these samples or not."""
        return self.samples.classes

    def read(self, index: int) -> Sample:
        """Read one sample."""
        return self.samples.read(index)

    def describe(self) -> dict[str, object]:
        """The data set, and how many of its photos are meant."""
        return self.samples.describe() | {"photos": len(self)}


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
    items: Iterable[T], key: Callable[[T], Hashable], batch_size: int
) -> Iterator[list[T]]:
    """Group items that may share a batch; the same items give the same groups.

    Args:
        items: Taken one at a time; at most one incomplete group per key is held.
        key: Only items with equal keys go together.
        batch_size: Size of a group; the last of a key may be smaller.

    Yields:
        Groups, in the order in which they fill up.
    """
    waiting: dict[Hashable, list[T]] = {}
    for item in items:
        group = waiting.setdefault(key(item), [])
        group.append(item)
        if len(group) == batch_size:
            yield waiting.pop(key(item))
    yield from waiting.values()


def _names(each: scenes.SceneClass) -> tuple[str, ...]:
    return (each.name, *each.synonyms)
