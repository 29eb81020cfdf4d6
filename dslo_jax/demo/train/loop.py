"""Training by a recipe, with checkpoints and a curve; interrupted runs continue."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from dslo_jax.demo.train.recipe import Batch, Progress, Recipe
from dslo_jax.files import atomic_file


_AHEAD = 2


def train(
    recipe: Recipe,
    folder: Path,
    *,
    every: int = 200,
    report: Callable[[str], None] = print,
) -> Progress:
    """Run a recipe to its end; continue an earlier run if it was interrupted.

    Args:
        recipe: The training.
        folder: Folder of ``<name>.npz`` (the progress) and ``<name>.jsonl`` (the
            curve).
        every: Steps between two checkpoints; the curve has a row for each checkpoint.
        report: Called with a line of text for each row of the curve.

    Returns:
        The last progress, which ``recipe.save`` has written.
    """
    progress, done = _resume(recipe, folder)
    sums: dict[str, float] = {}
    begun = time.monotonic()
    for step, batch in _batches(recipe, done):
        progress, metrics = recipe.update(progress, batch, jnp.asarray(step, jnp.int32))
        for name, value in metrics.items():
            sums[name] = sums.get(name, 0.0) + float(value)
        if (step + 1) % every == 0 or step + 1 == recipe.steps:
            count = (step + 1) - done
            row = {name: round(total / count, 6) for name, total in sums.items()}
            if not np.isfinite(list(row.values())).all():
                raise FloatingPointError(f"{recipe.name} diverged before step {step}")
            seconds = (time.monotonic() - begun) / count
            _write(recipe, folder, progress, step + 1, row)
            report(
                f"{recipe.name} {step + 1}/{recipe.steps} {row} {seconds:.2f} s/step"
            )
            sums, done, begun = {}, step + 1, time.monotonic()
    recipe.save(progress)
    return progress


def _batches(recipe: Recipe, first: int) -> Iterator[tuple[int, Batch]]:
    """The steps and their batches, drawn while the device computes."""
    with ThreadPoolExecutor(1) as pool:
        steps = range(first, recipe.steps)
        waiting = [pool.submit(recipe.batch, step) for step in steps[:_AHEAD]]
        for step in steps:
            batch = waiting.pop(0).result()
            if step + _AHEAD < recipe.steps:
                waiting.append(pool.submit(recipe.batch, step + _AHEAD))
            yield step, batch


def _write(
    recipe: Recipe, folder: Path, progress: Progress, step: int, row: dict[str, float]
) -> None:
    """Write the curve before the progress: a resumed run drops rows after its step."""
    with open(folder / f"{recipe.name}.jsonl", "a", encoding="utf-8") as curve:
        curve.write(json.dumps({"step": step, **row}) + "\n")
    leaves = jax.tree.leaves(jax.device_get(progress))
    with atomic_file(folder / f"{recipe.name}.npz") as file:
        np.savez(file, step=step, **{str(i): leaf for i, leaf in enumerate(leaves)})


def _resume(recipe: Recipe, folder: Path) -> tuple[Progress, int]:
    """Read the last progress and its step, or begin."""
    folder.mkdir(parents=True, exist_ok=True)
    file, progress = folder / f"{recipe.name}.npz", recipe.begin()
    curve = folder / f"{recipe.name}.jsonl"
    if not file.exists():
        curve.unlink(missing_ok=True)
        return progress, 0
    with np.load(file) as stored:
        step = int(stored["step"])
        leaves = [jnp.asarray(stored[str(i)]) for i in range(len(stored.files) - 1)]
    rows = [json.loads(line) for line in curve.read_text("utf-8").splitlines()]
    kept = [json.dumps(row) + "\n" for row in rows if row["step"] <= step]
    with atomic_file(curve) as target:
        target.write("".join(kept).encode())
    return jax.tree.unflatten(jax.tree.structure(progress), leaves), step
