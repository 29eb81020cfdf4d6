"""Types of options that may be left out, and what ``--help`` shows for their value."""

from pathlib import Path
from typing import Annotated

import tyro


def _shown(words: str) -> object:
    return tyro.conf.arg(metavar=words, help_behavior_hint="")


OptionalPath = Annotated[Path | None, _shown("PATH")]
OptionalText = Annotated[str | None, _shown("NAME")]
OptionalCount = Annotated[int | None, _shown("INT")]
OptionalNumber = Annotated[float | None, _shown("FLOAT")]
Names = Annotated[
    tuple[str, ...], tyro.conf.arg(metavar="NAME...", help_behavior_hint="")
]
