"""What a training run is made of, whatever it trains."""

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
    """Everything that a step changes; a pytree of arrays.

    Attributes:
        params: What the optimiser moves.
        average: Exponential moving average of ``params``: what is saved.
        optimizer: The state of the optimiser.
    """

    params: Any
    average: Any
    optimizer: Any


@dataclass(frozen=True)
class Recipe:
    """One network, its data and its loss.

    A batch and the noise of a step depend on the seed and the step alone, so that a
    run that was interrupted sees what it would have seen.

    Attributes:
        name: Of the files that the run writes.
        steps: How many there are.
        begin: The progress before the first step.
        batch: The data of a step, counted from 0; called in another thread.
        update: One step, compiled: from the progress, the batch and the step, an int32
            scalar array. The old progress is donated.
        save: Writes the average, in the layout of Hugging Face.
    """

    name: str
    steps: int
    begin: Callable[[], Progress]
    batch: Callable[[int], Batch]
    update: Callable[..., tuple[Progress, Metrics]]
    save: Callable[[Progress], None]


# Seeds set aside for a step: no scene is drawn for two of them.
_SCENES_PER_STEP = 64


def first_seed(step: int) -> int:
    """The seed of the first scene of a step; the next ones are its own too."""
    return scenes.FIRST_TRAINING_SEED + step * _SCENES_PER_STEP
