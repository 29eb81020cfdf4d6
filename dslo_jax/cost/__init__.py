"""Computation and memory of networks and solvers, by formulas of our own.

There is one formula for each. It serves the efficiency table of an evaluation, the
roofline of ``dslo bench``, and the prediction whether a size fits into memory.
"""

from dslo_jax.cost.memory import (
    path_bytes as path_bytes,
    solver_bytes as solver_bytes,
    velocity_bytes as velocity_bytes,
)
from dslo_jax.cost.solvers import solver_work as solver_work
from dslo_jax.work import Work as Work
