"""Lists of paths in a text file or on standard input."""

import os
import sys
from pathlib import Path

from dslo_jax.errors import ImageError, cause_of
from dslo_jax.files import utf8_of
from dslo_jax.images.reading import no_such_path


def read_name_list(source: str | os.PathLike[str]) -> list[str]:
    """Read a list of paths, one a line, or with NUL characters between them.

    Lines may end as on Windows, and the file may begin with a byte order mark, also
    that of UTF-16. Names whose bytes are no UTF-8 stay usable. Empty lines are left
    out; every other character belongs to the name.

    Args:
        source: Path of the list, or ``-`` for standard input.

    Returns:
        The names, in their order.

    Raises:
        ImageError: The list cannot be read, or names nothing (``I01``).
    """
    text = os.fspath(source)
    where = "the list on standard input" if text == "-" else f"the list {text!r}"
    try:
        content = sys.stdin.buffer.read() if text == "-" else Path(text).read_bytes()
        names = _names(content)
    except FileNotFoundError as error:
        raise no_such_path(Path(text)) from error
    except (OSError, ValueError, AttributeError) as error:  # there may be no stdin
        raise ImageError("I01", f"cannot read {where}: {cause_of(error)}") from error
    if not names:
        raise ImageError("I01", f"{where} names no photo; write one path a line")
    return names


def _names(content: bytes) -> list[str]:
    content = utf8_of(content)
    if b"\0" in content:
        names = content.split(b"\0")
    else:
        names = [line.removesuffix(b"\r") for line in content.split(b"\n")]
    return [os.fsdecode(name) for name in names if name]
