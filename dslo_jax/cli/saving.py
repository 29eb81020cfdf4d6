"""Result files and tables of benchmarks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from dslo_jax.errors import OutputError
from dslo_jax.files import write_json, write_text


def save_result(path: Path | None, content: Mapping[str, Any] | str) -> None:
    """Write a result as JSON, or a text, if there is a path.

    Raises:
        OutputError: The file cannot be written (``O06``).
    """
    if path is None:
        return
    try:
        if isinstance(content, str):
            write_text(path, content)
        else:
            write_json(path, content, indent=1)
    except OSError as error:
        remedy = "make room there, or choose another file with --save"
        raise OutputError.cannot_write(path, error, remedy=remedy) from error


def new_table(first: str, *columns: str) -> Table:
    """A table whose first column has words, and whose others have figures."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="right")
    return table
