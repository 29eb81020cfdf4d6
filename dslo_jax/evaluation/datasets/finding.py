"""The one entrance to data sets on disk."""

import os

from dslo_jax.errors import OptionError
from dslo_jax.evaluation.datasets.benchmark_set import BenchmarkSet
from dslo_jax.evaluation.datasets.benchmarks import BENCHMARKS
from dslo_jax.evaluation.datasets.folder_set import FolderSet
from dslo_jax.images import MAX_PIXELS


DATASETS = (*BENCHMARKS, "folder")
"""Names of the data sets that are read from disk."""


def find_dataset(
    name: str,
    root: str | os.PathLike[str],
    *,
    label_folder: str | None = None,
    protocol: str | None = None,
    max_pixels: int = MAX_PIXELS,
) -> BenchmarkSet | FolderSet:
    """Find the photos of a data set and their truth.

    Args:
        name: One of ``DATASETS``: a benchmark, or ``"folder"`` for photos of one's own.
        root: Where it is. For a benchmark also a folder that holds it as
            mmsegmentation's ``data`` does.
        label_folder: Where the truth of a benchmark comes from, as in
            ``"SegmentationClassAug"`` of VOC; None takes the usual one.
        protocol: As for ``BenchmarkSet``.
        max_pixels: Greatest number of pixels of a photo.

    Returns:
        The data set; no photo was decoded yet.

    Raises:
        OptionError: There is no such data set, label folder or protocol (``O03``), or
            its files are not found; the message lists what is there and what is
            expected (``O07``).
        ClassListError: The class file of a ``"folder"`` is not usable (``C..``).
        ImageError: The masks of a ``"folder"`` hold nothing but 0 and 255 (``I09``).
    """
    if name in BENCHMARKS:
        return BenchmarkSet(
            BENCHMARKS[name],
            root,
            label_folder=label_folder,
            protocol=protocol,
            max_pixels=max_pixels,
        )
    if name != "folder":
        raise OptionError(
            "O03", f"no data set {name!r}; there are {', '.join(DATASETS)}"
        )
    if label_folder is not None:
        raise OptionError(
            "O03",
            f"a data set of one's own has its labels in 'masks', not {label_folder!r}",
        )
    if protocol is not None:
        raise OptionError(
            "O03", f"a data set of one's own has no protocol {protocol!r}"
        )
    return FolderSet(root, max_pixels=max_pixels)
