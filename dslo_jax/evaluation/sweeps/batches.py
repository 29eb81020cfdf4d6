"""Which photos share a batch."""

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TypeVar


T = TypeVar("T")


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
