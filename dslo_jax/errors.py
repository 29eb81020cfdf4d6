"""Every error that a person can cause: a code, the value that caused it, and a remedy.

The codes are stable, so scripts may rely on them. Misuse of a function that only a
program can cause is a plain ``ValueError``.
"""

import difflib
import errno
import os
import reprlib
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Self, TypeVar


R = TypeVar("R")

_BRIEF = reprlib.Repr()
_BRIEF.maxstring = 100  # characters


class DsloError(ValueError):
    """An error that a person can cause and correct.

    Args:
        code: Stable identifier such as ``"I01"``.
        message: The value that was found, what was expected, and the remedy.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, code: str, message: str):
        super().__init__(f"[{code}] {message}")
        self.code = code


class OptionError(DsloError):
    """A bad option, configuration value or configuration file (``O..``)."""

    exit_code = 2


class ImageError(DsloError):
    """A photo that cannot be read or used (``I..``)."""

    exit_code = 3


class ClassListError(DsloError):
    """A list of class names or templates that cannot be used (``C..``)."""

    exit_code = 3


class CheckpointError(DsloError):
    """A checkpoint that is missing, damaged, unsafe or of another kind (``W..``)."""

    exit_code = 4


class SolverError(DsloError):
    """Logits or an affinity that no solver can use (``S..``)."""

    exit_code = 3


class DeviceError(DsloError):
    """A device that is absent or out of memory (``D..``)."""

    exit_code = 5

    @classmethod
    def no_memory(cls, error: MemoryError) -> Self:
        """The error about a photo for which the machine has too little memory."""
        return cls(
            "D01",
            f"this machine has too little memory for the photo ({error or 'no more'}); "
            "make the photo smaller, or free memory",
        )


class OutputError(DsloError):
    """Results that cannot be written (``O06``)."""

    exit_code = 6

    @classmethod
    def cannot_write(
        cls,
        path: str | os.PathLike[str],
        error: OSError,
        kept: str = "",
        remedy: str = "make room there, or choose another folder with --out",
    ) -> Self:
        """The error about a file or folder that cannot be written.

        Args:
            path: The file or folder.
            error: The error of the system.
            kept: Results that are already written, in words.
            remedy: The remedy, in words.
        """
        kept = kept and f"; {kept}"
        if isinstance(error, FileExistsError | NotADirectoryError):
            kept += "; a file is there, where a folder should be"
            remedy = remedy.removeprefix("make room there, or ")
        return cls(
            "O06",
            f"cannot write {os.fspath(path)!r}: {cause_of(error)}{kept}; {remedy}",
        )


class RequestError(DsloError):
    """A request that ``dslo serve`` refuses (``V..``)."""

    exit_code = 2


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that a device or the machine has no memory left.

    JAX, PyTorch and the system have no common type for this.
    """
    if isinstance(error, DeviceError):
        return error.code == "D01"
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    words = "RESOURCE_EXHAUSTED", "out of memory", "can't allocate memory"
    if any(word in str(error) for word in words):
        return True
    # All that a library of XLA for CPUs says where it could not allocate; without a
    # limit of memory, something else is wrong.
    return "YNNPACK operation failed: error" in str(error) and _has_memory_limit()


def _has_memory_limit() -> bool:
    """Whether this process may have only so much memory, as with ``ulimit -v``."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return False
    return resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY


def cause_of(error: BaseException) -> str:
    """The words of an error without the number and the path of the system."""
    return getattr(error, "strerror", None) or str(error)


def did_you_mean(
    name: str,
    known: Iterable[str],
    *,
    then: str = "",
    most: int = 1,
    key: Callable[[str], str] = str.casefold,
) -> str:
    """A question with the known names that are nearest to one; no question if none is.

    A known name is the nearest if the other begins with it, and at least half of the
    other is this beginning.

    Args:
        name: What was given.
        known: The names that exist.
        then: What to say after the question, or alone.
        most: Number of names, at most.
        key: The part of a name that is compared.
    """
    names: dict[str, list[str]] = {}
    for each in known:
        names.setdefault(key(each), []).append(each)
    begun = [
        each
        for each in names
        if key(name).startswith(each) and 2 * len(each) >= len(name)
    ]
    keys = begun or difflib.get_close_matches(key(name), names, most)
    near = [each for found in keys for each in names[found]][:most]
    question = f"did you mean {' or '.join(map(repr, near))}?" if near else ""
    return " ".join(filter(None, (question, then)))


def similar_files(path: str | os.PathLike[str]) -> str:
    """``did_you_mean`` for a file that does not exist: at most three of its folder."""
    folder, name = os.path.split(os.fspath(path))
    try:
        siblings = os.listdir(folder or os.curdir)
    except (OSError, ValueError):  # a folder that does not exist, or no path at all
        return ""
    # Without suffixes, because with them any two photos would be similar.
    return did_you_mean(
        name,
        sorted(siblings),
        most=3,
        key=lambda each: os.path.splitext(each)[0].casefold(),
    )


def brief(text: object) -> str:
    """The ``repr`` of a text, without the middle of a long one."""
    return _BRIEF.repr(text)


def attempt(function: Callable[..., R], *args: Any) -> R | DsloError:
    """The result of a function, or the error why a photo has none.

    Args:
        function: The function that works on one photo.
        *args: Its arguments.

    Returns:
        The result; or a ``DsloError``, also in the place of an ``OSError`` (``I03``)
        and of a ``MemoryError`` (``D01``).
    """
    try:
        return function(*args)
    except DsloError as error:
        return error
    except OSError as error:
        return ImageError("I03", f"cannot be read: {cause_of(error)}")
    except MemoryError as error:
        return DeviceError.no_memory(error)
