"""Results on disk, whole or not at all."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dslo_jax.files import atomic_file


def save_result(path: Path, content: Mapping[str, Any]) -> None:
    """Write a result as strict JSON, which knows no NaN.

    Raises:
        OSError: The disk refuses.
    """
    text = json.dumps(dict(content), indent=1, allow_nan=False)
    with atomic_file(path) as file:
        file.write(text.encode() + b"\n")


def save_text(path: Path, text: str) -> None:
    """Write a text as UTF-8; letters that it cannot hold are written as escapes.

    Raises:
        OSError: The disk refuses.
    """
    with atomic_file(path) as file:
        file.write(text.encode("utf-8", "backslashreplace"))
