"""The parts of a training run: network, data and loss."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array

from dslo_jax import scenes


Batch = dict[str, np.ndarray]
OnDevice = dict[str, Array]
"""A batch inside a compiled step."""
Metrics = dict[str, Array]


class Progress(NamedTuple):
    """The state of a training run; a pytree of arrays.

    Attributes:
        params: Parameters.
        average: Exponential moving average of ``params``, which is saved in the end.
        optimizer: State of the optimiser.
    """

    params: Any
    average: Any
    optimizer: Any


@dataclass(frozen=True)
class Recipe:
    """One network, its data and its loss.

    The batch and the noise of a step depend only on the seed and the step, so that an
    interrupted run gives the same result.

    Attributes:
        name: Name of the files that the run writes.
        steps: Number of steps.
        begin: Function that makes the progress before the first step.
        batch: Function of a step, counted from 0, to its data; called in another
            thread.
        update: Compiled function of the progress, the batch and the step (an int32
            scalar array) to the next progress and the losses. The old progress is
            donated.
        save: Function that writes the average, in the layout of Hugging Face.
    """

    name: str
    steps: int
    begin: Callable[[], Progress]
    batch: Callable[[int], Batch]
    update: Callable[..., tuple[Progress, Metrics]]
    save: Callable[[Progress], None]


# Number of seeds for each step, so that no two steps share a scene.
_SCENES_PER_STEP = 64


def first_seed(step: int) -> int:
    """The first of the seeds of a step."""
    return scenes.FIRST_TRAINING_SEED + step * _SCENES_PER_STEP
