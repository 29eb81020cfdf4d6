"""Peak rates of the device, measured in the same run as the solvers.

Bandwidth depends on the working set, because a small one is read from a cache. It is
measured for several working sets, each with two programs that only read, as the solvers
mostly do, and one that also writes. The best of the three counts.
"""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dslo_jax.work import WORD


WORKING_SETS = tuple(2**power for power in (20, 22, 24, 26, 28, 30))
"""Bytes, from the cache of a core to more than the caches of a large processor."""

_LONG_S = 0.05  # least time of a call, much longer than the overhead of calling
_ENOUGH_S = 0.2  # least time of all calls, the best of which counts
_SIDES = (2048, 8192)  # sides of matrices; the larger one if the smaller is too fast
_NO_TIME_S = 0.01
_TERMS, _ELEMENTS = 16, 2**20  # 4 MiB, and enough work to hide reading them


class Bandwidth(NamedTuple):
    """Bytes per second for one working set.

    Attributes:
        working_set_bytes: Bytes that are read or written repeatedly.
        bytes_per_s: Bandwidth of the best of three programs.
        how: Name of this program.
    """

    working_set_bytes: int
    bytes_per_s: float
    how: str


class Peaks(NamedTuple):
    """Peak rates of a device, in float32.

    Attributes:
        flops_per_s: FLOPs per second of a square matrix product at full precision.
        side: Number of rows of these matrices.
        transcendentals_per_s: Exponentials per second, on a few MiB.
        bandwidths: Bandwidths from the smallest working set to the largest.
    """

    flops_per_s: float
    side: int
    transcendentals_per_s: float
    bandwidths: tuple[Bandwidth, ...]

    def bandwidth(self, working_set_bytes: int) -> Bandwidth:
        """The bandwidth of the largest measured set that is not larger than this one.

        A smaller set is not read more slowly, so this is an upper limit. If all
        measured sets are larger, it is the bandwidth of the smallest.
        """
        smaller = [
            found
            for found in self.bandwidths
            if found.working_set_bytes <= working_set_bytes
        ]
        return smaller[-1] if smaller else self.bandwidths[0]

    def plain(self) -> dict[str, Any]:
        """The peaks as plain values, for result files."""
        return {
            **self._asdict(),
            "bandwidths": [each._asdict() for each in self.bandwidths],
        }


def measure_peaks(
    device: jax.Device,  # pyright: ignore[reportInvalidTypeForm]
    working_sets: Sequence[int] = WORKING_SETS,
) -> Peaks:
    """Measure the peaks of a device, which takes about ten seconds.

    Args:
        device: Device to measure.
        working_sets: Sizes in bytes, in ascending order.

    Memory:
        The largest working set.
    """
    with jax.default_device(device), jax.default_matmul_precision("highest"):
        side, flops = _product_peak()
        bandwidths = tuple(_bandwidth(size) for size in working_sets)
        return Peaks(flops, side, _transcendental_peak(), bandwidths)


def product_peak(
    device: jax.Device,  # pyright: ignore[reportInvalidTypeForm]
    dtype: str,
) -> tuple[int, float]:
    """Measure matrix products in one type.

    Args:
        device: Device to measure.
        dtype: Type of the matrices; float32 at full precision.

    Returns:
        Number of rows of the matrices, and FLOPs per second.
    """
    with jax.default_device(device), jax.default_matmul_precision("highest"):
        return _product_peak(dtype)


def _product_peak(dtype: str = "float32") -> tuple[int, float]:
    side, seconds = 0, 0.0
    for side in _SIDES:
        matrix = jnp.full((side, side), 1 / side, dtype)
        seconds = _seconds(jnp.matmul, matrix, matrix)
        if seconds > _NO_TIME_S:
            break
    return side, 2 * side**3 / seconds


def _transcendental_peak() -> float:
    values = jnp.linspace(0.0, 1.0, _ELEMENTS, dtype=jnp.float32)

    def exponentials(values: jax.Array, _: jax.Array) -> jax.Array:
        terms = [jnp.exp(-factor * values) for factor in range(1, 1 + _TERMS)]
        return sum(terms[1:], start=terms[0]) / _TERMS

    return _TERMS * _ELEMENTS / _seconds(exponentials, values, values)


def _bandwidth(working_set: int) -> Bandwidth:
    """The best bandwidth of reading by rows, by columns, and ``x <- x / 2 + y``."""
    side = math.isqrt(working_set // WORD)
    matrix = jnp.full((side, side), 1 / side, jnp.float32)
    vector = jnp.ones(side, jnp.float32)
    rates = {
        "read by rows": matrix.nbytes / _seconds(lambda v, a: a @ v, vector, matrix),
        "read by columns": matrix.nbytes / _seconds(lambda v, a: v @ a, vector, matrix),
    }
    del matrix
    half = jnp.ones(working_set // WORD // 2, jnp.float32)
    rates["add"] = 3 * half.nbytes / _seconds(lambda x, y: x / 2 + y, half, half)
    how = max(rates, key=rates.__getitem__)
    return Bandwidth(working_set, rates[how], how)


def _seconds(
    step: Callable[[jax.Array, jax.Array], jax.Array],
    start: jax.Array,
    given: jax.Array,
) -> float:
    """The shortest time of a step, in seconds.

    A program runs as many steps as are needed for a long call. Each step uses the
    result of the one before, so that the compiler leaves none out.
    """

    @jax.jit
    def program(state: jax.Array, given: jax.Array, steps: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, steps, lambda _, now: step(now, given), state)

    def timed(steps: int) -> float:
        begun = time.perf_counter()
        jax.block_until_ready(program(start, given, jnp.int32(steps)))
        return time.perf_counter() - begun

    timed(0)  # compiles
    steps = 1
    while (taken := timed(steps)) < _LONG_S:
        steps *= 4
    calls = [taken]
    while sum(calls) < _ENOUGH_S:
        calls.append(timed(steps))
    return min(calls) / steps
