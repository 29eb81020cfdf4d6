"""Which photos share a batch."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar


T = TypeVar("T")


def batches(items: Iterable[T], batch_size: int) -> Iterator[list[T]]:
    """Group items that follow each other; the same items give the same groups.

    Args:
        items: Taken one at a time.
        batch_size: Size of a group; the last may be smaller.

    Yields:
        Groups, in the order of the items.
    """
    rest = iter(items)
    while group := list(islice(rest, batch_size)):
        yield group
