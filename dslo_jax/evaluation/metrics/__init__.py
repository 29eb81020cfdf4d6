"""Agreement of labels with true labels: counts of pixels, and scores from them."""

from dslo_jax.evaluation.metrics.boundary import (
    BoundaryCounts as BoundaryCounts,
    boundary_counts as boundary_counts,
)
from dslo_jax.evaluation.metrics.confusion import (
    IGNORE as IGNORE,
    Confusion as Confusion,
)
