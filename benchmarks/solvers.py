"""Time of the solvers against their peers, interleaved in one process.

    python benchmarks/solvers.py --peers all --save solvers
    python benchmarks/solvers.py --peers sizes --patches 1024 4096 9216 16384
        --classes 1 8 21 171 --budget 10 --save solver-sizes
    XLA_PYTHON_CLIENT_PREALLOCATE=false python benchmarks/solvers.py --device gpu
        --peers sizes --patches 1024 4096 9216 16384 --classes 8 21 --save solvers-gpu

On a GPU both libraries share one process, and the setting leaves memory for PyTorch.
Every result is compared with float64, and its error is stored beside its time. Times do
not contain compilation, transfers and the first call. If a call takes longer than the
budget, it is the only sample. A peer is left out, with the reason, if it needs too much
memory, or if its time at a smaller size predicts more than the limit. On a machine with
other work, only the ratios are meaningful.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from harness import Record, effort_of, parse_timed
from solver_peers import MATRICES, PEERS

from dslo_jax.bench.compare import Ratio, paired_ratio
from dslo_jax.bench.results import words_of_size
from dslo_jax.bench.scenes import draw_affinity, draw_source
from dslo_jax.bench.timing import Measurement, compile_ahead, measure
from dslo_jax.bench.truth import truth_of
from dslo_jax.devices import find_device
from dslo_jax.solvers import Counts, Discrepancy, OptimalPath, discrepancy_of


BASELINE = {"path": "torch, batched, 50 steps", "velocity": "torch, batched"}
SAME_TRICKS = "torch, with our formulation"
_OURS = "dslo-jax"
_INPUTS = 2  # N x N arrays that are there anyway: NumPy's, shared with torch, and JAX's

Call = Callable[[], Any]
"""Function that returns paths or velocities."""


def our_calls(
    solver: str, source: np.ndarray, affinity: np.ndarray, *, variants: bool
) -> dict[str, Call]:
    """Our discrepancy; for the path, also its variants."""
    arrays = jnp.asarray(source), jnp.asarray(affinity)
    (device,) = arrays[1].devices()
    default = discrepancy_of(solver)
    fitted = default.fitted(Counts.of(source, platform=device.platform))

    def call(arrays: tuple[jax.Array, ...], discrepancy: Discrepancy) -> Call:
        solve = lambda *arrays: discrepancy.solve(*arrays).value  # noqa: E731
        return compile_ahead(solve, *arrays).call

    ours = {_OURS: call(arrays, fitted)}
    if variants and isinstance(fitted, OptimalPath):
        narrow = arrays[0], arrays[1].astype(jnp.bfloat16)
        ours |= {
            "dslo-jax, bfloat16 affinity": call(narrow, fitted),
            "dslo-jax, all rows": call(arrays, default),
            "dslo-jax, 50 steps": call(arrays, replace(fitted, tolerance=0.0)),
            "dslo-jax, log domain": call(arrays, replace(fitted, domain="log")),
        }
    return ours


class Sweep:
    """All sizes in ascending order, so that small ones predict the times of large ones.

    Args:
        options: From the command line.
    """

    def __init__(self, options: argparse.Namespace):
        self._options = options
        self._device = find_device(options.device)
        self._record = Record("dslo.bench.solver-peers.v2", options, self._device)
        self._rows: list[dict[str, Any]] = []

    def run(self) -> None:
        """Measure all sizes."""
        with jax.default_device(self._device):
            self._measure_all()
        self._record.end()

    def _measure_all(self) -> None:
        for patches in sorted(self._options.patches):
            affinity = draw_affinity(patches)
            for classes in sorted(self._options.classes):
                source = draw_source(patches, classes)
                for solver in self._options.solvers:
                    self._measure(solver, source, affinity)

    def _measure(self, solver: str, source: np.ndarray, affinity: np.ndarray) -> None:
        """The rows of one solver at one size."""
        classes, patches = source.shape
        size = {"solver": solver, "patches": patches, "classes": classes}
        truth = truth_of(discrepancy_of(solver))
        true = truth.values(source, affinity)
        calls = self._calls(solver, source, affinity)
        found = measure(calls, effort_of(self._options))
        baseline = found.get(BASELINE[solver])
        for name, measurement in found.items():
            row = {**size, "name": name, **measurement.row}
            row["error"] = truth.error(_in_numpy(measurement.result), true)
            row["baseline_over_this"] = (
                baseline and baseline.median_s / measurement.median_s
            )
            self._rows.append(row)
            label = f"{solver}: {name}, {words_of_size(patches, classes)}"
            self._record.add(row, _words(row, measurement), {label: measurement.row})
        for name, measurement in found.items():
            if name != _OURS:
                ratio = paired_ratio(measurement.samples_s, found[_OURS].samples_s)
                pair = {**size, "a": name, "b": _OURS, **ratio.plain()}
                self._record.pair(pair, _comparison(pair, ratio))

    def _calls(
        self, solver: str, source: np.ndarray, affinity: np.ndarray
    ) -> dict[str, Call]:
        """Our calls, and those of the wanted peers that are not left out."""
        classes, patches = source.shape
        variants = self._options.peers != "sizes"
        peers = PEERS[solver]
        calls = our_calls(solver, source, affinity, variants=variants)
        wanted = {
            "all": list(peers),
            "torch": [BASELINE[solver]],
            "sizes": [BASELINE[solver], SAME_TRICKS],
        }[self._options.peers]
        for name in wanted:
            row = {"solver": solver, "name": name}
            row |= {"patches": patches, "classes": classes}
            if reason := self._too_much(row):
                self._record.skip(row, reason)
            else:
                calls[name] = peers[name](source, affinity)
        return calls

    def _too_much(self, row: dict[str, Any]) -> str | None:
        """The reason to leave a peer out at this size, or ``None``."""
        needed = 4 * (_INPUTS + MATRICES) * row["patches"] ** 2 / 1e9
        if needed > self._options.memory:
            return f"may need {needed:.1f} GB, limit {self._options.memory:g} GB"
        known = [
            other
            for other in self._rows
            if all(other[key] == row[key] for key in ("solver", "name"))
            and all(other[key] <= row[key] for key in ("patches", "classes"))
        ]
        if not known:
            return None
        nearest = max(known, key=_work)
        seconds = nearest["median_s"] * _work(row) / _work(nearest)
        if seconds <= self._options.limit:
            return None
        return (
            f"would take {seconds:.0f} s, by {nearest['patches']} patches and "
            f"{nearest['classes']} classes; limit {self._options.limit:g} s"
        )


def _in_numpy(result: Any) -> np.ndarray:
    return np.asarray(result.cpu() if isinstance(result, torch.Tensor) else result)


def _work(row: dict[str, Any]) -> int:
    return row["patches"] ** 2 * row["classes"]


def _words(row: dict[str, Any], measurement: Measurement) -> str:
    ratio = row["baseline_over_this"]
    return (
        f"{row['patches']:6d} {row['classes']:4d} {row['solver']:8s} {row['name']:28s}"
        f"{1e3 * measurement.median_s:10.1f} ms  error {row['error']:.1e}"
        + (f"  x {ratio:.2f}" if ratio else "")
    )


def _comparison(pair: dict[str, Any], ratio: Ratio) -> str:
    return f"{'':21s}{pair['a']} / {pair['b']}: {ratio.words}"


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patches", type=int, nargs="+", default=[4096])
    parser.add_argument("--classes", type=int, nargs="+", default=[8, 21])
    parser.add_argument("--solvers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--peers", choices=("all", "torch", "sizes"), default="torch")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds of a call")
    parser.add_argument("--memory", type=float, default=8.0, help="gigabytes")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    options = parse_timed(parser)
    if options.device == "gpu":
        if options.peers == "all":
            parser.error("--peers all needs --device cpu: some know nothing else")
        torch.set_default_device("cuda")
    torch.set_num_threads(options.threads)
    Sweep(options).run()


if __name__ == "__main__":
    main()
