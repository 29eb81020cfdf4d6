"""Tensors in files: the table of their byte ranges, and reading one tensor.

A reader of any format makes the same kind of table: for each tensor, its name and the
bytes of a file that hold it. A transposed tensor, or a third of a tensor, has the same
bytes with other strides, so names and layouts are translated without reading numbers.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from dslo_jax.errors import CheckpointError
from dslo_jax.weights.packed import Packed, unpack


_KINDS = (
    "float64 float32 float16 int64 int32 int16 int8 uint64 uint32 uint16 uint8 bool"
)
DTYPES: Mapping[str, np.dtype] = MappingProxyType(
    {
        **{name: np.dtype(name).newbyteorder("<") for name in _KINDS.split()},
        "bfloat16": jnp.dtype(jnp.bfloat16),
    }
)
"""The types of number that are read, by their NumPy names."""


@contextmanager
def damage_in(path: Path, *others: type[Exception]) -> Iterator[None]:
    """Report a file that a reader cannot follow as damaged (``W04``).

    Args:
        path: The file, to be named in the error.
        others: Errors of a library that mean the same as a ``ValueError``.
    """
    try:
        yield
    except CheckpointError:
        raise
    except (ValueError, RecursionError, *others) as error:
        raise CheckpointError("W04", f"{path} is damaged: {error}") from error


class StoredTensor(NamedTuple):
    """A tensor in a file.

    Attributes:
        path: The file.
        offset: Position of the first number, in bytes: in the file, or in what
            ``packed`` unpacks to.
        dtype: Type of the numbers, little-endian.
        shape: Length of every axis.
        strides: Step along every axis, in numbers; not negative.
        packed: The compressed run of the file that holds it; None for plain bytes.
    """

    path: Path
    offset: int
    dtype: np.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    packed: Packed | None = None

    @classmethod
    def contiguous(
        cls, path: Path, offset: int, dtype: np.dtype, shape: tuple[int, ...]
    ) -> "StoredTensor":
        """Make a tensor in row-major order without gaps."""
        strides, step = [], 1
        for length in reversed(shape):
            strides.append(step)
            step *= length
        return cls(path, offset, dtype, shape, tuple(reversed(strides)))

    @property
    def span(self) -> int:
        """Number of elements from the first to the last one, both included."""
        if 0 in self.shape:
            return 0
        return 1 + sum(
            (n - 1) * step for n, step in zip(self.shape, self.strides, strict=True)
        )

    def transposed(self, *axes: int) -> "StoredTensor":
        """This tensor with its axes in another order."""
        return self._replace(
            shape=tuple(self.shape[axis] for axis in axes),
            strides=tuple(self.strides[axis] for axis in axes),
        )

    def rows(self, start: int, stop: int) -> "StoredTensor":
        """A part of this tensor along its first axis."""
        return self._replace(
            offset=self.offset + start * self.strides[0] * self.dtype.itemsize,
            shape=(stop - start, *self.shape[1:]),
        )

    def read(self) -> np.ndarray:
        """Read the numbers into new memory.

        Raises:
            CheckpointError: The file has become shorter, or what is compressed in it is
                damaged (``W04``).
        """
        wanted = self.span * self.dtype.itemsize
        data = self._bytes(wanted)
        if data.size != wanted:
            raise CheckpointError(
                "W04", f"{self.path} ended while it was read; download it again"
            )
        steps = [step * self.dtype.itemsize for step in self.strides]
        return np.ndarray(self.shape, self.dtype, buffer=data, strides=steps)

    def _bytes(self, count: int) -> np.ndarray:
        if self.packed is None:
            return np.fromfile(self.path, np.uint8, count=count, offset=self.offset)
        with damage_in(self.path):
            return unpack(self.path, self.packed, self.offset, count)


Table = dict[str, StoredTensor]
"""The tensors of a checkpoint by name."""


class Weights(Mapping[str, np.ndarray]):
    """The tensors of one checkpoint, read one at a time, the largest first.

    Every tensor is a new copy, and no file stays open between two reads. Files are
    read, not memory-mapped, so a tensor that was freed takes no memory.

    Args:
        table: The byte range of each tensor.
    """

    def __init__(self, table: Mapping[str, StoredTensor]):
        # Converting a tensor takes memory in proportion to its size. Large tensors come
        # first, while few parameters are in memory.
        self._table = dict(sorted(table.items(), key=lambda item: -item[1].span))

    def __getitem__(self, key: str) -> np.ndarray:
        return self._table[key].read()

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)
