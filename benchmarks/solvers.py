"""Time of the solvers against their peers, interleaved in one process.

    python benchmarks/solvers.py --peers all --save solvers
    python benchmarks/solvers.py --peers sizes --patches 1024 4096 9216 16384
        --classes 1 8 21 171 --save solver-sizes

Every result is compared with float64 before it is timed, and its error stands next to
its time. Compilation, transfers and the first call are not in the times. A peer whose
first call takes longer than the budget is timed by that call alone. On a shared machine
only the ratios mean anything.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from harness import describe_machine, interleave, save
from solver_peers import (
    PATHS,
    VELOCITIES,
    torch_path,
    torch_path_tricks,
    torch_velocity,
    torch_velocity_tricks,
)

from dslo_jax.solvers import maximum_velocity, optimal_path


BASELINE = {"path": "torch, batched, 50 steps", "velocity": "torch, batched"}
SAME_TRICKS = "torch, with our formulation"
# Above this many patches the plain loops take minutes and gigabytes in float64; then
# the truth is our formulation in float64, run to the end.
_PLAIN_TRUTH = 4096


def scene(patches: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Attention-like rows: five regions, locality, noise; 15 % of the patches kept."""
    rng = np.random.default_rng(seed)
    side = int(patches**0.5)
    if side * side != patches:
        raise ValueError(f"`patches` is {patches}, expected a square number")
    place = np.stack(np.divmod(np.arange(patches), side), axis=1) / side
    centres = rng.uniform(0, 1, (5, 2))
    region = ((place[:, None] - centres[None]) ** 2).sum(axis=2).argmin(axis=1)
    distance = ((place[:, None] - place[None]) ** 2).sum(axis=2)
    logits = 3 * (region[:, None] == region[None]) - 12 * distance
    logits = logits + rng.normal(size=(patches, patches)) + 2 * np.eye(patches)
    affinity = np.exp(logits)
    affinity /= affinity.sum(axis=1, keepdims=True)
    owner = rng.integers(0, classes, patches)
    keep = (rng.uniform(size=patches) < 0.15) & (
        owner[None] == np.arange(classes)[:, None]
    )
    source = rng.uniform(0.5, 1.5, (classes, patches)) * keep
    source /= source.sum(axis=1, keepdims=True)
    return source.astype(np.float32), affinity.astype(np.float32)


def rounded_up(count: int, multiple: int = 128) -> int:
    """Static sizes come in buckets, so that images share a compilation."""
    return -(-count // multiple) * multiple


Calls = dict[str, Callable[[], Any]]
"""What is timed, by name; each returns paths or velocities."""


def path_calls(source: np.ndarray, affinity: np.ndarray) -> Calls:
    """Our optimal paths."""
    patches = affinity.shape[0]
    support = min(patches, rounded_up(int((source > 0).any(axis=0).sum())))
    arrays = jnp.asarray(source), jnp.asarray(affinity)
    narrow = arrays[0], arrays[1].astype(jnp.bfloat16)

    def call(arrays: tuple[jax.Array, ...], **options: Any) -> Callable[[], Any]:
        solve = jax.jit(lambda *arrays: optimal_path(*arrays, **options).path)
        return lambda: jax.block_until_ready(solve(*arrays))

    return {
        "dslo-jax": call(arrays, support=support),
        "dslo-jax, bfloat16 affinity": call(narrow, support=support),
        "dslo-jax, all rows": call(arrays),
        "dslo-jax, 50 steps": call(arrays, support=support, tolerance=0.0),
        "dslo-jax, log domain": call(arrays, support=support, domain="log"),
    }


def velocity_calls(source: np.ndarray, affinity: np.ndarray) -> Calls:
    """Our velocities."""
    arrays = jnp.asarray(source), jnp.asarray(affinity)
    solve = jax.jit(lambda *arrays: maximum_velocity(*arrays).velocity)
    return {"dslo-jax": lambda: jax.block_until_ready(solve(*arrays))}


def truth_of(solver: str, source: np.ndarray, affinity: np.ndarray) -> np.ndarray:
    """Paths or velocities in float64."""
    wide = torch.from_numpy(source).double(), torch.from_numpy(affinity).double()
    is_small = len(affinity) <= _PLAIN_TRUTH
    if solver == "path":
        truth = torch_path(*wide) if is_small else torch_path_tricks(*wide, 1e-14)
    else:
        truth = (torch_velocity if is_small else torch_velocity_tricks)(*wide)
    return truth.numpy()


def measure(
    calls: Calls, truth: np.ndarray, *, repeats: int, budget: float
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Samples in seconds, and the largest errors relative to the truth.

    The first call compiles and is not timed, unless it takes longer than the budget:
    then it is all there is.
    """
    samples, errors, affordable = {}, {}, {}
    for name, call in calls.items():
        start = time.perf_counter()
        result = np.asarray(call())
        seconds = time.perf_counter() - start
        errors[name] = float(np.max(np.abs(result - truth) / np.abs(truth)))
        if seconds > budget:
            samples[name] = [seconds]
        else:
            affordable[name] = call
    return samples | interleave(affordable, repeats=repeats), errors


def rows_of(
    solver: str, patches: int, classes: int, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """The rows of one solver at one size."""
    source, affinity = scene(patches, classes)
    truth = truth_of(solver, source, affinity)
    if solver == "path":
        peers, calls = PATHS, path_calls(source, affinity)
    else:
        peers, calls = VELOCITIES, velocity_calls(source, affinity)
    if options.peers == "sizes":
        calls = {"dslo-jax": calls["dslo-jax"]}
    wanted = {
        "all": list(peers),
        "torch": [BASELINE[solver]],
        "sizes": [BASELINE[solver], SAME_TRICKS],
    }[options.peers]
    calls |= {name: peers[name](source, affinity) for name in wanted}
    samples, errors = measure(
        calls, truth, repeats=options.repeats, budget=options.budget
    )
    baseline = samples[BASELINE[solver]]
    return [
        {
            "solver": solver,
            "name": name,
            "patches": patches,
            "classes": classes,
            "median_s": statistics.median(seconds),
            "samples_s": seconds,
            "error": errors[name],
            "baseline_over_this": statistics.median(baseline)
            / statistics.median(seconds),
        }
        for name, seconds in samples.items()
    ]


def main() -> None:
    """Measure, print a table, and keep it if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patches", type=int, nargs="+", default=[4096])
    parser.add_argument("--classes", type=int, nargs="+", default=[8, 21])
    parser.add_argument("--solvers", nargs="+", default=list(BASELINE))
    parser.add_argument("--peers", choices=("all", "torch", "sizes"), default="torch")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--budget", type=float, default=20.0, help="seconds of a call")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--save", metavar="NAME", help="write results/NAME.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    machine = {**describe_machine(), "threads": options.threads}
    rows: list[dict[str, Any]] = []
    for patches in options.patches:
        for classes in options.classes:
            for solver in options.solvers:
                found = rows_of(solver, patches, classes, options)
                rows += found
                for row in found:
                    print(
                        f"{patches:6d} {classes:4d} {solver:8s} {row['name']:28s}"
                        f"{1e3 * row['median_s']:10.1f} ms  error {row['error']:.1e}"
                        f"  x {row['baseline_over_this']:.2f}",
                        flush=True,
                    )
                if options.save:
                    save(options.save, {"machine": machine, "rows": rows})


if __name__ == "__main__":
    main()
