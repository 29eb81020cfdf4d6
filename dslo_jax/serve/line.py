"""One task at a time, and a line of limited length before it."""

import logging
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from dslo_jax.devices import device_error
from dslo_jax.errors import DeviceError, DsloError, RequestError
from dslo_jax.pipeline.stages import Announce
from dslo_jax.serve.secrecy import redacted


_LOG = logging.getLogger(__name__)


class Waiting(NamedTuple):
    """A task waits for others.

    Attributes:
        before: How many tasks come first.
    """

    before: int


class Running(NamedTuple):
    """A stage of a task begins.

    Attributes:
        stage: Name of the stage.
        compiles: Whether it compiles first.
    """

    stage: str
    compiles: bool


class Done(NamedTuple):
    """A task has a result."""

    result: Any


class Failed(NamedTuple):
    """A task has no result."""

    error: DsloError


Event = Waiting | Running | Done | Failed
Work = Callable[[Announce], Any]
"""A task; it calls its argument as each of its stages begins."""


class Cancelled(Exception):
    """Nobody waits for the result of this task any more."""


class Busy(RequestError):
    """There is no room now (``V05``).

    Args:
        message: What there is too much of.
        seconds: When to try again.
    """

    def __init__(self, message: str, seconds: int):
        super().__init__("V05", f"{message}; try again in {seconds} s")
        self.seconds = seconds


class Task:
    """A task in a line.

    Args:
        work: What to do.
        tell: Called with every event, in the thread of the line or of the caller.
    """

    def __init__(self, work: Work, tell: Callable[[Event], None]):
        self.work, self.tell = work, tell
        self.is_cancelled = False
        self.place: int | None = None

    def announce(self, stage: str, compiles: bool) -> None:
        """Tell that a stage begins.

        Raises:
            Cancelled: Nobody waits for the task any more.
        """
        if self.is_cancelled:
            raise Cancelled
        self.tell(Running(stage, compiles))


class Line:
    """A thread that does one task after another, in the order of their arrival.

    Args:
        name: Name of the thread.
        most: Greatest number of tasks that wait.
    """

    def __init__(self, name: str, most: int):
        self._most = most
        self._waiting: deque[Task] = deque()
        self._spare: deque[Work] = deque()  # work for when nobody waits
        self._current: Task | None = None
        self._is_closed = False
        self._seconds = 0.1  # of a task, a moving mean
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def join(self, work: Work, tell: Callable[[Event], None]) -> Task:
        """Put a task at the end of the line.

        Args:
            work: What to do.
            tell: Called with every event; must not wait.

        Raises:
            Busy: The line is full.
        """
        task = Task(work, tell)
        with self._changed:
            if len(self._waiting) >= self._most or self._is_closed:
                raise Busy(
                    f"{len(self._waiting)} tasks wait already, the most that may",
                    self._patience,
                )
            self._waiting.append(task)
            self._changed.notify_all()
            if self._current is not None or len(self._waiting) > 1:
                self._tell_places()
        return task

    def when_idle(self, work: Work) -> None:
        """Do something when no task waits."""
        with self._changed:
            self._spare.append(work)
            self._changed.notify_all()

    def cancel(self, task: Task) -> None:
        """Take a task out of the line; one that runs ends before its next stage."""
        task.is_cancelled = True
        with self._changed:
            if task in self._waiting:
                self._waiting.remove(task)
                self._tell_places()

    @property
    def _patience(self) -> int:
        """Seconds after which another try has a chance, 1 to 60."""
        return min(60, 1 + int(self._seconds * len(self._waiting)))

    @property
    def num_waiting(self) -> int:
        """How many tasks wait."""
        return len(self._waiting)

    @property
    def num_spare(self) -> int:
        """How much is left to do when no task waits."""
        return len(self._spare)

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs or waits."""
        with self._changed:
            return self._current is None and not self._waiting and not self._spare

    def close(self, seconds: float = 5) -> None:
        """End the thread after its current stage; tasks that wait are forgotten."""
        with self._changed:
            self._is_closed = True
            self._spare.clear()
            for task in (*self._waiting, *filter(None, [self._current])):
                task.is_cancelled = True
            self._changed.notify_all()
        self._thread.join(seconds)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._waiting or self._spare or self._is_closed
                )
                if self._is_closed:
                    return
                if self._waiting:
                    task = self._waiting.popleft()
                else:
                    task = Task(self._spare.popleft(), lambda event: None)
                self._current = task
                self._tell_places()
            start = time.perf_counter()
            event = _outcome(task)
            if event is not None:
                task.tell(event)
            with self._changed:
                self._seconds += 0.2 * (time.perf_counter() - start - self._seconds)
                self._current = None
            del task, event  # a result lives no longer than whoever keeps it

    def _tell_places(self) -> None:
        for place, task in enumerate(self._waiting, self._current is not None):
            if task.place != place:
                task.place = place
                task.tell(Waiting(place))


def _outcome(task: Task) -> Done | Failed | None:
    """Do a task; ``None`` if it was cancelled."""
    if task.is_cancelled:
        return None
    try:
        return Done(task.work(task.announce))
    except Cancelled:
        return None
    except DsloError as error:
        return Failed(error)
    except MemoryError as error:
        return Failed(DeviceError.no_memory(error))
    except Exception as error:
        known = device_error(error)
        if known is not None:
            return Failed(known)
        _LOG.error("%s", redacted(traceback.format_exc()))
        return Failed(bug())


def bug() -> RequestError:
    """The error about a fault of this program."""
    return RequestError(
        "V08",
        "this is a bug in dslo-jax; the terminal of dslo serve shows where. The page "
        "goes on: try another photo or other options, and please report it",
    )
