"""Honest times of the solvers, for any machine: ``dslo bench``.

Scenes to solve, truth in float64, calls timed in turn, memory as predicted and as the
compiler says, and the circumstances that a figure depends on. Peers that need other
libraries live in ``benchmarks`` and are measured with the same means.
"""

from dslo_jax.bench.solvers import bench_discrepancy as bench_discrepancy
from dslo_jax.bench.timing import Effort as Effort
