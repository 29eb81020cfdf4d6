"""An append-only file of finished measurements, which survives being killed.

The first line says what all measurements depend on; every other line holds the records
of one batch. A line starts with the checksum of the rest and reaches the disk before
the next is begun, so that only the last line can be torn.
"""

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dslo_jax.errors import OptionError
from dslo_jax.files import atomic_file


Record = dict[str, Any]
Key = tuple[str, str]
"""The key of a cell, and the name of a photo."""


class Journal:
    """Records by cell and photo.

    Args:
        path: The file; continued when it is there.
        header: What all records depend on, as plain values.

    Raises:
        OptionError: The journal has another header, or is damaged elsewhere than at
            its end (``O04``).
    """

    def __init__(self, path: Path, header: Mapping[str, Any]):
        self.records: dict[Key, Record] = {}
        self._path = path
        if path.exists():
            self._resume(json.loads(json.dumps(header)))
        else:
            with atomic_file(path) as file:
                file.write(_line(header))

    def append(self, records: Mapping[Key, Record]) -> None:
        """Add the records of a batch; they are on the disk when this returns."""
        line = _line([[*key, record] for key, record in records.items()])
        with self._path.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self.records.update(records)

    def _resume(self, header: Record) -> None:
        content = self._path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if not whole:
            raise OptionError("O04", f"{self._path} is no journal; delete it")
        found, *batches = [
            _read_line(line, f"{self._path}, line {number}")
            for number, line in enumerate(whole.splitlines(), start=1)
        ]
        changed = [name for name in header if found.get(name) != header[name]]
        if changed:
            name = changed[0]
            raise OptionError(
                "O04",
                f"{self._path} was measured with {name} = {found.get(name)!r}, now it "
                f"is {header[name]!r}; choose another folder or delete this one",
            )
        for rows in batches:
            self.records.update({(cell, photo): row for cell, photo, row in rows})
        if whole != content:  # what was being written when the last run ended
            os.truncate(self._path, len(whole))


def _line(value: Any) -> bytes:
    text = json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _read_line(line: bytes, where: str) -> Any:
    checksum, _, text = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(text):
        raise OptionError("O04", f"{where}, is damaged; choose another folder")
    return json.loads(text)
