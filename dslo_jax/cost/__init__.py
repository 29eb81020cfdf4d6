"""What networks and solvers cost: computation and memory, by formulas of our own.

One formula for each, which serves the efficiency table of an evaluation, the roofline
of ``dslo bench``, and whoever wants to know beforehand whether a size fits.
"""

from dslo_jax.cost.memory import (
    path_bytes as path_bytes,
    solver_bytes as solver_bytes,
    velocity_bytes as velocity_bytes,
)
from dslo_jax.cost.solvers import solver_work as solver_work
from dslo_jax.cost.work import Work as Work
