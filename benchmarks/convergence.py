"""Draw ``docs/convergence.svg``: the error of a path and of a velocity, step by step.

    python benchmarks/convergence.py

Four costs on 400 patches: attention as it is, sharpened, with four sinks that draw half
of the mass, and one minus attention divided by its row maximum, whose kernel is nearly
flat but small. Points are measured against float64, lines are what the solver reports.
"""

from functools import partial

import jax
import matplotlib.pyplot as plt
import numpy as np
from pictures import DOCS, save_picture

from dslo_jax.bench.scenes import draw_affinity, draw_source
from dslo_jax.bench.truth import relative_error, true_path
from dslo_jax.solvers import doubly_stochastic, optimal_path


PICTURE = DOCS / "convergence.svg"
_PATCHES, _CLASSES = 400, 4
_EPSILON = 0.1
_STEPS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48)
_COLOURS = ("#0b6e4f", "#1f5fa8", "#d1791e", "#a3324d")


def costs() -> dict[str, np.ndarray]:
    """Four kinds of cost, by name."""
    attention = draw_affinity(_PATCHES)
    sharp = _rows_to_one(attention**3)
    sinks = attention.copy()
    sinks[:, :4] = attention[:, 4:].sum(axis=1, keepdims=True) / 4
    return {
        "attention": attention,
        "sharp": sharp,
        "sinks": _rows_to_one(sinks),
        "1 - attention": 1 - attention / attention.max(axis=1, keepdims=True),
    }


def path_errors(source: np.ndarray, cost: np.ndarray) -> tuple[list[float], np.ndarray]:
    """Measured error after each of ``_STEPS``, and reported ones after every step."""
    truth = true_path(source, cost, epsilon=_EPSILON, max_steps=2000)
    options = {"epsilon": _EPSILON, "tolerance": 0.0, "domain": "kernel"}
    measured = []
    for steps in _STEPS:
        solve = jax.jit(partial(optimal_path, max_steps=steps, **options))
        path = np.asarray(solve(source, cost).path)
        measured.append(relative_error(path, truth))
    record = partial(optimal_path, max_steps=_STEPS[-1], record=True, **options)
    return measured, np.max(jax.jit(record)(source, cost).history, axis=1)


def balance_errors(cost: np.ndarray) -> np.ndarray:
    """Largest distance of a column sum from 1 after every round."""
    balance = partial(doubly_stochastic, max_steps=_STEPS[-1], record=True)
    return np.asarray(jax.jit(balance)(cost).history)


def _rows_to_one(values: np.ndarray) -> np.ndarray:
    return values / values.sum(axis=1, keepdims=True)


def main() -> None:
    """Measure and draw."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4), layout="constrained")
    source = draw_source(_PATCHES, _CLASSES)
    for colour, (name, cost) in zip(_COLOURS, costs().items(), strict=True):
        measured, reported = path_errors(source, cost)
        left.loglog(_STEPS, measured, "o", color=colour, label=name)
        every = np.arange(1, len(reported) + 1)
        left.loglog(every, reported, "-", color=colour, alpha=0.6)
        right.loglog(every, balance_errors(cost), "-", color=colour, label=name)
    left.set(title="optimal path", xlabel="Sinkhorn steps", ylabel="relative error")
    left.set_ylim(5e-8, 30)  # after one step there is no ratio, only the loose bound
    right.set(title="balancing", xlabel="rounds", ylabel="distance from 1")
    for axes in (left, right):
        axes.set_xticks(_STEPS, [str(step) for step in _STEPS])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    save_picture(figure, PICTURE)


if __name__ == "__main__":
    main()
