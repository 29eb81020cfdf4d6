"""Kill a run over photos again and again: python killed_run.py FOLDER KILLS SEED.

Every child is a process of its own and dies at a random moment. Whenever one lives to
the end, its files must be those of a run that nothing disturbed. The networks are left
out: the results are made once, and the children write and note them.
"""

import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import numpy as np

from dslo_jax import SegmenterConfig
from dslo_jax.errors import ImageError
from dslo_jax.images import FoundPhoto, read_photo
from dslo_jax.pipeline import ClassLabels
from dslo_jax.prompts import parse_classes
from dslo_jax.runs.photos import PhotoRun
from dslo_jax.segmentation import assemble
from dslo_jax.solvers import Solution
from dslo_jax.stream import FailedPhoto


PHOTOS, BATCH, BROKEN = 40, 3, (7, 8, 21)
CLASSES = parse_classes(["cat", "sofa", "wall"])
LIVES = 6  # that a run lasts, on average


class CannedSegmenter:
    """A segmenter whose results are known."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.results = {}
        for index in range(PHOTOS):
            labels = rng.integers(0, 3, (40, 56), np.int32)
            self.results[f"{index}.png"] = assemble(
                read_photo(rng.integers(0, 256, (40, 56, 3), np.uint8)),
                CLASSES,
                np.arange(3, dtype=np.int32),
                Solution(
                    value=rng.random((3, 16), np.float32),
                    num_steps=np.ones(3, np.int32),
                    error=np.zeros(3, np.float32),
                    converged=np.ones(3, bool),
                    reason=np.zeros(3, np.int32),
                ),
                ClassLabels(labels, ties=0.0),
                grid=(4, 4),
                timings=(),
                config=SegmenterConfig(),
            )

    def stream(self, photos, classes, *, batch_size, max_pixels):
        for place in photos:
            time.sleep(0.001)
            if int(place.path.stem) in BROKEN:
                yield FailedPhoto(place, ImageError("I02", "not an image"))
            else:
                yield self.results[place.name]


def start(out, segmenter):
    """Run in a child; returns its process id."""
    child = os.fork()
    if child:
        return child
    try:
        found = [FoundPhoto(Path(f"{i}.png"), f"{i}.png") for i in range(PHOTOS)]
        run = PhotoRun(found, out, CLASSES, {"checkpoint": "a"}, batch_size=BATCH)
        events = list(run.finish(segmenter, run.open_journal()))
        assert all(
            event.folder.is_dir() for event in events if hasattr(event, "folder")
        )
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def contents(out):
    """All files but the journal, the lock and the report, whose times differ."""
    files = [p for p in sorted(out.rglob("*")) if p.is_file() and p.parent != out]
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def finish(out, segmenter):
    _, status = os.waitpid(start(out, segmenter), 0)
    assert status == 0, status
    return contents(out)


def main(folder, kills, seed):
    rng = random.Random(seed)
    segmenter = CannedSegmenter()
    begin = time.monotonic()
    expected = finish(folder / "undisturbed", segmenter)
    life = (time.monotonic() - begin) / LIVES
    assert len({name.split("/")[0] for name in expected}) == PHOTOS - len(BROKEN)
    killed = finished = 0
    while killed < kills:
        out = folder / f"run {finished}"
        child = start(out, segmenter)
        time.sleep(rng.expovariate(1 / life))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            killed += 1
        else:
            assert status == 0, status
            assert contents(out) == expected
            finished += 1
    assert finish(folder / f"run {finished}", segmenter) == expected
    words = f"killed {killed} times, {finished + 1} runs ended with the same bytes\n"
    sys.stdout.write(words)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
