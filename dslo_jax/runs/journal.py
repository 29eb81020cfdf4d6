"""An append-only file of what a run has finished, which survives being killed.

The first line says what all results depend on; every other line holds the records of
one batch. A line starts with the checksum of the rest and reaches the disk before
the next is begun, so that only the last line can be torn.
"""

import json
import os
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dslo_jax.errors import OptionError, OutputError
from dslo_jax.files import atomic_file, parse_json


Record = dict[str, Any]
Key = tuple[str, str]
"""The key of a cell, and the name of a photo."""

PHOTO = "photo"
"""In place of the key of a cell: what holds for a photo whatever is measured."""

_MAX_VALUE = 100  # characters of a value that a message quotes


_REMEDY = "choose another folder or delete this one"


def _any(record: Record) -> bool:
    return True


def check_begun(
    path: Path,
    known: Mapping[str, Any],
    *,
    remedy: str = _REMEDY,
    is_result: Callable[[Record], bool] = _any,
) -> None:
    """Refuse a journal that was begun with other things than what is known so far.

    So this is told before a run does what takes time. Nothing is written.

    Args:
        path: The file; it may be missing.
        known: A part of the header.
        remedy: As for ``Journal``.
        is_result: As for ``Journal``.

    Raises:
        OptionError: The journal has another header, or is damaged elsewhere than at
            its end (``O04``).
        OutputError: The file cannot be read (``O06``).
    """
    try:
        if not path.exists():
            return
        found, records, _ = _read(path.read_bytes(), path)
    except OSError as error:
        raise OutputError.cannot_write(path, error) from error
    if any(map(is_result, records.values())):
        before, now = _flat(found), _flat(json.loads(json.dumps(known)))
        _refuse(path, _changed(before, now), remedy)


class Journal:
    """Records by cell and photo.

    Args:
        path: The file; continued when it is there.
        header: What all records depend on, as plain values.
        remedy: What to do if the file has another header, for the error.
        is_result: Whether a record is one to keep. A file with another header and
            without any is begun anew.

    Attributes:
        header: What the file says of it, which may be more.
        records: Everything found and appended so far.

    Raises:
        OptionError: The journal has another header, or is damaged elsewhere than at
            its end (``O04``).
        OutputError: The disk refuses (``O06``).
    """

    def __init__(
        self,
        path: Path,
        header: Mapping[str, Any],
        *,
        remedy: str = _REMEDY,
        is_result: Callable[[Record], bool] = _any,
    ):
        self.records: dict[Key, Record] = {}
        self.header: Record = json.loads(json.dumps(header))
        self._path, self._remedy = path, remedy
        try:
            if not path.exists() or not self._resume(is_result):
                with atomic_file(path) as file:
                    file.write(_line(header))
        except OSError as error:
            raise OutputError.cannot_write(path, error) from error

    def append(self, records: Mapping[Key, Record]) -> None:
        """Add the records of a batch; they are on the disk when this returns.

        Raises:
            OutputError: The disk refuses (``O06``). What was there before is kept.
        """
        line = _line([[*key, record] for key, record in records.items()])
        try:
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND)
            before = os.fstat(file).st_size
            try:
                while line:
                    line = line[os.write(file, line) :]
                os.fsync(file)
            except OSError:
                os.ftruncate(file, before)  # what comes next must begin a line
                raise
            finally:
                os.close(file)
        except OSError as error:
            kept = "what was noted before is kept; the same command goes on from there"
            raise OutputError.cannot_write(self._path, error, kept) from error
        self.records.update(records)

    def _resume(self, is_result: Callable[[Record], bool]) -> bool:
        """Read the file; returns whether it is to be continued."""
        content = self._path.read_bytes()
        found, records, size = _read(content, self._path)
        differences = _differences(found, self.header)
        if differences and not any(map(is_result, records.values())):
            return False
        _refuse(self._path, differences, self._remedy)
        self.header, self.records = found, records
        if size != len(content):  # what was being written when the last run ended
            os.truncate(self._path, size)
        return True


def _read(content: bytes, path: Path) -> tuple[Record, dict[Key, Record], int]:
    """The header and the records of a file, and the size of its whole lines."""
    whole = content[: content.rfind(b"\n") + 1]
    if not whole:
        raise OptionError("O04", f"{path} is no journal; delete it")
    found, *batches = [
        _read_line(line, f"{path}, line {number}", is_header=number == 1)
        for number, line in enumerate(whole[:-1].split(b"\n"), start=1)
    ]
    records = {(cell, photo): row for rows in batches for cell, photo, row in rows}
    return found, records, len(whole)


def _line(value: Any) -> bytes:
    text = json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _read_line(line: bytes, where: str, *, is_header: bool) -> Any:
    """The header, or the records of a batch: lists of cell, photo and record."""
    checksum, _, text = line.partition(b" ")
    try:
        if checksum != b"%08x" % zlib.crc32(text):
            raise ValueError("its checksum is another")
        value = parse_json(text)
        if not (isinstance(value, dict) if is_header else _are_records(value)):
            raise ValueError("it holds something else than records")
    except ValueError as error:
        raise OptionError(
            "O04", f"{where}, is damaged: {error}; choose another folder"
        ) from error
    return value


def _are_records(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(each, list) and list(map(type, each)) == [str, str, dict]
        for each in value
    )


def _differences(found: Record, header: Record) -> list[str]:
    """All differences between two headers, in words."""
    before, now = _flat(found), _flat(header)
    gone = [
        f"{name} = {_quoted(value)}, now it is not set"
        for name, value in before.items()
        if name not in now and name.split(".")[0] in header
    ]
    return _changed(before, now) + gone


def _changed(before: Record, now: Record) -> list[str]:
    return [
        f"{name} = {_quoted(before.get(name))}, now it is {_quoted(value)}"
        for name, value in now.items()
        if before.get(name) != value
    ]


def _refuse(path: Path, differences: list[str], remedy: str) -> None:
    """Refuse to mix results of different circumstances, if there are differences."""
    if differences:
        raise OptionError(
            "O04", f"{path} was begun with {'; '.join(differences)}; {remedy}"
        )


def _flat(value: Record, prefix: str = "") -> Record:
    """Values by their dotted name, as in ``versions.jax``."""
    flat: Record = {}
    for name, entry in value.items():
        if isinstance(entry, dict) and entry:
            flat |= _flat(entry, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = entry
    return flat


def _quoted(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_VALUE else f"{text[:_MAX_VALUE]} ..."
