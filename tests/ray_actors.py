"""Segment photos with two real actors of Ray, one of which is killed in the middle.

python ray_actors.py FOLDER: FOLDER holds a checkpoint, and gets a file when an actor
has killed itself. Prints, for each photo, a digest of its labels or its error.
"""

import hashlib
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import ray

from dslo_jax import SegmenterConfig
from dslo_jax.ray_data import RaySegmenter


PHOTOS, BROKEN, FATAL = 24, 5, 14
CLASSES = ["cat", "sofa", "wall"]
OPTIONS = {
    "column": "photo",
    "write": ("labels",),
    "batch_size": 4,
    "config": SegmenterConfig.of(affinity_size=64, short_side=64, templates="single"),
}


def photo(index):
    if index == BROKEN:
        return b"no image"
    rng = np.random.default_rng(index)
    header = b"P6 48 32 255\n"  # a PPM: a header, and the pixels
    return header + rng.integers(0, 256, (32, 48, 3), np.uint8).tobytes()


class Mortal(RaySegmenter):
    """Is killed by the batch with one photo, when it comes for the first time."""

    def __init__(self, folder, **options):
        super().__init__(**options)
        self._killed = Path(folder) / "killed"

    def __call__(self, batch):
        if FATAL in batch["index"] and not self._killed.exists():
            self._killed.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        found = super().__call__(batch)
        found["worker"] = np.full(len(batch["index"]), os.getpid())
        return found


def digest(row):
    return row["error"] or hashlib.sha256(row["labels"]).hexdigest()


def main(folder):
    model = str(Path(folder) / "checkpoint")
    # Actors that ask for a whole CPU each would leave none for the reader.
    ray.init(num_cpus=2, include_dashboard=False, logging_level="error")
    rows = [{"index": index, "photo": photo(index)} for index in range(PHOTOS)]
    found = ray.data.from_items(rows, override_num_blocks=6).map_batches(
        Mortal,
        fn_constructor_kwargs={
            "folder": folder,
            "classes": CLASSES,
            "model": model,
            **OPTIONS,
        },
        batch_size=OPTIONS["batch_size"],
        concurrency=2,
        num_cpus=0.5,
    )
    results = found.take_all()
    json.dump(
        {
            "digests": {str(row["index"]): digest(row) for row in results},
            "rows": len(results),
            "workers": sorted({row["worker"] for row in results}),
            "killed": int((Path(folder) / "killed").read_text()),
        },
        sys.stdout,
        default=int,
    )


if __name__ == "__main__":
    main(sys.argv[1])
