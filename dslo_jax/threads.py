"""Work in threads whose results come in order and never pile up.

A stream of photos is read, segmented and written by one such step each, and each step
pulls from the one before it.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar


T = TypeVar("T")
R = TypeVar("R")


def map_ahead(
    function: Callable[[T], R],
    items: Iterable[T],
    *,
    threads: int,
    ahead: int,
    weigh: Callable[[R], int] | None = None,
    budget: int = 0,
) -> Generator[R, None, None]:
    """Apply a function to items in threads, ahead of the caller, and keep the order.

    Items are taken in the thread of the caller, so their iterator need not be thread
    safe. It is closed at the end, if it is a generator.

    Args:
        function: The function; it must be thread safe.
        items: Its arguments.
        threads: Number of threads.
        ahead: Greatest number of results that run or wait for the caller, at least 1.
        weigh: Weight of a result, such as its bytes. A result that is not ready yet
            counts as much as the mean of those before it.
        budget: Greatest weight of the results that run or wait; one result is allowed
            in any case. Without ``weigh`` it is not used.

    Yields:
        The results, in the order of the items.

    Raises:
        Exception: Whatever the function raises, in the place of its result.
    """
    todo = iter(items)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="dslo")
    waiting: deque[Future[R]] = deque()
    total = count = 0
    try:
        while True:
            while len(waiting) < ahead and (
                weigh is None
                or not waiting
                or _expected(waiting, weigh, total / max(count, 1)) <= budget
            ):
                try:
                    item = next(todo)
                except StopIteration:
                    break
                waiting.append(pool.submit(function, item))
            if not waiting:
                return
            result = waiting.popleft().result()
            if weigh is not None:
                total, count = total + weigh(result), count + 1
            yield result
            del result  # the caller alone decides how long it lives
    finally:
        pool.shutdown(cancel_futures=True)
        if isinstance(todo, Generator):
            todo.close()


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Divide items into lists of ``size`` consecutive ones; the last may be shorter."""
    batch: list[T] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _expected(
    waiting: Iterable[Future[R]], weigh: Callable[[R], int], typical: float
) -> float:
    """Weight of the results that run or wait, and of one more."""
    ready = [
        weigh(future.result()) if future.done() and future.exception() is None else None
        for future in waiting
    ]
    return typical + sum(typical if weight is None else weight for weight in ready)
