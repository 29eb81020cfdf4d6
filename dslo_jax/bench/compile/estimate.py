"""The time of a program on a chip that is not there, with the arithmetic behind it.

On a TPU it is the sum of the cycles that its compiler estimates for each instruction,
divided by the clock. On a GPU every kernel takes as long as its computation or its
memory traffic at the published peaks, whichever is longer; each start of a kernel and
each value that the host reads adds an assumed time. Both have a floor: all computation
and all traffic at the peaks, nothing else.
"""

from collections.abc import Mapping
from typing import NamedTuple

from dslo_jax.bench.compile.amounts import Amount, Product, amount_of, is_free
from dslo_jax.bench.compile.hlo import Program
from dslo_jax.bench.compile.targets import HOST_READ_S, LAUNCH_S, Chip


class Totals(NamedTuple):
    """Sums over all instructions that run in one call.

    Attributes:
        flops: Additions and multiplications.
        transcendentals: Exponentials, logarithms, roots.
        bytes: Bytes that pass between the processor and its main memory.
        cycles: Cycles that the compiler of a TPU estimates.
        launches: Kernels that a GPU starts.
        kernel_s: Seconds of all instructions at the peaks.
        products: Runs of each kind of product.
    """

    flops: float
    transcendentals: float
    bytes: float
    cycles: float
    launches: float
    kernel_s: float
    products: Mapping[Product, float]


class Estimate(NamedTuple):
    """An estimated time.

    Attributes:
        seconds: The estimate.
        floor_s: Least time at the published peaks.
        how: The arithmetic, in words.
    """

    seconds: float
    floor_s: float
    how: str


def add_up(program: Program, times: Mapping[str, float], chip: Chip) -> Totals:
    """Add up all instructions that run in one call.

    Args:
        program: The program.
        times: From ``count_executions``.
        chip: The chip that it was compiled for.
    """
    flops = transcendentals = moved = cycles = launches = kernel_s = 0.0
    products: dict[Product, float] = {}
    for name, count in times.items():
        for each in program.computations.get(name, ()):
            if is_free(each):
                continue
            amount = amount_of(program, name, each)
            flops += count * amount.flops
            transcendentals += count * amount.transcendentals
            moved += count * amount.bytes
            cycles += count * each.cycles
            launches += count
            kernel_s += count * _seconds(amount, chip)
            for product in amount.products:
                products[product] = products.get(product, 0.0) + count
    return Totals(flops, transcendentals, moved, cycles, launches, kernel_s, products)


def estimate(totals: Totals, host_reads: float, chip: Chip) -> Estimate:
    """Estimate the time of one call.

    Args:
        totals: From ``add_up``.
        host_reads: Values that the host reads in one call.
        chip: The chip that the program was compiled for.
    """
    if chip.clock:
        seconds = totals.cycles / chip.clock
        how = f"{totals.cycles:.3g} cycles at {chip.clock / 1e9:g} GHz"
    else:
        waits = totals.launches * LAUNCH_S + host_reads * HOST_READ_S
        seconds = totals.kernel_s + waits
        how = (
            f"kernels {1e3 * totals.kernel_s:.3g} ms + {totals.launches:.0f} launches "
            f"of {1e6 * LAUNCH_S:g} us + {host_reads:.0f} reads of "
            f"{1e6 * HOST_READ_S:g} us"
        )
    return Estimate(seconds, totals.kernel_s, how)


def _seconds(amount: Amount, chip: Chip) -> float:
    """Least time of an instruction at the peaks."""
    products, others = 0.0, amount.flops
    for each in amount.products:
        products += each.flops / chip.product_rate(each.dtype, each.precision)
        others -= each.flops
    arithmetic = (others + amount.transcendentals) / chip.vector
    return max(products + arithmetic, amount.bytes / chip.bandwidth)
