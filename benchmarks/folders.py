"""``dslo segment`` over folders of photos: time, memory and programs, end to end.

    python benchmarks/folders.py --save folders
    python benchmarks/folders.py --before /path/to/older/checkout --save folders

Every run is a process of its own, with the bundled networks and without a cache of
compiled programs. With ``--before``, an older checkout runs on the same folders in turn
with this one. The photos are crops and sizes of one photograph, stored as JPEG.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from harness import PHOTO, parse, save
from PIL import Image

from dslo_jax.bench.machine import describe_machine


CLASSES = "sky, sea, sand, grass, tree, house, boat, sun"
ROOT = Path(__file__).parents[1]
LARGE = 4000, 3000


def equal_photos(folder: Path, count: int = 64) -> None:
    """Photos of 640 x 480."""
    _crops(folder, [(640, 480)] * count)


def random_photos(folder: Path, count: int = 60) -> None:
    """Photos of random sizes, sides from 200 to 900 pixels."""
    rng = np.random.default_rng(0)
    _crops(folder, [tuple(rng.integers(200, 900, 2)) for _ in range(count)])


def large_photos(folder: Path, count: int = 8) -> None:
    """Photos of 12 megapixels."""
    _crops(folder, [LARGE] * count)


FOLDERS: dict[str, tuple[Callable[[Path], None], tuple[int, ...]]] = {
    "64 photos of 640 x 480": (equal_photos, (1, 8)),
    "60 photos of random sizes": (random_photos, (1, 8)),
    "8 photos of 12 megapixels": (large_photos, (1, 8)),
}
"""What fills each folder, and the sizes of batches."""


def _crops(folder: Path, sizes: list[tuple[int, int]]) -> None:
    rng = np.random.default_rng(1)
    with Image.open(PHOTO) as photo:
        for index, (width, height) in enumerate(sizes):
            box = (*rng.uniform(0, 0.3, 2), *rng.uniform(0.7, 1, 2))
            scale = (photo.width, photo.height) * 2
            crop = photo.crop([round(s * b) for s, b in zip(scale, box, strict=True)])
            crop = crop.resize((int(width), int(height)), Image.Resampling.BICUBIC)
            crop.save(folder / f"{index:03}.jpg", quality=90)


_CHILD = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
done = subprocess.run(sys.argv[1:], capture_output=True, text=True)
wall, used = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({
    "wall": wall,
    "cpu": used.ru_utime + used.ru_stime,
    "peak_mib": used.ru_maxrss / 1024,
    "programs": done.stderr.count("(once per shape)"),
}))
sys.stderr.write(done.stderr)
sys.exit(done.returncode)
"""


def run(checkout: Path, photos: Path, batch: int) -> dict[str, float]:
    """Segment a folder in a process of its own.

    Returns:
        Wall and CPU seconds of the process, its peak memory in MiB, the number of
        compilations, and the bytes of the results.
    """
    with tempfile.TemporaryDirectory() as out:
        command = [
            *(sys.executable, "-c", _CHILD),
            *(sys.executable, "-m", "dslo_jax", "segment", str(photos)),
            *("--model", "demo", "--classes", CLASSES, "--out", out),
            *("--batch", str(batch)),
        ]
        environment = os.environ | {"PYTHONPATH": str(checkout), "DSLO_CACHE": ""}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command[3:])}\n{done.stderr}")
        size = sum(path.stat().st_size for path in Path(out).rglob("*"))
        return {**json.loads(done.stdout), "bytes": size}


def measure(
    checkouts: dict[str, Path], repeats: int, only: str
) -> list[dict[str, Any]]:
    """Measure all folders, the checkouts in turn."""
    rows = []
    for name, (fill, batches) in FOLDERS.items():
        if only not in name:
            continue
        with tempfile.TemporaryDirectory() as photos:
            fill(Path(photos))
            for batch in batches:
                found: dict[str, list[dict[str, float]]] = {c: [] for c in checkouts}
                for _ in range(repeats):
                    for label, checkout in checkouts.items():
                        found[label].append(run(checkout, Path(photos), batch))
                for label, runs in found.items():
                    row: dict[str, Any] = {"photos": name, "batch": batch}
                    row |= {"code": label, "runs": runs}
                    for key in runs[0]:
                        row[key] = statistics.median(each[key] for each in runs)
                    rows.append(row)
                    sys.stdout.write(json.dumps({**row, "runs": len(runs)}) + "\n")
    return rows


def main() -> None:
    """Measure, print, and write the result if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--before", type=Path, help="an older checkout")
    parser.add_argument("--only", default="", help="part of the name of a folder")
    options = parse(parser, repeats=3)
    checkouts = {} if options.before is None else {"before": options.before}
    checkouts["now"] = ROOT
    machine = describe_machine()
    rows = measure(checkouts, options.repeats, options.only)
    if options.save:
        save(
            options.save,
            {"schema": "dslo.folders.v1", "machine": machine, "rows": rows},
        )


if __name__ == "__main__":
    main()
