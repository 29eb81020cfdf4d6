"""The pipeline from photos and words to labels: networks, steps and programs."""

from dslo_jax.pipeline.adjustable import AdjustableSolver as AdjustableSolver
from dslo_jax.pipeline.background import (
    ClassLabels as ClassLabels,
    check_background as check_background,
)
from dslo_jax.pipeline.batch import (
    Batch as Batch,
    ScaledPhoto as ScaledPhoto,
)
from dslo_jax.pipeline.by_device import Room as Room
from dslo_jax.pipeline.memory import Memory as Memory, Solved as Solved
from dslo_jax.pipeline.mesh import place as place
from dslo_jax.pipeline.networks import Networks as Networks
from dslo_jax.pipeline.placement import Placement as Placement
from dslo_jax.pipeline.programs import (
    SolverInput as SolverInput,
    forget_programs as forget_programs,
    num_compilations as num_compilations,
)
from dslo_jax.pipeline.steps import Steps as Steps
