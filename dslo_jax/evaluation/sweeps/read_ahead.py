"""Photos read in threads while the device is busy with those before them."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from dslo_jax.errors import DsloError, ImageError


T = TypeVar("T")
_THREADS = 4


def read_ahead(
    read: Callable[[int], T], indices: Iterable[int], *, ahead: int
) -> Generator[T | DsloError, None, None]:
    """Read what belongs to some indices, in their order, in a few threads.

    Args:
        read: Thread safe.
        indices: What to read.
        ahead: At most this many results are held that nobody has asked for yet.

    Yields:
        What was read, or why it could not be: a ``DsloError``, also in place of an
        ``OSError``.
    """
    todo = iter(indices)
    pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="read")
    try:
        waiting: deque[Future[T | DsloError]] = deque(
            pool.submit(_attempt, read, index) for index in islice(todo, ahead)
        )
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(_attempt, read, i) for i in islice(todo, 1))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)


def _attempt(read: Callable[[int], T], index: int) -> T | DsloError:
    try:
        return read(index)
    except DsloError as error:
        return error
    except OSError as error:
        return ImageError("I03", f"cannot be read: {error}")
