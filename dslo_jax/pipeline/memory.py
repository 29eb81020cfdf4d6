"""The results of steps that are kept, and the one that comes to the host."""

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32

from dslo_jax.solvers import Solution


class Solved(NamedTuple):
    """The maps of a batch, on the host.

    Attributes:
        order: Index of every class that was solved for, and padding.
        counts: Number of classes of each photo that are not padding.
        solution: Maps and status of the classes in ``order``.
        seconds: Time of the solver, without compilation; 0 if nothing waited for it.
    """

    order: Int32[np.ndarray, "batch active"]
    counts: Int32[np.ndarray, " batch"]
    solution: Solution
    seconds: float


class Memory:
    """Results of the steps for the photos of one batch.

    The key of a result holds everything that the result depends on, except the photos.
    It is a tuple that begins with the name of the step.

    Args:
        most: Greatest number of results of each step that are kept; the one whose use
            is longest ago is forgotten first. ``None`` keeps all.
    """

    def __init__(self, most: int | None = None):
        self._most = most
        self._known: dict[Hashable, Any] = {}
        self._last: dict[str, tuple[Hashable, Any]] = {}

    def recall(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """Return the result of a key; compute it if it is not known."""
        if key not in self._known:
            self.keep(key, compute())
        elif self._most is not None:
            self._known[key] = self._known.pop(key)  # now the one that was used last
        return self._known[key]

    def recall_last(self, step: str, key: Hashable, compute: Callable[[], Any]) -> Any:
        """Return the result of a key; keep only the last one of each step.

        This is for large results, such as affinities.
        """
        if step not in self._last or self._last[step][0] != key:
            self._last.pop(step, None)  # free the old one before the new one is made
            self._last[step] = key, compute()
        return self._last[step][1]

    def known(self, key: Hashable) -> Any:
        """The result of a key; ``None`` if it is not known."""
        return self._known.get(key)

    def keep(self, key: Hashable, result: Any) -> None:
        """Keep a result, in the place of an earlier one of this key."""
        self._known.pop(key, None)
        self._known[key] = result
        if self._most is not None:
            alike = [each for each in self._known if _step(each) == _step(key)]
            self.forget(*alike[: -self._most])

    def forget(self, *keys: Hashable) -> None:
        """Forget the results of some keys."""
        for key in keys:
            self._known.pop(key, None)

    def keep_only(self, *keys: Hashable) -> None:
        """Forget all results but those of some keys."""
        self._known = {key: self._known[key] for key in keys if key in self._known}
        self._last = {}


def _step(key: Any) -> Any:
    """The name of the step that a key belongs to."""
    return key[0]
