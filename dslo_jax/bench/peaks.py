"""The most that this device does in a second, measured in the run that is judged by it.

Bandwidth depends on how much is read again and again: what fits a cache comes from
there. It is measured for several working sets, each by programs that only read, as the
solvers mostly do, and by one that also writes; the best counts.
"""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dslo_jax.cost.work import WORD


WORKING_SETS = tuple(2**power for power in (20, 22, 24, 26, 28, 30))
"""Bytes: from the cache of a core to beyond the caches of a large processor."""

_LONG_S = 0.05  # beside which calling a program is nothing
_ENOUGH_S = 0.2  # of such calls, the best of which counts
_SIDES = (2048, 8192)  # of a product; the larger one where the smaller takes no time
_NO_TIME_S = 0.01
_TERMS, _ELEMENTS = 16, 2**20  # 4 MiB, and work that hides reading them


class Bandwidth(NamedTuple):
    """Bytes in a second.

    Attributes:
        working_set_bytes: All that is read or written, again and again.
        bytes_per_s: The best of three programs.
        how: Which of them.
    """

    working_set_bytes: int
    bytes_per_s: float
    how: str


class Peaks(NamedTuple):
    """What a device was seen to do, in float32.

    Attributes:
        flops_per_s: Of a square matrix product at full precision.
        side: Rows of these matrices.
        transcendentals_per_s: Exponentials of a few MiB.
        bandwidths: From the smallest working set to the largest.
    """

    flops_per_s: float
    side: int
    transcendentals_per_s: float
    bandwidths: tuple[Bandwidth, ...]

    def bandwidth(self, working_set_bytes: int) -> Bandwidth:
        """Of the largest set that was measured and is no larger; else the smallest.

        A smaller set is read no slower, so that this is a limit.
        """
        smaller = [
            found
            for found in self.bandwidths
            if found.working_set_bytes <= working_set_bytes
        ]
        return smaller[-1] if smaller else self.bandwidths[0]

    def plain(self) -> dict[str, Any]:
        """As result files hold it."""
        return {
            **self._asdict(),
            "bandwidths": [each._asdict() for each in self.bandwidths],
        }


def measure_peaks(
    device: jax.Device,  # pyright: ignore[reportInvalidTypeForm]
    working_sets: Sequence[int] = WORKING_SETS,
) -> Peaks:
    """Measure them; some ten seconds.

    Args:
        device: Where.
        working_sets: Bytes, from small to large. Memory: the largest of them.
    """
    with jax.default_device(device), jax.default_matmul_precision("highest"):
        side, flops = _product_peak()
        bandwidths = tuple(_bandwidth(size) for size in working_sets)
        return Peaks(flops, side, _transcendental_peak(), bandwidths)


def _product_peak() -> tuple[int, float]:
    side, seconds = 0, 0.0
    for side in _SIDES:
        matrix = jnp.full((side, side), 1 / side, jnp.float32)
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
    """The best of reading by rows, reading by columns, and ``x <- x / 2 + y``."""
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
    """Seconds of a step, at best; a program takes as many as make a call long.

    Each step needs the one before, so that none can be left out.
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
