"""How well labels agree with the truth: counts that add up, and scores of them."""

from dslo_jax.evaluation.metrics.boundary import (
    BoundaryCounts as BoundaryCounts,
    boundary_counts as boundary_counts,
)
from dslo_jax.evaluation.metrics.confusion import (
    IGNORE as IGNORE,
    Confusion as Confusion,
)
