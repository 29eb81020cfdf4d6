"""How near a solver comes to what the device can do: work counted by hand, over peaks.

The counts follow the solvers as they are written: every pass over an array that is too
large to stay near the processor is counted, a block that is used twice while it is
there is not. A class counts in the steps it takes itself, though others go on; padding
counts nowhere. Multiplying and adding count one each. The compiler's own counts are
no substitute: the body of a loop counts once there, however often it runs.
"""

from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Int

from dslo_jax.bench.peaks import Peaks
from dslo_jax.solvers import Reading


WORD = 4  # bytes of float32

# What a change of a solver changes here: how often it reads its matrix, and what it
# does to every entry on the way, beside matrix products and exponentials.
STEP = 4  # (mean - cost) / epsilon, cut off; 1 - K
STEP_READS = 1  # a block of rows serves both products
FIRST_STEP = 4  # more: mean, least, greatest; the sum that serves as a product
TRANSPORT = 4  # (mean - cost) / epsilon, cut off; cost * K
BALANCING_READS = 2  # of the affinity, in a round
BALANCING_ROUNDS = 15
BEFORE_BALANCING_READS = 1  # the smallest entry
CHAIN_STATES = 4  # arrays [classes, patches] read or written in a step
NEIGHBOURS = 25
WEIGHING = 16  # of a pixel and a neighbour: distance, three colours, smallest exponent
HEAD_PASSES = 4  # scores written and read, the sum of the heads read and written
SOFTMAX = 7  # scale, largest, minus, sum, divide, weight, add


class Work(NamedTuple):
    """What has to be done.

    Attributes:
        flops: Additions, multiplications, divisions, comparisons.
        transcendentals: Exponentials and logarithms, which take a unit of their own or
            many operations.
        bytes: Read and written.
        working_set_bytes: What is passed over again and again.
    """

    flops: int
    transcendentals: int
    bytes: int
    working_set_bytes: int

    def seconds(self, peaks: Peaks) -> dict[str, float]:
        """At the peak of each resource, if nothing else took time."""
        return {
            "compute": self.flops / peaks.flops_per_s,
            "transcendentals": self.transcendentals / peaks.transcendentals_per_s,
            "memory": (
                self.bytes / peaks.bandwidth(self.working_set_bytes).bytes_per_s
            ),
        }


Bound = Literal["compute", "transcendentals", "memory"]


class Roofline(NamedTuple):
    """A time against the least that the peaks allow.

    Attributes:
        seconds_at_peak: Of the resource that takes longest.
        fraction: Of the peak that was reached: 1 would be perfect.
        bound: That resource.
        bandwidth_of_bytes: The working set whose bandwidth was used.
    """

    seconds_at_peak: float
    fraction: float
    bound: Bound
    bandwidth_of_bytes: int


def roofline(work: Work, peaks: Peaks, seconds: float) -> Roofline:
    """Compare a time with the peaks.

    Args:
        work: Done in this time.
        peaks: Of the same device, measured in the same run.
        seconds: That it took.
    """
    times: dict[Any, float] = work.seconds(peaks)
    bound = max(times, key=times.__getitem__)
    return Roofline(
        times[bound],
        times[bound] / seconds,
        bound,
        peaks.bandwidth(work.working_set_bytes).working_set_bytes,
    )


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
    steps = int(num_steps.max(axis=1).sum())  # the kernel serves all classes
    rows = reading.rows(patches)
    entries = rows * patches
    # A pair serves one class, and takes part as long as any does.
    is_shared = reading.pairs is None
    served = num_steps if is_shared else num_steps.max(axis=1, keepdims=True)
    products = 2 * int(served.sum()) - int((served > 0).sum()) + served.size
    flops = steps * STEP + images * (FIRST_STEP + TRANSPORT) + 2 * products
    # Scalings of rows and columns: those before, and those after.
    states = 2 * classes * (rows + patches) * (steps + images)
    return Work(
        entries * flops,
        entries * (steps + images),
        entries * itemsize * (steps * STEP_READS + images) + WORD * states,
        images * entries * itemsize,
    )


def velocity_work(
    num_steps: Int[np.ndarray, "images classes"], patches: int, *, itemsize: int = WORD
) -> Work:
    """Of ``maximum_velocity``: 15 rounds of balancing, then the steps of the chain.

    Args:
        num_steps: Of each class.
        patches: Of an image.
        itemsize: Bytes of an entry of the affinity; a narrow one is widened first.
    """
    images, classes = num_steps.shape
    steps = int(num_steps.max(axis=1).sum())
    entries = patches**2
    # The smallest entry, and two products with a vector in a round.
    balancing = images * entries * (1 + BALANCING_ROUNDS * 2 * 2)
    chain = int(num_steps.sum()) * 2 * entries
    reads = BEFORE_BALANCING_READS + BALANCING_ROUNDS * BALANCING_READS
    widening = entries * (itemsize + WORD) * (itemsize < WORD)
    return Work(
        balancing + chain,
        0,
        images * (WORD * reads * entries + widening)
        + WORD * steps * (entries + CHAIN_STATES * classes * patches),
        images * entries * WORD,
    )


def kl_work(images: int, classes: int, patches: int) -> Work:
    """Of ``kl_map``: a sum, a logarithm, a difference and a product of every entry."""
    entries = images * classes * patches
    return Work(3 * entries, entries, 3 * WORD * entries, 2 * WORD * entries)


def upsampling_work(images: int, classes: int, patches: int, pixels: int) -> Work:
    """Of ``joint_bilateral_upsample``: 25 weights a pixel, and a product with them.

    The photo is folded into cells, the maps are unfolded: each is read and written
    once more.

    Args:
        images: Mapped over.
        classes: Maps of an image.
        patches: Of an image.
        pixels: Of an image.
    """
    weights = pixels * NEIGHBOURS
    flops = weights * (WEIGHING + 2 * (classes + 1)) + classes * pixels
    maps = classes * pixels
    moved = 3 * 3 * pixels + classes * patches + 3 * maps
    return Work(
        images * flops,
        images * weights,
        images * WORD * moved,
        2 * images * WORD * maps,
    )


def attention_work(
    images: int, patches: int, *, heads: int, channels: int, itemsize: int = WORD
) -> Work:
    """Of ``average_attention``: scores and their softmax, head after head.

    Args:
        images: At once.
        patches: Of an image.
        heads: Of all layers.
        channels: Of a head.
        itemsize: Bytes of an entry of queries and keys.
    """
    entries = images * patches**2
    # At the end every row is summed up and divided by its sum: two reads, one write.
    flops = entries * (heads * (2 * channels + SOFTMAX) + 2)
    operands = 2 * heads * images * patches * channels * itemsize
    moved = WORD * entries * (heads * HEAD_PASSES + 3)
    return Work(flops, entries * heads, moved + operands, 2 * WORD * entries)
