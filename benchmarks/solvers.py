"""Time of the solvers against plain batched PyTorch, interleaved in one process.

    python benchmarks/solvers.py --patches 4096 --classes 8 21 --save

The baseline is the paper's arithmetic on whole matrices, all classes at once: 50
Sinkhorn steps on every row, and the transition matrix formed in 15 rounds. Its
results are compared with ours before anything is timed. Compilation, transfers and
the first call are not in the times. On a shared machine only the ratios mean anything.
"""

import argparse
import statistics
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import torch
from harness import describe_machine, interleave, ratio, save

from dslo_jax.solvers import doubly_stochastic, maximum_velocity, optimal_path


EPSILON, THRESHOLD = 0.1, 0.3


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


def torch_path(source: torch.Tensor, affinity: torch.Tensor) -> torch.Tensor:
    """Eq. 3-8: 50 steps on all rows."""
    patches = affinity.shape[0]
    kernel = torch.exp(-affinity / EPSILON)
    nu = torch.ones_like(source)
    for _ in range(50):
        mu = source / (nu @ kernel.T)
        nu = (1 / patches) / (mu @ kernel)
    return nu * (mu @ (kernel * affinity))


def torch_velocity(source: torch.Tensor, affinity: torch.Tensor) -> torch.Tensor:
    """Eq. 10-11 on the matrix, and first passage of the rescaled state."""
    transition = affinity
    for _ in range(15):
        transition = transition / transition.sum(dim=0, keepdim=True)
        transition = transition / transition.sum(dim=1, keepdim=True)
    state = source / source.amax(dim=1, keepdim=True)
    arrival = torch.where(state > THRESHOLD, 0.0, torch.inf)
    step = 0
    while torch.isinf(arrival).any() and step < 1000:
        new = state @ transition
        new = new / new.amax(dim=1, keepdim=True)
        step += 1
        gain = 1 - THRESHOLD if step == 1 else new - state
        part = (new - THRESHOLD) / gain
        arrival = torch.where(
            (new > THRESHOLD) & torch.isinf(arrival), step - part, arrival
        )
        state = new
    return 1 / (1 + arrival)


def rounded_up(count: int, multiple: int = 128) -> int:
    """Static sizes come in buckets, so that images share a compilation."""
    return -(-count // multiple) * multiple


def contenders(patches: int, classes: int) -> dict[str, Callable[[], object]]:
    """One function of no argument per row of the table, checked against each other."""
    source, affinity = scene(patches, classes)
    ours = jnp.asarray(source), jnp.asarray(affinity)
    theirs = torch.from_numpy(source), torch.from_numpy(affinity)
    support = min(patches, rounded_up(int((source > 0).any(axis=0).sum())))
    path = jax.jit(lambda *arrays: optimal_path(*arrays, support=support))
    paper = jax.jit(
        lambda *arrays: optimal_path(*arrays, support=support, tolerance=0.0)
    )
    every_row = jax.jit(optimal_path)
    velocity, balance = jax.jit(maximum_velocity), jax.jit(doubly_stochastic)

    np.testing.assert_allclose(path(*ours).path, torch_path(*theirs), rtol=1e-5)
    np.testing.assert_allclose(
        velocity(*ours).velocity, torch_velocity(*theirs), atol=1e-4
    )
    return {
        "path: torch, batched, 50 steps": lambda: torch_path(*theirs),
        "path: rows with mass": lambda: path(*ours),
        "path: rows with mass, 50 steps": lambda: paper(*ours),
        "path: all rows": lambda: every_row(*ours),
        "velocity: torch, batched": lambda: torch_velocity(*theirs),
        "velocity": lambda: velocity(*ours),
        "velocity: balancing alone": lambda: balance(ours[1]),
    }


def main() -> None:
    """Measure, print a table, and keep it if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patches", type=int, default=4096)
    parser.add_argument("--classes", type=int, nargs="+", default=[8, 21])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--save", action="store_true", help="write results/solvers.json"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for classes in options.classes:
        run = {
            name: lambda call=call: jax.block_until_ready(call())
            for name, call in contenders(options.patches, classes).items()
        }
        samples = interleave(run, repeats=options.repeats)
        for name, seconds in samples.items():
            peer = next(
                key for key in samples if key.split(":")[0] == name.split(":")[0]
            )
            row = {
                "name": name,
                "patches": options.patches,
                "classes": classes,
                "median_s": statistics.median(seconds),
                "samples_s": seconds,
                "torch_over_this": ratio(samples[peer], seconds),
            }
            rows.append(row)
            print(f"{options.patches:6d} {classes:4d}  {name:32s}", end="")
            print(f"{1e3 * row['median_s']:9.1f} ms   x {row['torch_over_this']:.1f}")
    if options.save:
        machine = {**describe_machine(), "threads": options.threads}
        print(save("solvers", {"machine": machine, "rows": rows}))


if __name__ == "__main__":
    main()
