"""The page of ``dslo serve``: how soon it answers, and what a flood does to its memory.

    python benchmarks/page.py --save page

Each repeat starts ``dslo serve --model demo`` anew: once with an empty cache of
compiled programs, once with that of the start before. The first request is sent as soon
as the command has printed its address, while it still compiles in the background. The
flood comes after all repeats, in rounds of 100 requests at once and 1000 malformed
ones.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from typing import Any

from harness import RESULTS, parse, save

from dslo_jax.bench.machine import describe_machine


sys.path.insert(0, str(RESULTS.parents[1] / "tests"))

from serve.clients import Served, at_once, is_well, send_malformed


ROUNDS = 6


def first_scene(served: Served) -> dict[str, Any]:
    """The scene that the page begins with."""
    return json.loads(served.client.get("/api/about")[1])["scenes"][0]


def wait_for_warmth(served: Served) -> None:
    """Wait until nothing is compiled in the background."""
    while not json.loads(served.client.get("/api/state")[1])["ready"]:
        time.sleep(0.2)


def seconds_of(served: Served, scene: dict[str, Any], **options: Any) -> float:
    """Seconds of one request, as a browser sees them."""
    start = time.perf_counter()
    served.client.result(f"scene-{scene['seed']}", scene["words"], **options)
    return time.perf_counter() - start


def measure_start() -> dict[str, float]:
    """Start the page and ask for a result at once."""
    start = time.perf_counter()
    with Served() as served:
        loaded, before = time.perf_counter() - start, served.cpu_seconds
        first = seconds_of(served, first_scene(served))
        return {
            "loading": loaded,
            "loading, of processors": before,
            "first result": first,
            "first result, of processors": served.cpu_seconds - before,
        }


def measure_sliders(served: Served) -> dict[str, float]:
    """Medians of requests that differ from the one before in one number."""
    wait_for_warmth(served)
    scene = first_scene(served)
    found = {}
    for mode, name, low in (
        ("velocity", "threshold", 0.2),
        ("path", "epsilon", 0.05),
        ("fused", "threshold", 0.2),
    ):
        values = [low + 0.01 * step for step in range(21)]
        times = [
            seconds_of(served, scene, draft=True, mode=mode, **{name: value})
            for value in values
        ]
        found[f"{mode}, another {name}"] = statistics.median(times[1:])
    return found


def measure_flood(served: Served) -> dict[str, Any]:
    """Send rounds of many and of malformed requests."""
    rounds = []
    for seed in range(ROUNDS):
        done, busy = at_once(served.client, 100)
        statuses = send_malformed(served.client, 1000, seed, threads=16)
        is_well(served.client)
        rounds.append(
            {
                "answered": done,
                "told_to_come_back": busy,
                "malformed": {str(key): n for key, n in sorted(statuses.items())},
                "mebibytes": round(served.mebibytes),
            }
        )
    return {"rounds": rounds}


def main() -> None:
    """Measure, print, and write if asked to."""
    options = parse(argparse.ArgumentParser(description=__doc__), repeats=5)
    starts: dict[str, list[dict[str, float]]] = {"empty cache": [], "kept programs": []}
    result: dict[str, Any] = {"machine": describe_machine()}
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as cache:
            os.environ["DSLO_CACHE"] = cache
            for times in starts.values():
                times.append(measure_start())
    result["starts"] = starts
    with tempfile.TemporaryDirectory() as cache:
        os.environ["DSLO_CACHE"] = cache
        with Served() as served:
            result["sliders"] = measure_sliders(served)
            result["flood"] = measure_flood(served)
        result["faults"] = served.errors.count("Traceback")
    print(json.dumps(result, indent=1))
    if options.save:
        save(options.save, result)


if __name__ == "__main__":
    main()
