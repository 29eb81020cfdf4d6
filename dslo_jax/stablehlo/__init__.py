"""Programs of StableHLO that run without this package, on CPU, GPU and TPU."""

from dslo_jax.stablehlo.exports import (
    check_sizes as check_sizes,
    export_discrepancy as export_discrepancy,
    export_segmenter as export_segmenter,
)
from dslo_jax.stablehlo.program import (
    PLATFORMS as PLATFORMS,
    Program as Program,
    check_platforms as check_platforms,
    check_target as check_target,
)
