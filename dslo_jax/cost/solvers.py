"""How much the solvers compute and move, by formulas of our own.

The counts follow the solvers as they are written: every pass over an array that is too
large to stay near the processor is counted, a block that is used twice while it is
there is not. A class counts in the steps it takes itself, though others go on; padding
counts nowhere. Multiplying and adding count one each. The compiler's own counts are
no substitute: the body of a loop counts once there, however often it runs.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Int

from dslo_jax.cost.work import WORD, Work
from dslo_jax.solvers import (
    Discrepancy,
    Divergence,
    MaximumVelocity,
    OptimalPath,
    Reading,
)


# What a change of a solver changes here: how often it reads its matrix, and what it
# does to every entry on the way, beside matrix products and exponentials.
STEP = 4  # (mean - cost) / epsilon, cut off; 1 - K
STEP_READS = 1  # a block of rows serves both products
FIRST_STEP = 4  # more: mean, least, greatest; the sum that serves as a product
TRANSPORT = 4  # (mean - cost) / epsilon, cut off; cost * K
BALANCING_READS = 2  # of the affinity, in a round
BEFORE_BALANCING_READS = 1  # the smallest entry
CHAIN_STATES = 4  # arrays [classes, patches] read or written in a step


def path_work(
    num_steps: Int[np.ndarray, "images classes"],
    patches: int,
    *,
    reading: Reading,
    itemsize: int = WORD,
) -> Work:
    """Of ``optimal_path`` in the domain ``"kernel"``.

    A step reads the rows with mass, makes their kernel and multiplies twice with it,
    but once in the first step; the transport makes it once more and multiplies once.

    Args:
        num_steps: Of each class.
        patches: Of an image.
        reading: What is read of the affinity.
        itemsize: Bytes of an entry of the affinity.
    """
    images, classes = num_steps.shape
    longest = num_steps.max(axis=1, keepdims=True, initial=0)
    steps = int(longest.sum())  # the kernel serves all classes
    rows = reading.rows(patches)
    entries = rows * patches
    # A pair serves one class, and takes part as long as any does.
    served = num_steps if reading.pairs is None else longest
    products = 2 * int(served.sum()) - int((served > 0).sum()) + served.size
    flops = steps * STEP + images * (FIRST_STEP + TRANSPORT) + 2 * products
    # Scalings of rows and columns: those before, and those after.
    states = 2 * classes * (rows + patches) * (steps + images)
    return Work(
        flops=entries * flops,
        transcendentals=entries * (steps + images),
        bytes=entries * itemsize * (steps * STEP_READS + images) + WORD * states,
        working_set_bytes=images * entries * itemsize,
    )


def velocity_work(
    num_steps: Int[np.ndarray, "images classes"],
    patches: int,
    *,
    rounds: int = 15,
    itemsize: int = WORD,
) -> Work:
    """Of ``maximum_velocity``: rounds of balancing, then the steps of the chain.

    Args:
        num_steps: Of each class.
        patches: Of an image.
        rounds: Of balancing, each with two products of the affinity and a vector.
        itemsize: Bytes of an entry of the affinity; a narrow one is widened first.
    """
    images, classes = num_steps.shape
    steps = int(num_steps.max(axis=1, initial=0).sum())
    entries = patches**2
    # The smallest entry, and two products with a vector in a round.
    balancing = images * entries * (1 + rounds * 2 * 2)
    chain = int(num_steps.sum()) * 2 * entries
    reads = BEFORE_BALANCING_READS + rounds * BALANCING_READS
    widening = entries * (itemsize + WORD) * (itemsize < WORD)
    return Work(
        flops=balancing + chain,
        bytes=images * (WORD * reads * entries + widening)
        + WORD * steps * (entries + CHAIN_STATES * classes * patches),
        working_set_bytes=images * entries * WORD,
    )


def kl_work(images: int, classes: int, patches: int) -> Work:
    """Of ``kl_map``: a sum, a logarithm, a difference and a product of every entry."""
    entries = images * classes * patches
    return Work(
        flops=3 * entries,
        transcendentals=entries,
        bytes=3 * WORD * entries,
        working_set_bytes=2 * WORD * entries,
    )


def solver_work(
    discrepancy: Discrepancy,
    num_steps: Int[np.ndarray, "images classes"],
    patches: int,
    *,
    itemsize: int = WORD,
) -> Work | None:
    """What a discrepancy had to do, to solve with these steps.

    Args:
        discrepancy: As it was solved with, ``fitted``.
        num_steps: Of each class; zeros where there are no steps.
        patches: Of an image.
        itemsize: Bytes of an entry of the affinity.

    Returns:
        None where there is no formula: for discrepancies of other classes than ours;
        for two that are fused, whose steps are known together only; and for paths in
        the domain ``"log"``.
    """
    formula = _FORMULAS.get(type(discrepancy))
    if formula is None:
        return None
    return formula(discrepancy, num_steps, patches, itemsize)


_Formula = Callable[[Any, np.ndarray, int, int], Work | None]


def _of_path(
    path: OptimalPath, num_steps: np.ndarray, patches: int, itemsize: int
) -> Work | None:
    if path.domain == "log":
        return None
    reading = Reading(path.support, path.pairs)
    return path_work(num_steps, patches, reading=reading, itemsize=itemsize)


def _of_velocity(
    velocity: MaximumVelocity, num_steps: np.ndarray, patches: int, itemsize: int
) -> Work:
    rounds = velocity.balancing_steps
    return velocity_work(num_steps, patches, rounds=rounds, itemsize=itemsize)


def _of_kl(_: Divergence, num_steps: np.ndarray, patches: int, __: int) -> Work:
    images, classes = num_steps.shape
    return kl_work(images, classes, patches)


# By class and not by name: a discrepancy that bears the name of ours may do other work.
_FORMULAS: Mapping[type[Discrepancy], _Formula] = MappingProxyType(
    {OptimalPath: _of_path, MaximumVelocity: _of_velocity, Divergence: _of_kl}
)
