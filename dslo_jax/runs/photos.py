"""A run over photos: what is done is noted in a journal, so that it can be continued.

Photos of a batch are consecutive photos of the list. A run that continues another one
skips the batches that are finished and repeats those that are not, whole: so every
photo is always segmented with the same neighbours, and the files come out equal.

A photo is known by its name and by its file: what another photo of the same name left
is not taken for its result.
"""

import os
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from dslo_jax import outputs
from dslo_jax.errors import DeviceError, DsloError, OptionError, OutputError, attempt
from dslo_jax.files import write_json
from dslo_jax.images import MAX_PIXELS, FoundPhoto
from dslo_jax.images.parts import Stdin
from dslo_jax.prompts import ClassList
from dslo_jax.runs.journal import PHOTO, Journal, Key, Record, check_begun
from dslo_jax.runs.shards import WHOLE, Shard
from dslo_jax.segmentation import Segmentation
from dslo_jax.segmenter import Segmenter
from dslo_jax.stream import FailedPhoto
from dslo_jax.threads import batched, map_ahead


SCHEMA = "dslo.run.v1"
_REMEDY = "choose another folder with --out, or add --overwrite to begin anew"
_WRITERS = 4
_BUDGET = 2**28  # bytes of results that wait to be written


class Written(NamedTuple):
    """A photo whose files are on the disk.

    Attributes:
        place: The photo.
        folder: The folder of its results.
        result: Its result.
    """

    place: FoundPhoto
    folder: Path
    result: Segmentation


class Failed(NamedTuple):
    """A photo that has no result.

    Attributes:
        place: The photo.
        error: The reason.
    """

    place: FoundPhoto
    error: DsloError


Event = Written | Failed


@dataclass(frozen=True)
class PhotoRun:
    """A run over photos in an output folder.

    Args:
        found: The photos, from ``images.find_photos``; those of this shard.
        out: The output folder; each photo gets a folder of its name inside it.
        classes: The classes.
        header: Everything that the results depend on, as plain values. A run with
            another header is refused.
        shard: The part of the list that ``found`` is.
        batch_size: Photos at once on the device.
        max_pixels: Greatest number of pixels of a photo.
        write: Kinds of files to write; see ``Segmentation.save``.
        overwrite: Whether to discard what an earlier run has noted.
    """

    found: Sequence[FoundPhoto]
    out: Path
    classes: ClassList
    header: Mapping[str, Any]
    shard: Shard = WHOLE
    batch_size: int = 1
    max_pixels: int = MAX_PIXELS
    write: tuple[str, ...] = outputs.DEFAULT_FILES
    overwrite: bool = False

    @property
    def journal_path(self) -> Path:
        """The file that notes which photos are done, and which failed and why."""
        return self.out / self.shard.file("journal.jsonl")

    @property
    def report_path(self) -> Path:
        """The file with the outcome of all photos."""
        return self.out / self.shard.file("run.json")

    def check(self) -> None:
        """Refuse the folder for what is known before the networks are loaded.

        ``header`` may lack what only they tell.

        Raises:
            OptionError: The folder holds results of another run (``O04``, ``O09``).
            OutputError: The folder cannot be read (``O06``).
        """
        if self.overwrite:
            return
        if not self.journal_path.exists():
            self._refuse_foreign_results()
        check_begun(
            self.journal_path, self.header, remedy=_REMEDY, is_result=_is_result
        )

    def open_journal(self) -> Journal:
        """Open the journal of this run, or begin one.

        Raises:
            OptionError: The folder holds results of another run (``O04``, ``O09``), or
                of another photo of the same name (``O09``).
            OutputError: The folder cannot be written (``O06``).
        """
        path = self.journal_path
        if self.overwrite:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise OutputError.cannot_write(path, error) from error
        elif not path.exists():
            self._refuse_foreign_results()
        journal = Journal(path, self.header, remedy=_REMEDY, is_result=_is_result)
        for (_, name), record in journal.records.items():
            if not _is_sound(record):
                raise OptionError(
                    "O04",
                    f"{path} is damaged: it notes {record!r:.100} of the photo "
                    f"{name!r:.100}; {_REMEDY}",
                )
        for place in self.found:
            record = _record(journal, place)
            if _is_result(record) and not self._is_there(place, record):
                del journal.records[PHOTO, place.name]
        self._report(journal, "running")
        return journal

    def finish(
        self, segmenter: Segmenter, journal: Journal
    ) -> Generator[Event, None, None]:
        """Segment the photos that the journal does not know, and note them.

        Photos that failed in an earlier run are tried again at the end.

        Args:
            segmenter: The segmenter.
            journal: The journal, from ``open_journal``.

        Yields:
            What became of each photo, when it is on the disk and before it is noted.

        Raises:
            OutputError: Results cannot be written (``O06``).
        """
        todo, again = self._unfinished(journal)
        status = "interrupted"
        try:
            for photos in filter(None, (todo, again)):
                yield from self._segment(photos, segmenter, journal)
            status = "complete" if not self.failures(journal) else "partial"
        finally:
            self._report(journal, status)

    def done(self, journal: Journal) -> set[str]:
        """Names of the photos that are done and will not be done again.

        A batch that was not finished is repeated, with all its photos.
        """
        todo, _ = self._unfinished(journal)
        written = {p.name for p in self.found if "done" in _record(journal, p)}
        return written - {place.name for place in todo}

    def failures(self, journal: Journal) -> dict[str, str]:
        """The reason for each photo that failed, by its name."""
        records = {place.name: _record(journal, place) for place in self.found}
        return {n: r["error"] for n, r in records.items() if "error" in r}

    def _unfinished(
        self, journal: Journal
    ) -> tuple[list[FoundPhoto], list[FoundPhoto]]:
        """The photos of unfinished batches; those that failed in finished ones."""
        todo: list[FoundPhoto] = []
        again: list[FoundPhoto] = []
        for batch in batched(self.found, self.batch_size):
            if all(_record(journal, place) for place in batch):
                again += [p for p in batch if "error" in _record(journal, p)]
            else:
                todo += batch
        return todo, again

    def _segment(
        self, photos: Sequence[FoundPhoto], segmenter: Segmenter, journal: Journal
    ) -> Iterator[Event]:
        """Segment, write and note photos; batch by batch for the journal."""
        results = segmenter.stream(
            iter(photos),
            self.classes,
            batch_size=self.batch_size,
            max_pixels=self.max_pixels,
        )
        written = map_ahead(
            self._write,
            zip(photos, results, strict=True),
            threads=_WRITERS,
            ahead=2 * _WRITERS,
            weigh=_num_bytes,
            budget=_BUDGET,
        )
        # Before they are read: a photo that changes meanwhile is done again next time.
        files = {place.name: _file(place) for place in photos}
        new: dict[Key, Record] = {}
        with closing(results), closing(written):
            try:
                for event in written:
                    new[PHOTO, event.place.name] = _noted(
                        event, files[event.place.name]
                    )
                    if len(new) == self.batch_size:
                        journal.append(new)
                        new = {}
                    yield event
            finally:
                if new:
                    journal.append(new)

    def _write(self, item: tuple[FoundPhoto, Segmentation | FailedPhoto]) -> Event:
        place, result = item
        if isinstance(result, FailedPhoto):
            return Failed(place, result.error)
        try:
            folder = outputs.output_path(self.out, place.name)
            outputs.write_folder(folder, result.files(self.write))
            return Written(place, folder, result)
        except DsloError as error:
            return Failed(place, error)
        except MemoryError as error:
            return Failed(place, DeviceError.no_memory(error))
        except OSError as error:
            kept = "results reported above are kept"
            raise OutputError.cannot_write(self.out, error, kept) from error

    def _folder(self, place: FoundPhoto) -> Path:
        return self.out / place.name

    def _is_there(self, place: FoundPhoto, record: Record) -> bool:
        """Whether the results of a record are there, and are of this very photo.

        The bytes of the photo are compared only if its path, size or time has changed.
        """
        folder = self._folder(place)
        files = outputs.chosen_files(self.write).values()
        if isinstance(place.part, Stdin) or not all(
            (folder / f).is_file() for f in files
        ):
            return False
        before, now = record.get("file", {}), _file(place)
        if before == now:
            return True
        photo = attempt(lambda: place.read(max_pixels=self.max_pixels))
        if not isinstance(photo, DsloError) and photo.sha256 == record.get("sha256"):
            return True
        if before and before["path"] != now["path"]:
            raise OptionError(
                "O09",
                f"{str(folder)!r} is the result of {before['path']!r}, not of "
                f"{now['path']!r}; choose another folder with --out, or add "
                "--overwrite to begin anew",
            )
        return False

    def _refuse_foreign_results(self) -> None:
        for place in self.found:
            folder = self._folder(place)
            if folder.exists():
                raise OptionError(
                    "O09",
                    f"{str(folder)!r} exists and is not from this command; add "
                    "--overwrite to replace it, or choose another folder with --out",
                )

    def _others(self, journal: Journal) -> list[Record]:
        """The outcome of photos of an earlier run that this one does not ask for."""
        asked = {place.name for place in self.found}
        files = outputs.chosen_files(self.write).values()
        return [
            _outcome(name, record.get("file", {}).get("path"), record)
            for (kind, name), record in journal.records.items()
            if kind == PHOTO and name not in asked
            # A name may be no name of a file here; ``Path.is_file`` would raise.
            if "error" in record
            or all(os.path.isfile(self.out / name / file) for file in files)
        ]

    def _report(self, journal: Journal, status: str) -> None:
        """Write the outcome of all photos so far.

        A run that is limited to some photos of an earlier one keeps the others.
        """
        photos = [
            _outcome(place.name, place.origin, _record(journal, place))
            for place in self.found
        ]
        photos += self._others(journal)
        if status == "complete" and any("error" in photo for photo in photos):
            status = "partial"
        report = {
            "schema": SCHEMA,
            "status": status,
            "written_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "found": len(photos),
            "done": sum("done" in photo for photo in photos),
            "failed": sum("error" in photo for photo in photos),
            "settings": journal.header,
            "photos": photos,
        }
        try:
            write_json(self.report_path, report)
        except OSError as error:
            raise OutputError.cannot_write(self.report_path, error) from error


def _outcome(name: str, source: str | None, record: Record) -> Record:
    """What became of a photo, for the report."""
    known = {key: record[key] for key in ("done", "error") if key in record}
    return {"name": name, "source": source, **known}


def _is_result(record: Record) -> bool:
    return "done" in record


def _record(journal: Journal, place: FoundPhoto) -> Record:
    return journal.records.get((PHOTO, place.name), {})


def _is_sound(record: Record) -> bool:
    """Whether a record has the form that ``_noted`` gives it."""
    file = record.get("file", {"path": ""})
    return (
        isinstance(file, dict)
        and isinstance(file.get("path"), str)
        and isinstance(record.get("error", ""), str)
    )


def _noted(event: Event, file: Record) -> Record:
    if isinstance(event, Failed):
        return {"error": str(event.error), "file": file}
    return {"done": True, "file": file, "sha256": event.result.photo.sha256}


def _file(place: FoundPhoto) -> Record:
    """What tells, without reading it, whether a photo is the same as before."""
    try:
        found = os.stat(place.path)
    except OSError:  # standard input, or removed meanwhile
        return {"path": place.origin}
    return {"path": place.origin, "size": found.st_size, "time": found.st_mtime_ns}


def _num_bytes(event: Event) -> int:
    if isinstance(event, Failed):
        return 0
    return event.result.labels.nbytes + event.result.pixels.nbytes
