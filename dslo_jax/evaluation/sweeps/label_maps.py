"""Label maps of an evaluation on disk, and scores from them without networks."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from dslo_jax import outputs
from dslo_jax.errors import DsloError, ImageError, OutputError, attempt
from dslo_jax.evaluation.datasets.samples import Sample, SampleSet
from dslo_jax.evaluation.sweeps.cells import Cell
from dslo_jax.evaluation.sweeps.records import compare
from dslo_jax.evaluation.sweeps.run import OnSkip, Watch
from dslo_jax.runs.journal import PHOTO, Journal, Key, Record
from dslo_jax.threads import map_ahead


_AHEAD = 16


class LabelMaps:
    """PNG files of class ids, one for each photo and mode: ``MODE/NAME.png``.

    Args:
        folder: Folder of the files.
        cells: The cell of each mode.
        num_classes: Number of classes.
    """

    def __init__(self, folder: Path, cells: Mapping[str, Cell], num_classes: int):
        self._folder, self._num_classes = folder, num_classes
        self._cells = cells
        self._modes = {cell.key: mode for mode, cell in cells.items()}

    def path(self, cell: Cell, name: str) -> Path:
        """The file of one photo.

        Raises:
            ImageError: The path is not in the folder (``I08``).
        """
        return self._path(cell.key, name)

    def save(self, cell: Cell, name: str, labels: np.ndarray) -> None:
        """Write a label map, whole or not at all, and flush it to the disk.

        Raises:
            OutputError: It cannot be written (``O06``).
        """
        path = self.path(cell, name)
        try:
            outputs.save_labels(path, labels, self._num_classes)
        except OSError as error:
            raise OutputError.cannot_write(path, error) from error

    def read(self, cell: Cell, name: str) -> Int32[np.ndarray, "height width"]:
        """Read a label map.

        Raises:
            ImageError: It is missing or damaged.
        """
        return outputs.read_labels(self.path(cell, name))

    def forget_missing(self, journal: Journal) -> None:
        """Remove records without a label map, so that they are measured again."""
        gone = [
            (key, name)
            for (key, name), record in journal.records.items()
            if key in self._modes
            and "counts" in record
            and not self._path(key, name).is_file()
        ]
        for each in gone:
            del journal.records[each]

    def rescore(
        self,
        samples: SampleSet,
        journal: Journal,
        *,
        watch: Watch | None = None,
        on_skip: OnSkip | None = None,
    ) -> dict[Key, Record]:
        """Compare the label maps with the truth.

        Args:
            samples: The photos with their true labels.
            journal: Journal of the run that saved the label maps; numbers about its
                solver are kept.
            watch: Called with the progress.
            on_skip: Called with photos whose true labels or label maps cannot be read;
                they have no record for any mode.

        Returns:
            Records by cell and photo, as a journal has them.
        """
        records: dict[Key, Record] = {}
        names = samples.names
        compare_all = self._comparison(samples, journal)
        found = map_ahead(
            partial(attempt, compare_all), range(len(names)), threads=4, ahead=_AHEAD
        )
        for done, (name, result) in enumerate(zip(names, found, strict=True), start=1):
            if isinstance(result, DsloError):
                records[PHOTO, name] = {"error": str(result)}
                if on_skip is not None:
                    on_skip(name, result)
            else:
                records |= result
            if watch is not None:
                watch(done, len(names))
        return records

    def _path(self, key: str, name: str) -> Path:
        return outputs.output_path(self._folder, f"{self._modes[key]}/{name}.png")

    def _comparison(
        self, samples: SampleSet, journal: Journal
    ) -> Callable[[int], dict[Key, Record]]:
        def compare_all(index: int) -> dict[Key, Record]:
            sample = samples.read(index)
            records: dict[Key, Record] = {}
            for cell in self._cells.values():
                key = (cell.key, sample.name)
                known = journal.records.get(key)
                if known is None:
                    raise ImageError(
                        "I01",
                        f"{sample.name!r} is not in the journal; run the evaluation "
                        "again to measure it",
                    )
                failed = "error" in known  # without a solution there are no labels
                records[key] = known if failed else known | self._compare(cell, sample)
            return records

        return compare_all

    def _compare(self, cell: Cell, sample: Sample) -> Record:
        labels = self.read(cell, sample.name)
        try:
            return compare(sample, labels, self._num_classes)
        except ValueError as error:
            path = self.path(cell, sample.name)
            raise ImageError(
                "I09", f"{str(path)!r} does not fit the truth: {error}"
            ) from error
