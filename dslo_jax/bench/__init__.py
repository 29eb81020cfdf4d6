"""Measurements of the solvers on any machine: ``dslo bench``.

A measurement has a scene to solve, the true result in float64, calls that are timed in
turn, the predicted memory beside that of the compiler, and a description of the
machine. Comparisons with other libraries are in ``benchmarks`` and use the same code.
"""

from dslo_jax.bench.solvers import bench_discrepancy as bench_discrepancy
from dslo_jax.bench.timing import Effort as Effort
