"""Targets in a process of their own, which prints their figures as JSON.

A separate process runs without the shape checks of the tests, which would take most of
the time, and its caller notices a crash of the interpreter.
"""

import argparse
import gc
import importlib
import json
import logging
import os
import re
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

from dslo_jax.errors import DsloError
from fuzz.mutation import input_of
from fuzz.target import Target
from fuzz.watch import TooSlow, Watch, held


TARGETS = (
    *("photos", "masks", "archives", "weights", "class_lists", "configs"),
    *("journals", "results", "measurements", "requests"),
)
ERRORS = Path(__file__).parents[2] / "docs" / "errors.md"


def main() -> int:
    """Read damaged inputs, and print what became of them."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("targets", nargs="+", choices=TARGETS)
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where inputs are written to")
    parser.add_argument("--show", type=int, help="write the input of this number")
    options = parser.parse_args()
    logging.getLogger("dslo_jax").addHandler(logging.NullHandler())
    targets: dict[str, Target] = {
        name: importlib.import_module(f"fuzz.{name}").TARGET for name in options.targets
    }
    if options.show is not None:
        target = targets[options.targets[0]]
        sys.stdout.buffer.write(input_of(target, options.seed, options.show)[1])
        return 0
    results = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        watch = Watch(Path(folder))
        for name, target in targets.items():
            here = Path(folder) / name / "here"
            here.mkdir(parents=True)
            os.chdir(here)  # what a relative path would write is noticed
            tempfile.tempdir = str(here)
            found = fuzz(target, options.inputs, options.seed, here.parent, watch)
            results.append({"target": name, **found, "written": os.listdir(here)})
        os.chdir(folder)
    print(json.dumps(results))  # noqa: T201
    return 0


def outcome_of(target: Target, content: bytes, folder: Path) -> str:
    """What became of an input: ``read``, or the code of its refusal.

    Raises:
        Exception: Anything else; that is a fault.
    """
    try:
        return target.read(content, folder) or "read"
    except DsloError as error:
        if error.code not in known_codes():
            raise AssertionError(f"{error.code} is not in docs/errors.md") from error
        return error.code


def known_codes(found: set[str] = set()) -> set[str]:  # noqa: B006 - read once
    """The codes of ``docs/errors.md``."""
    if not found:
        found.update(re.findall(r"^\| `([A-Z]\d\d)`", ERRORS.read_text("utf-8"), re.M))
    return found


def fuzz(
    target: Target, count: int, seed: int, folder: Path, watch: Watch
) -> dict[str, Any]:
    """Read what once was a fault, then damaged inputs; returns the figures."""
    known_codes()
    target.prepare(folder)
    for kind, base in target.bases.items():  # what is imported late is imported now
        outcome = outcome_of(target, base.seal(base.content), folder)
        assert outcome.startswith("read"), f"{kind}: {outcome}"
    mended = {
        each.what: _attempt(target, each.content, folder, watch) == each.outcome
        for each in target.found
    }
    for number in range(min(count, 50)):  # what errors import late is imported now
        _attempt(target, input_of(target, seed, number)[1], folder, watch)
    watch.events.clear()
    peak, start, used = held("VmHWM"), time.perf_counter(), time.process_time()
    outcomes: Counter[str] = Counter()
    faults: dict[str, dict[str, Any]] = {}
    slowest, early = (0.0, 0), 0
    progress = os.open(folder / "number", os.O_WRONLY | os.O_CREAT)
    for number in range(count):
        if number == count // 10:
            gc.collect()  # else the growth would be that of cycles not collected yet
            early = held()
        os.pwrite(progress, b"%12d" % number, 0)  # for whoever notices a crash
        kind, content = input_of(target, seed, number)
        before = time.process_time()
        outcome = _attempt(target, content, folder, watch)
        slowest = max(slowest, (time.process_time() - before, number))
        if isinstance(outcome, BaseException):
            _note(faults, outcome, number, kind)
            outcome = "fault"
        outcomes[outcome] += 1
    os.close(progress)
    gc.collect()
    return {
        "inputs": count,
        "seed": seed,
        "mended": mended,
        "outcomes": dict(sorted(outcomes.items())),
        "faults": list(faults.values()),
        "events": watch.events[:],
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(time.process_time() - used, 1),
        "slowest": {"seconds": round(slowest[0], 3), "number": slowest[1]},
        "peak_bytes": held("VmHWM") - peak,
        "grown_bytes": held() - early,
    }


def _attempt(
    target: Target, content: bytes, folder: Path, watch: Watch
) -> str | BaseException:
    """The outcome of an input, or the exception that makes it a fault."""
    try:
        with watch.armed():
            return outcome_of(target, content, folder)
    except (Exception, TooSlow) as error:
        return error


def _note(
    faults: dict[str, dict[str, Any]], error: BaseException, number: int, kind: str
) -> None:
    """Note a fault, once for each place in the code, and how often it comes."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{type(error).__name__} {place.filename}:{place.lineno}"
    trace = "".join(traceback.format_exception(error))[-1500:]
    found = {"number": number, "kind": kind, "error": f"{error!r:.300}"}
    faults.setdefault(where, found | {"trace": trace, "times": 0})["times"] += 1


if __name__ == "__main__":
    sys.exit(main())
