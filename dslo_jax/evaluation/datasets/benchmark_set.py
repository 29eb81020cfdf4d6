"""A benchmark on disk."""

import os
import shlex
from pathlib import Path

from dslo_jax.errors import OptionError
from dslo_jax.evaluation.datasets.benchmarks import Benchmark
from dslo_jax.evaluation.datasets.labelled import Entry, LabelledPhotos
from dslo_jax.evaluation.datasets.layouts import (
    contents,
    find_root,
    list_names,
    not_found,
    read_split,
)
from dslo_jax.evaluation.datasets.masks import PLAIN, ZERO_REDUCED
from dslo_jax.evaluation.datasets.protocols import protocol_background
from dslo_jax.images import MAX_PIXELS


class BenchmarkSet(LabelledPhotos):
    """The photos of a benchmark and their truth.

    Files are looked for when the set is made, and read one at a time. Where a benchmark
    has a list of names, these are its photos, present or not; otherwise they are what
    is in the folder. A photo or mask that is missing, of otherwise many, is an error
    when it is read.

    Args:
        benchmark: Which.
        root: Its own folder, or one that holds it as mmsegmentation's ``data`` does.
        label_folder: Which of ``benchmark.layout.label_folders``; None takes the first.
        protocol: The method whose words for the background are used, one of
            ``BENCHMARK_PROTOCOLS``; None for those of the class file.
        max_pixels: Greatest number of pixels of a photo.

    Raises:
        OptionError: The data set is not there, not laid out as expected, or its labels
            are not converted (``O07``); no such label folder or protocol (``O03``).

    Attributes:
        benchmark: Which.
        root: The folder with the photos' folder in it.
        label_folder: Where the truth comes from, under ``root``.
    """

    def __init__(
        self,
        benchmark: Benchmark,
        root: str | os.PathLike[str],
        *,
        label_folder: str | None = None,
        protocol: str | None = None,
        max_pixels: int = MAX_PIXELS,
    ):
        layout = benchmark.layout
        label_folder = label_folder or layout.label_folders[0]
        if label_folder not in layout.label_folders:
            raise OptionError(
                "O03",
                f"{benchmark.name} has no label folder {label_folder!r}; there are "
                f"{', '.join(layout.label_folders)}",
            )
        tree = layout.tree(label_folder, "NAME")
        self.benchmark = benchmark
        self.root = find_root(layout, Path(root), tree)
        self.label_folder = label_folder
        entries = [
            Entry(
                name,
                layout.photo(self.root, name),
                layout.labels(self.root, name, label_folder),
            )
            for name in _names(benchmark, self.root, tree)
        ]
        _check_photos(entries, tree)
        _check_labels(benchmark, self.root, entries, tree)
        words = protocol and protocol_background(protocol, benchmark.name)
        self._protocol = protocol
        super().__init__(
            entries,
            benchmark.classes_with(words),
            max_pixels=max_pixels,
            table=ZERO_REDUCED if benchmark.reduce_zero_label else PLAIN,
            # Viewers of their time ignored EXIF, and to refuse a published photo would
            # change what is measured.
            drawn_on_stored=True,
        )

    def describe(self) -> dict[str, object]:
        """What a measurement depends on, for a report.

        Returns:
            Names, counts, and a sha256 over names, file sizes and classes, which tells
            whether the data changed. ``published_photos`` is what ``photos`` would be
            if the split were whole. With a protocol also its name, and the words of the
            background.
        """
        described = {
            "name": self.benchmark.name,
            "split": self.benchmark.layout.split,
            "label_folder": self.label_folder,
            "photos": len(self),
            "published_photos": self.benchmark.layout.num_photos,
            "sha256": self.digest(),
        }
        if self._protocol is not None:
            described["protocol"] = self._protocol
            if self.benchmark.background:
                described["background"] = list(self.classes.synonyms[0])
        return described


def _names(benchmark: Benchmark, root: Path, tree: str) -> list[str]:
    layout = benchmark.layout
    if layout.split_file is None:
        return list_names(root / layout.photos, layout.photo_suffix)
    split = root / layout.split_file
    published = layout.published and root / layout.published
    if not split.is_file() and published and published.is_file():
        raise not_found(
            f"no split file {str(split)!r}; {_remedy(benchmark, root)}", tree
        )
    return read_split(split, tree)


def _check_photos(entries: list[Entry], tree: str) -> None:
    """Raise unless there is a photo at all."""
    if not entries:
        raise not_found("no photo belongs to the data set", tree)
    if not any(entry.photo.is_file() for entry in entries):
        first = entries[0].photo
        raise not_found(
            f"none of the {len(entries)} photos is there; looked for {str(first)!r} "
            f"and so on; {contents(first.parent)}",
            tree,
        )


def _check_labels(
    benchmark: Benchmark, root: Path, entries: list[Entry], tree: str
) -> None:
    """Raise if no labels are there, or some only as they are published."""
    missing = [entry for entry in entries if not entry.mask.is_file()]
    found = f"{len(missing)} of {len(entries)} label files are missing"
    published = benchmark.layout.published
    if published is not None:
        unconverted = (root / published.format(name=e.name) for e in missing)
        if any(path.is_file() for path in unconverted):
            raise not_found(f"{found}; {_remedy(benchmark, root)}", tree)
    if len(missing) == len(entries):
        first = entries[0].mask
        raise not_found(
            f"{found}; looked for {str(first)!r} and so on; {contents(first.parent)}",
            tree,
        )


def _remedy(benchmark: Benchmark, root: Path) -> str:
    return (
        "the published labels are there but not converted; convert them once with\n"
        f"  dslo convert {benchmark.name} --root {shlex.quote(str(root))}"
    )
