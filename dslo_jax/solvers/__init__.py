"""Discrepancies between class logits and the uniform distribution.

The solvers are pure functions of arrays that run under ``jit`` and ``vmap``, for all
classes of an image at once. A solution states for each class the number of steps, the
error, whether it converged, and the reason why it ended. A ``Discrepancy`` is a solver
with its options as one value: ``OptimalPath(epsilon=0.05).solve(source, affinity)``.
"""

from dslo_jax.solvers._domains import Domain as Domain
from dslo_jax.solvers.balancing import (
    Transition as Transition,
    doubly_stochastic as doubly_stochastic,
)
from dslo_jax.solvers.discrepancy import Counts as Counts, Discrepancy as Discrepancy
from dslo_jax.solvers.divergence import Divergence as Divergence, kl_map as kl_map
from dslo_jax.solvers.fused import Fused as Fused
from dslo_jax.solvers.iteration import Iteration as Iteration, iterate as iterate
from dslo_jax.solvers.logits import Logits as Logits
from dslo_jax.solvers.path import (
    OptimalPath as OptimalPath,
    PathSolution as PathSolution,
    optimal_path as optimal_path,
)
from dslo_jax.solvers.propagation import LabelPropagation as LabelPropagation
from dslo_jax.solvers.reading import (
    Reading as Reading,
    choose_reading as choose_reading,
    reading_of as reading_of,
)
from dslo_jax.solvers.registry import (
    DISCREPANCIES as DISCREPANCIES,
    discrepancy_of as discrepancy_of,
)
from dslo_jax.solvers.sinkhorn import (
    SinkhornSolution as SinkhornSolution,
    sinkhorn as sinkhorn,
)
from dslo_jax.solvers.solution import Reason as Reason, Solution as Solution
from dslo_jax.solvers.velocity import (
    MaximumVelocity as MaximumVelocity,
    VelocitySolution as VelocitySolution,
    maximum_velocity as maximum_velocity,
)
