"""An evaluation without networks: its labels are arbitrary, but always the same."""

import time
import zlib

import numpy as np

from dslo_jax import SegmenterConfig
from dslo_jax.errors import ImageError
from dslo_jax.evaluation import Confusion, Journal, Measurement, Sample, Sweep, evaluate
from dslo_jax.evaluation.evaluator import JOURNAL, cells_of
from dslo_jax.evaluation.sweeps.manifest import header_of
from dslo_jax.images import Photo
from dslo_jax.prompts import parse_classes


CIRCUMSTANCES = {
    "device": {"platform": "cpu", "kind": "cpu"},
    "machine": "x86_64",
    "versions": {"jax": "1", "dslo-jax": "2"},
    "checkpoint": "0123456789abcdef",
    "batch_size": 2,
    "precision": "float32",
}
CONFIG = SegmenterConfig()
CELLS = cells_of(CONFIG, ("velocity", "path"))


class StubSet:
    """Noise of two sizes, with labels that are noise as well."""

    classes = parse_classes(["cat", "dog", "sky"])

    def __init__(self, count, broken=()):
        self.names = tuple(f"photo {index:03}" for index in range(count))
        self.broken = set(broken)
        self.read_names = []

    def __len__(self):
        return len(self.names)

    def read(self, index):
        name = self.names[index]
        if name in self.broken:
            raise ImageError("I03", f"{name} is damaged")
        self.read_names.append(name)
        rng = np.random.default_rng(index)
        size = (6, 8) if index % 3 else (8, 6)
        truth = rng.choice(np.array([0, 1, 2, 255], np.uint8), size)
        pixels = rng.integers(0, 256, (*size, 3), np.uint8)
        return Sample(name, Photo(pixels, None, (), False), truth)

    def describe(self):
        return {"name": "stub", "photos": len(self)}


class StubSweep(Sweep):
    """Labels that depend on the cell, the photo, and all photos of the batch."""

    def __init__(self, cells=CELLS, *, batch_size=2, seconds=0.0):
        self.classes = StubSet.classes
        self.cells = list(cells.values())
        self.batch_size = batch_size
        self.batches = []
        self._seconds = seconds

    def measure(self, samples, cells):
        time.sleep(self._seconds)
        names = tuple(sample.name for sample in samples)
        self.batches.append(names)
        return {
            cell: [self._one(cell, sample, names) for sample in samples]
            for cell in cells
        }

    def _one(self, cell, sample, names):
        seed = zlib.crc32(repr((cell.key, sample.name, names)).encode())
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, 3, sample.truth.shape, np.int32)
        return Measurement(
            logits_seconds=None,
            labels=labels,
            confusion=Confusion.of(sample.truth, labels, 3),
            lost=seed % 2,
            false=seed % 3,
            false_area=0.25,
            num_steps=float(seed % 7),
            converged=1.0,
            ties=0.0,
            seconds=time.perf_counter() % 1,  # never the same
        )


def open_journal(out, samples):
    return Journal(out / JOURNAL, header_of(samples, CONFIG, CIRCUMSTANCES))


def evaluate_stub(out, samples, sweep=None, **options):
    """Run or continue an evaluation; the bytes of its metrics.json."""
    journal = open_journal(out, samples)
    evaluate(sweep or StubSweep(), samples, CELLS, journal, out, **options)
    return (out / "metrics.json").read_bytes()
