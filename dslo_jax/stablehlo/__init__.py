"""Programs of StableHLO that run without this package, on CPU, GPU and TPU."""

from dslo_jax.stablehlo.exports import (
    export_discrepancy as export_discrepancy,
    export_segmenter as export_segmenter,
)
from dslo_jax.stablehlo.program import (
    PLATFORMS as PLATFORMS,
    Program as Program,
    check_target as check_target,
)
