"""Photos of a Ray Data set, segmented by actors: one for each accelerator.

Ray distributes the photos and starts an actor again when it dies; see
docs/how-to/many-machines.md. This module needs no Ray: it turns columns into columns.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dslo_jax import outputs
from dslo_jax.errors import OptionError
from dslo_jax.prompts import parse_classes
from dslo_jax.segmenter import Classes, Segmenter
from dslo_jax.stream import FailedPhoto


class RaySegmenter:
    """A class for ``map_batches`` of Ray Data: a batch of photos to a batch of results.

    Args:
        classes: One entry per class: a name, or a list of synonyms.
        model: As for ``Segmenter.from_pretrained``.
        column: The column of the photos: encoded files (``ray.data.read_binary_files``)
            or pixels (``ray.data.read_images``). It is not part of the result.
        write: The columns of the result, out of ``outputs.FILES``; see
            ``Segmentation.files``.
        batch_size: Photos at once on the device; the same as for ``map_batches``. A
            batch with fewer photos is padded, so that no further shape is compiled.
        **options: As for ``Segmenter.from_pretrained``.

    Raises:
        ClassListError: The class list cannot be used.
        OptionError: A kind of result is unknown, or there is none (``O03``), or the
            batch size is less than 1 (``O01``).
        DsloError: As for ``Segmenter.from_pretrained``.
    """

    def __init__(
        self,
        classes: Classes,
        model: str | Path = "sd2+clip-b16",
        *,
        column: str = "bytes",
        write: Sequence[str] = ("labels", "json"),
        batch_size: int = 8,
        **options: Any,
    ):
        self._classes = parse_classes(classes)
        self._files = outputs.chosen_files(write)
        if batch_size < 1:
            raise OptionError("O01", f"batch_size = {batch_size}; expected at least 1")
        self._column, self._batch_size = column, batch_size
        self._segmenter = Segmenter.from_pretrained(model, **options)

    def __call__(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Segment the photos of a batch.

        Args:
            batch: The columns of the batch, one entry for each photo.

        Returns:
            The other columns as they are; one column of bytes for each kind of result;
            and ``error``, the reason why a photo has no result. What does not apply is
            empty, and not ``None``: so the types of all batches are the same.

        Raises:
            OptionError: There is no such column (``O05``).
        """
        if self._column not in batch:
            known = ", ".join(batch)
            raise OptionError("O05", f"no column {self._column!r}; there are {known}")
        rows = list(self._rows(batch[self._column]))
        found = {name: batch[name] for name in batch if name != self._column}
        nothing = {**dict.fromkeys(self._files, b""), "error": ""}
        for name, empty in nothing.items():
            column = np.empty(len(rows), object)
            column[:] = [row.get(name, empty) for row in rows]
            found[name] = column
        return found

    def _rows(self, photos: Sequence[Any] | np.ndarray) -> Iterator[dict[str, Any]]:
        """The results of each photo, or its error."""
        results = self._segmenter.stream(
            iter(photos), self._classes, batch_size=self._batch_size
        )
        for result in results:
            if isinstance(result, FailedPhoto):
                yield {"error": str(result.error)}
                continue
            files = result.files(tuple(self._files))
            yield {kind: files[name] for kind, name in self._files.items()}
