"""Things that are kept in bounded memory, under names nobody can guess."""

import secrets
import threading
from typing import Generic, NamedTuple, TypeVar


T = TypeVar("T")
_NAME_BYTES = 12  # 96 bits, so that nobody finds the result of somebody else


class _Kept(NamedTuple):
    thing: object
    num_bytes: int


class Store(Generic[T]):
    """Things by name; the one whose use is longest ago gives way to a new one.

    Args:
        most: Greatest number of things.
        most_bytes: Greatest size of all things; one thing is allowed in any case.
    """

    def __init__(self, most: int, most_bytes: int):
        self._most, self._most_bytes = most, most_bytes
        self._kept: dict[str, _Kept] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, name: str) -> bool:
        return name in self._kept

    @property
    def num_bytes(self) -> int:
        """Size of all things."""
        with self._lock:
            return self._total()

    def add(self, thing: T, num_bytes: int, name: str = "") -> str:
        """Keep a thing.

        Args:
            thing: The thing.
            num_bytes: Its size.
            name: Its name; default: a new one that nobody can guess.

        Returns:
            Its name.
        """
        name = name or secrets.token_urlsafe(_NAME_BYTES)
        with self._lock:
            self._kept.pop(name, None)
            self._kept[name] = _Kept(thing, num_bytes)
            while len(self._kept) > 1 and (
                len(self._kept) > self._most or self._total() > self._most_bytes
            ):
                del self._kept[next(iter(self._kept))]
        return name

    def find(self, name: str) -> T | None:
        """The thing of a name, which is now the last used; ``None`` if it is gone."""
        with self._lock:
            kept = self._kept.pop(name, None)
            if kept is None:
                return None
            self._kept[name] = kept
            return kept.thing  # pyright: ignore[reportReturnType]

    def things(self) -> list[T]:
        """All things, the last used one at the end."""
        with self._lock:
            return [kept.thing for kept in self._kept.values()]  # pyright: ignore

    def _total(self) -> int:
        return sum(kept.num_bytes for kept in self._kept.values())
