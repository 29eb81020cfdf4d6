"""Every error a person can cause, with a code, the value that caused it and a remedy.

The codes are stable: scripts may match on them. Misuse of a function's arguments that
no file, photo or option of a person can cause is a plain ``ValueError``.
"""

import os
from typing import ClassVar, Self


class DsloError(ValueError):
    """An error that a person can mend.

    Args:
        code: Stable identifier such as ``"I01"``.
        message: What was found, what was expected, and the remedy.
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
    """A checkpoint that is missing, foreign, damaged or unsafe (``W..``)."""

    exit_code = 4


class SolverError(DsloError):
    """Logits or an affinity that no solver can use (``S..``)."""

    exit_code = 3


class DeviceError(DsloError):
    """A device that is absent or out of memory (``D..``)."""

    exit_code = 5


class OutputError(DsloError):
    """Results that the disk refuses (``O06``)."""

    exit_code = 6

    @classmethod
    def cannot_write(
        cls,
        path: str | os.PathLike[str],
        error: OSError,
        kept: str = "",
        remedy: str = "make room there, or choose another folder with --out",
    ) -> Self:
        """What to tell about a file or folder that cannot be written.

        Args:
            path: The file or folder.
            error: What the system says.
            kept: What is safe all the same, in words.
            remedy: What to do, in words.
        """
        kept = kept and f"; {kept}"
        return cls(
            "O06",
            f"cannot write {os.fspath(path)!r}: {error.strerror or error}{kept}; "
            f"{remedy}",
        )
