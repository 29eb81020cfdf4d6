"""A million damaged inputs for all readers of the package; see ``tests/fuzz``.

    python benchmarks/fuzz.py --save fuzz                      # a million
    python benchmarks/fuzz.py --save fuzz --targets photos     # again, in the same file
    python benchmarks/fuzz.py --inputs 10000                   # of each, nothing saved

The inputs of a target are divided over processes, each with a seed of its own. A crash,
a fault, or something that no reader may do ends this script with 1.
"""

import argparse
import functools
import json
import operator
import os
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from operator import itemgetter
from pathlib import Path
from typing import Any

from harness import RESULTS, read, save

from dslo_jax.bench.machine import describe_machine


ROOT = Path(__file__).parents[1]
PART = 25_000  # inputs of a process
# Quick readers, and those that read what strangers send, get more of the million.
INPUTS = {
    "photos": 250_000,
    "masks": 100_000,
    "archives": 40_000,
    "weights": 120_000,
    "class_lists": 250_000,
    "configs": 120_000,
    "journals": 80_000,
    "results": 10_000,
    "measurements": 10_000,
    "requests": 20_000,
}


def main() -> int:
    """Run the targets and write their figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--targets", nargs="+", choices=INPUTS, default=list(INPUTS))
    parser.add_argument(
        "--inputs", type=int, help="of each target (default: a million)"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="processes at once")
    parser.add_argument("--folder", help="where inputs are written; best in memory")
    parser.add_argument("--save", metavar="NAME", help="write results/NAME.json")
    options = parser.parse_args()
    rows: dict[str, dict[str, Any]] = {}
    if options.save and (RESULTS / f"{options.save}.json").exists():
        rows = {row["target"]: row for row in read(options.save)["rows"]}
    counts = {name: options.inputs or INPUTS[name] for name in options.targets}
    result = {"schema": "dslo.bench.fuzz.v1", "machine": describe_machine()}
    with ThreadPoolExecutor(options.jobs) as pool:
        runs = {
            name: [
                pool.submit(fuzz, name, inputs, options.seed + number, options.folder)
                for number, inputs in enumerate(parts_of(counts[name]))
            ]
            for name in options.targets
        }
        for name, parts in runs.items():
            rows[name] = sum_of([part.result() for part in parts])
            print(words_of(rows[name]), flush=True)
            if options.save:
                ordered = [rows[each] for each in INPUTS if each in rows]
                save(options.save, result | {"rows": ordered})
    return int(not all(is_sound(rows[name]) for name in options.targets))


def parts_of(inputs: int) -> list[int]:
    """Numbers of inputs that a process reads; their sum is ``inputs``."""
    full, rest = divmod(inputs, PART)
    return [PART] * full + [rest] * (rest > 0)


def fuzz(name: str, inputs: int, seed: int, folder: str | None) -> dict[str, Any]:
    """The figures of one process."""
    with tempfile.TemporaryDirectory(dir=folder) as inside:
        command = [sys.executable, "-m", "fuzz", name, f"--inputs={inputs}"]
        command += [f"--seed={seed}", f"--folder={inside}"]
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        done = subprocess.run(
            command,
            env=os.environ | {"PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # decoders in C complain there
            text=True,
        )
        numbers = list(Path(inside).glob("*/*/number"))
        if done.returncode != 0:
            at = numbers[0].read_text().strip() if numbers else "the start"
            raise RuntimeError(
                f"{name}, seed {seed}: ended with {done.returncode} at input {at}"
            )
    (row,) = json.loads(done.stdout)
    return row


def sum_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of a target from those of its processes."""
    total = {key: rows[0][key] for key in ("target", "mended")}
    total["seeds"] = [row["seed"] for row in rows]
    for key in ("inputs", "faults", "events", "written", "seconds", "cpu_seconds"):
        total[key] = functools.reduce(operator.add, (row[key] for row in rows))
    for key in ("seconds", "cpu_seconds"):
        total[key] = round(total[key], 1)
    for key in ("peak_bytes", "grown_bytes"):
        total[key] = max(row[key] for row in rows)
    total["slowest"] = max((row["slowest"] for row in rows), key=itemgetter("seconds"))
    total["outcomes"] = dict(sum((Counter(row["outcomes"]) for row in rows), Counter()))
    return total


def is_sound(row: dict[str, Any]) -> bool:
    """Whether a target found nothing wrong."""
    wrong = row["faults"] or row["events"] or row["written"]
    return not wrong and all(row["mended"].values())


def words_of(row: dict[str, Any]) -> str:
    """The figures of a target in words."""
    told = "sound" if is_sound(row) else json.dumps(row, indent=1)
    return f"{row['target']}: {row['inputs']} inputs, {row['seconds']} s: {told}"


if __name__ == "__main__":
    sys.exit(main())
