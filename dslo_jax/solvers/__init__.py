"""The heart: discrepancies between class logits and the uniform distribution.

Pure functions of arrays, all classes of an image at once, under ``jit`` and ``vmap``.
Every solution says for each class how many steps it took, how large the error is, and
whether it converged.
"""

from dslo_jax.solvers._stub import *  # noqa
from dslo_jax.solvers._stub import DISCREPANCIES
from dslo_jax.solvers.divergence import kl_map as kl_map
from dslo_jax.solvers.markov import (
    Transition as Transition,
    VelocitySolution as VelocitySolution,
    doubly_stochastic as doubly_stochastic,
    maximum_velocity as maximum_velocity,
)
from dslo_jax.solvers.memory import (
    path_bytes as path_bytes,
    velocity_bytes as velocity_bytes,
)
from dslo_jax.solvers.reading import (
    Reading as Reading,
    choose_reading as choose_reading,
    reading_of as reading_of,
)
from dslo_jax.solvers.sinkhorn import (
    Domain as Domain,
    PathSolution as PathSolution,
    SinkhornSolution as SinkhornSolution,
    optimal_path as optimal_path,
    sinkhorn as sinkhorn,
)
