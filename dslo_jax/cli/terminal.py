"""The terminal of the commands: output, progress, and interruption by Ctrl-C."""

import contextlib
import logging
import math
import os
import signal
import sys
import threading
import time
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from dslo_jax.errors import DsloError
from dslo_jax.evaluation.sweeps.run import Watch


_BIDI = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
_PATIENCE = 5.0  # seconds between two lines about the progress

Scores = Callable[[], dict[str, float]]


def say(console: Console, words: str) -> None:
    """Print words; control characters from file names and photos are escaped."""
    safe = "\n".join(map(escaped, words.split("\n")))
    encoding = console.encoding
    safe = safe.encode(encoding, "backslashreplace").decode(encoding)
    console.print(safe, markup=False)


def escaped(text: str) -> str:
    """Escape control characters, surrogates and characters that change the direction.

    Invisible characters that words and emoji need (joiners) are kept.
    """
    return "".join(
        ascii(char)[1:-1]
        if unicodedata.category(char) in ("Cc", "Cs")
        or unicodedata.bidirectional(char) in _BIDI
        else char
        for char in text
    )


def one_line(path: Path | str) -> str:
    """A path on one line; control characters are escaped."""
    return escaped(str(path))


class _Stream(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # ``main`` chooses the exit code


@contextmanager
def told(console: Console) -> Iterator[None]:
    """Print the log of this package, such as downloads, as plain lines.

    Warnings of Pillow are not printed: they name no photo, and are about metadata.
    """
    handler = _Lines(console)
    logger = logging.getLogger("dslo_jax")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\b")
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


class _Lines(logging.Handler):
    def __init__(self, console: Console):
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        say(self._console, record.getMessage())


def warn_of_padding(batch: int, parts: int) -> None:
    """Warn that some devices will repeat what others do.

    Args:
        batch: Photos at once.
        parts: Number of devices that share them.
    """
    if batch % parts:
        padded = -(-batch // parts) * parts
        logging.getLogger(__name__).warning(
            "warning: %d devices share the photos of a batch, and --batch is %d: every "
            "batch is padded to %d photos; a multiple of %d wastes nothing",
            *(parts, batch, padded, parts),
        )


def results(*, soft_wrap: bool = True) -> Console:
    """The console of results; all other output goes to the console of errors."""
    return _Stream(highlight=False, soft_wrap=soft_wrap)


def errors() -> Console:
    """The console of everything but results: progress, notes, errors."""
    return _Stream(stderr=True, highlight=False, soft_wrap=True)


def open_streams() -> None:
    """Give streams that are closed (``>&-``) a place to go.

    Without this, the next file that is opened would take their number, and what a
    library prints would be written into that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number


def close_streams() -> None:
    """Drop what could not be written, so that Python does not try again at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            with contextlib.suppress(OSError, ValueError):
                os.dup2(nowhere, stream.fileno())


def bar(console: Console) -> Progress:
    """A progress bar on a terminal; no output elsewhere."""
    return Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


class Measuring:
    """Progress of a run over a data set: a bar on a terminal, plain lines elsewhere.

    Args:
        console: The console of the progress.
        total: Expected number of photos.
        known: Number of photos that an earlier run has measured.
        scores: Function that returns the mIoU so far, by name.
        things: Name of the things that are counted.
    """

    def __init__(
        self,
        console: Console,
        total: int,
        known: int,
        scores: Scores,
        things: str = "photos",
    ):
        self._console, self._known, self._scores = console, known, scores
        self._things = things
        self._start = self._last = time.monotonic()
        self._told: set[str] = set()  # stages whose compilation got a line
        self._words = things
        self._compiled: tuple[float, int] | None = None  # when the first batch was done
        self._bar = bar(console)
        self._task = self._bar.add_task(self._words, total=total)

    def __enter__(self) -> "Measuring":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` are done."""
        now = time.monotonic()
        words = [f"{name} {score}" for name, score in self._percent().items()]
        if self._known < done:
            words += self._time_to_go(done, total, now)
        self._words = ", ".join(words)
        self._bar.update(
            self._task, completed=done, total=total, description=self._words
        )
        if done == total or now - self._last > _PATIENCE:
            passed = f"{now - self._start:.0f} s"
            self._line(", ".join([f"{done}/{total} {self._things}", passed, *words]))

    def _time_to_go(self, done: int, total: int, now: float) -> list[str]:
        """The time to go, in words; the first batch, which compiles, does not count."""
        since, before = self._compiled or (self._start, self._known)
        self._compiled = self._compiled or (now, done)
        if done in (total, before):
            return []
        bound = "at most " if before == self._known else ""
        rate = (now - since) / (done - before)
        return [f"{bound}{_duration(rate * (total - done))} to go"]

    def stage(self, stage: str, compiles: bool) -> None:
        """Show that a stage begins, and whether it compiles first.

        Without a terminal, a line is printed for the first shape of each stage, and for
        later shapes at most once in five seconds.
        """
        words = f"compiling {stage} (once per shape)" if compiles else self._words
        self._bar.update(self._task, description=words)
        overdue = time.monotonic() - self._last > _PATIENCE
        if compiles and (overdue or stage not in self._told):
            self._told.add(stage)
            self._line(words)

    def skipped(self, name: str, error: DsloError) -> None:
        """Print that a photo cannot be read."""
        say(self._console, f"skipped {escaped(name)}: {error}")

    def _line(self, words: str) -> None:
        if not self._console.is_terminal:
            self._last = time.monotonic()
            say(self._console, words)

    def _percent(self) -> dict[str, str]:
        return {
            name: f"{100 * score:.1f}"
            for name, score in self._scores().items()
            if not math.isnan(score)
        }


class Terminated(KeyboardInterrupt):
    """The end of a run that was asked for by the signal SIGTERM."""


@contextmanager
def interruptible(console: Console, watch: Watch) -> Iterator[Watch]:
    """Stop after the current photos at the first signal, and at once at the second.

    The signals are Ctrl-C (SIGINT) and SIGTERM, which job schedulers send.

    Args:
        console: The console of the message at the first signal.
        watch: Called with the progress.

    Yields:
        A function like ``watch``, which raises ``KeyboardInterrupt`` after a signal;
        after SIGTERM, it raises ``Terminated``.
    """
    asked: list[type[KeyboardInterrupt]] = []

    def ask(number: int, _: object) -> None:
        reason = Terminated if number == signal.SIGTERM else KeyboardInterrupt
        if asked:
            raise reason
        asked.append(reason)
        say(
            console,
            "finishing what is being written; press Ctrl-C again to stop at once. "
            "The same command continues from here",
        )

    def watch_and_stop(done: int, total: int) -> None:
        watch(done, total)
        if asked:
            raise asked[0]

    if threading.current_thread() is not threading.main_thread():
        yield watch  # only the main thread may handle signals
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, ask) for number in numbers]
    try:
        yield watch_and_stop
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
