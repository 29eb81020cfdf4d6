"""Computation and memory traffic of the solvers, by formulas of our own.

The formulas follow the code of the solvers. Every pass over an array that does not fit
the cache is counted; the second use of a block in the cache is not. A class is counted
only in the steps that it takes itself, and padding is not counted. A multiplication and
an addition are one FLOP each. The compiler's counts cannot be used, because it counts
the body of a loop once, however often it runs.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from dslo_jax.solvers import (
    Discrepancy,
    Divergence,
    MaximumVelocity,
    OptimalPath,
    Reading,
)
from dslo_jax.work import WORD, Work


# Numbers that must follow a change of a solver: operations on each entry of a matrix,
# without matrix products and exponentials.
STEP = 4  # (mean - cost) / epsilon, cut off; 1 - K
FIRST_STEP = 4  # in addition: mean, least, greatest, and the sum in place of a product
TRANSPORT = 4  # (mean - cost) / epsilon, cut off; cost * K


class Passes(NamedTuple):
    """How often a solver reads or writes an array, on one kind of device.

    Attributes:
        step: Reads of the rows in a step of a path.
        step_kernel: Reads and writes of their kernel in float32.
        transport: Reads of the rows for the transport.
        transport_kernel: Reads and writes of the kernel for it.
        before_balancing: Reads of the affinity besides those of the rounds.
        chain_states: Arrays [classes, patches] read or written in a step of the chain.
    """

    step: int = 1
    step_kernel: int = 0
    transport: int = 1
    transport_kernel: int = 0
    before_balancing: int = 0
    chain_states: int = 4


PASSES: Mapping[str, Passes] = MappingProxyType(
    {
        # One read of a block serves both products, and the kernel stays in the cache.
        "cpu": Passes(before_balancing=1),
        # The kernel is written, and read by each product. The cache may hold it.
        "gpu": Passes(step_kernel=3, transport_kernel=2, chain_states=12),
        # Each product computes the kernel itself.
        "tpu": Passes(step=2),
    }
)
"""The passes of each platform; on GPUs and TPUs as the compiled programs make them."""

BALANCING_READS = 2  # reads of the affinity in a round


def path_work(
    num_steps: Int[np.ndarray, "images classes"],
    patches: int,
    *,
    reading: Reading,
    itemsize: int = WORD,
    platform: str = "cpu",
) -> Work:
    """Computation of ``optimal_path`` in the domain ``"kernel"``.

    A step reads the rows with mass, computes their kernel, and multiplies by it twice;
    the first step multiplies once. The transport computes the kernel and multiplies
    once.

    Args:
        num_steps: Number of steps of each class.
        patches: Number of patches of an image.
        reading: Rows of the affinity that are read.
        itemsize: Bytes of an entry of the affinity.
        platform: ``"cpu"``, ``"gpu"`` or ``"tpu"``.
    """
    passes = PASSES.get(platform, PASSES["gpu"])
    images, classes = num_steps.shape
    longest = num_steps.max(axis=1, keepdims=True, initial=0)
    steps = int(longest.sum())  # the kernel serves all classes
    rows = reading.rows(patches)
    entries = rows * patches
    # A pair serves one class, and is computed until the last class stops.
    served = num_steps if reading.pairs is None else longest
    products = 2 * int(served.sum()) - int((served > 0).sum()) + served.size
    flops = steps * STEP + images * (FIRST_STEP + TRANSPORT) + 2 * products
    reads = steps * passes.step + images * passes.transport
    kernels = steps * passes.step_kernel + images * passes.transport_kernel
    # Scalings of rows and columns, before and after a step.
    states = 2 * classes * (rows + patches) * (steps + images)
    return Work(
        flops=entries * flops,
        transcendentals=entries * (steps + images),
        bytes=entries * (itemsize * reads + WORD * kernels) + WORD * states,
        working_set_bytes=images * entries * itemsize,
    )


def velocity_work(
    num_steps: Int[np.ndarray, "images classes"],
    patches: int,
    *,
    rounds: int = 15,
    itemsize: int = WORD,
    platform: str = "cpu",
) -> Work:
    """Computation of ``maximum_velocity``: rounds of balancing, then the chain.

    Args:
        num_steps: Number of steps of each class.
        patches: Number of patches of an image.
        rounds: Rounds of balancing, each with two products of the affinity and a
            vector.
        itemsize: Bytes of an entry of the affinity; a CPU widens a narrow one first.
        platform: ``"cpu"``, ``"gpu"`` or ``"tpu"``.
    """
    passes = PASSES.get(platform, PASSES["gpu"])
    images, classes = num_steps.shape
    steps = int(num_steps.max(axis=1, initial=0).sum())
    entries = patches**2
    # The smallest entry, and two products with a vector in a round.
    balancing = images * entries * (1 + rounds * 2 * 2)
    chain = int(num_steps.sum()) * 2 * entries
    is_widened = platform == "cpu" and itemsize < WORD
    widening = entries * (itemsize + WORD) if is_widened else 0
    stored = entries * (WORD if is_widened else itemsize)
    reads = images * (passes.before_balancing + rounds * BALANCING_READS) + steps
    states = steps * passes.chain_states * classes * patches
    return Work(
        flops=balancing + chain,
        bytes=images * widening + stored * reads + WORD * states,
        working_set_bytes=images * stored,
    )


def kl_work(images: int, classes: int, patches: int) -> Work:
    """Computation of ``kl_map``: sum, logarithm, difference, product for each entry."""
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
    platform: str = "cpu",
) -> Work | None:
    """Computation of a discrepancy that took these steps.

    Args:
        discrepancy: The fitted discrepancy.
        num_steps: Number of steps of each class; zeros for a closed form.
        patches: Number of patches of an image.
        itemsize: Bytes of an entry of the affinity.
        platform: ``"cpu"``, ``"gpu"`` or ``"tpu"``.

    Returns:
        The computation for a velocity, a divergence, or a path that is not in the
        domain ``"log"``; ``None`` for everything else.
    """
    stored = {"itemsize": itemsize, "platform": platform}
    # By class: a subclass, or another class with the same name, may compute otherwise.
    if type(discrepancy) is Divergence:
        images, classes = num_steps.shape
        return kl_work(images, classes, patches)
    if type(discrepancy) is MaximumVelocity:
        rounds = discrepancy.balancing_steps
        return velocity_work(num_steps, patches, rounds=rounds, **stored)
    if type(discrepancy) is OptimalPath and discrepancy.domain != "log":
        reading = Reading(discrepancy.support, discrepancy.pairs)
        return path_work(num_steps, patches, reading=reading, **stored)
    return None
