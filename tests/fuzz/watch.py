"""What the process does while inputs are read: events, seconds, memory."""

import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


SECONDS = 60  # by the clock, for one input on a machine that has other work as well

_REFUSED = ("exec", "compile", "subprocess.Popen", "pickle.find_class", "os.system")
_REFUSED_ROOMS = ("socket.", "ctypes.", "urllib.", "os.exec", "os.spawn", "os.fork")
_WRITES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.truncate", "os.link")
_WRITES += ("os.symlink", "os.chmod", "os.chown", "shutil.rmtree", "shutil.move")
_READ_ONLY = os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_DIRECTORY", 0)


class TooSlow(BaseException):
    """An input has taken more than ``SECONDS``."""


class Watch:
    """Notes what no reader may do: run code, or write outside a folder.

    Args:
        folder: Where files may be written.
    """

    def __init__(self, folder: Path):
        self.events: list[str] = []
        self._folder, self._is_armed = str(folder), False
        sys.addaudithook(self._note)
        signal.signal(signal.SIGALRM, self._give_up)

    @contextmanager
    def armed(self) -> Iterator[None]:
        """Note events, and end after ``SECONDS``."""
        self._is_armed = True
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            self._is_armed = False

    def _note(self, event: str, arguments: tuple) -> None:
        if not self._is_armed:
            return
        if event == "open":
            path, mode, flags = arguments
            reads = flags & ~_READ_ONLY == 0 if mode is None else mode in ("r", "rb")
            is_refused = not reads and not self._is_inside(path)
        elif event in _WRITES:
            is_refused = not self._is_inside(arguments[0])
        elif event == "import":
            is_refused = arguments[0] not in sys.modules
        else:
            is_refused = event in _REFUSED or event.startswith(_REFUSED_ROOMS)
        if is_refused and len(self.events) < 100:
            self.events.append(f"{event} {arguments!r:.100}")

    def _is_inside(self, path: Any) -> bool:
        if isinstance(path, int):  # a file that is open
            return True
        return f"{os.path.abspath(os.fsdecode(path))}/".startswith(f"{self._folder}/")

    def _give_up(self, *_: object) -> None:
        raise TooSlow(f"more than {SECONDS} s")


def held(name: str = "VmRSS") -> int:
    """Bytes of memory of this process: ``VmRSS`` now, ``VmHWM`` at most so far.

    Zero where the system does not tell. ``ru_maxrss`` would be inherited from whoever
    started this process.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    found = re.search(rf"{name}:\s*(\d+)", status.read_text())
    return 1024 * int(found[1]) if found else 0
