"""What a target is: files to damage, and the function that reads them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple


class Base(NamedTuple):
    """A sound file, whose content is damaged.

    Attributes:
        content: What is damaged.
        seal: Makes the input of damaged content, such as a container around it, or
            checksums that fit again, so that more than the container is tried.
        is_json: Whether the content is JSON, whose values may be exchanged.
    """

    content: bytes
    seal: Callable[[bytes], bytes] = bytes
    is_json: bool = False


class Found(NamedTuple):
    """An input that once was a fault: another exception, or no end.

    Attributes:
        what: What was wrong.
        content: The input.
        outcome: What becomes of it now.
    """

    what: str
    content: bytes
    outcome: str


@dataclass(frozen=True)
class Target:
    """One reader and the files that are damaged for it.

    Args:
        bases: Sound files by their kind; each of them must be read.
        read: Reads an input, given a folder to write it to. Returns a word for what
            became of it where that is more than ``"read"``, and raises ``DsloError``
            to refuse it.
        tokens: Words of the format, which are put into inputs.
        prepare: Called once with the folder, before anything is read.
        found: Inputs that once were faults; every run reads them first.
    """

    bases: Mapping[str, Base]
    read: Callable[[bytes, Path], str | None]
    tokens: Sequence[bytes] = ()
    prepare: Callable[[Path], None] = lambda folder: None
    found: Sequence[Found] = ()
