"""Takes out of texts what does not belong on a page or in a log."""

import os
import re
import tempfile
from pathlib import Path


_TOKENS = re.compile(r"\b(hf|ghp|gho|github_pat|sk)_?[-_A-Za-z0-9]{16,}")


def redacted(text: str) -> str:
    """A text without tokens, and with short names for the folders of this machine.

    The home folder becomes ``~``, the folder of the packages ``...``, the current
    folder ``.``, and the folder for temporary files ``tmp``.
    """
    for folder, short in _folders():
        text = text.replace(folder, short)
    return _TOKENS.sub(r"\1_...", text)


def _folders() -> list[tuple[str, str]]:
    packages = Path(os.__file__).parent, Path(__file__).parents[2]
    named = [(str(each), "...") for each in packages]
    for find, short in (
        (Path.home, "~"),
        (Path.cwd, "."),
        (tempfile.gettempdir, "tmp"),
    ):
        try:
            named.append((str(find()), short))
        except (OSError, RuntimeError):  # no home, or the folder was removed
            continue
    known = [(folder, short) for folder, short in named if len(folder) > 1]
    return sorted(known, key=lambda each: -len(each[0]))  # the innermost first
