"""Photos with truth: what a sweep is measured on."""

import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from dslo_jax.images import Photo
from dslo_jax.prompts import ClassList


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
class Part:
    """Some samples of a data set, which are measured apart from the others.

    Args:
        samples: The data set.
        indices: Which of its samples, in increasing order.
    """

    samples: SampleSet
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of these samples."""
        names = self.samples.names
        return tuple(names[index] for index in self.indices)

    @property
    def classes(self) -> ClassList:
        """The classes of the data set, shown by these samples or not."""
        return self.samples.classes

    def read(self, index: int) -> Sample:
        """Read one sample."""
        return self.samples.read(self.indices[index])

    def describe(self) -> dict[str, object]:
        """The whole data set."""
        return self.samples.describe()
