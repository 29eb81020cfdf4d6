"""Compiling and timing of calls, and statistics of their times."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np


Calls = Mapping[str, Callable[[], Any]]
"""Functions to time, by name; each returns when its result is ready."""

Keep = Callable[[str, Any], None]
"""A function that gets the name and the result of every call that counts, after the
time was taken."""


ENOUGH = 30
"""Number of samples; a run with fewer is called quick."""

_SETTLED, _IN_A_ROW = 0.03, 5  # largest difference of the last samples; their number
_WARM_UP_S = 2.0  # longest warm-up
_FOR_P99 = 500  # least number of samples for a 99th percentile; five are above it
# Pause before a call, if several functions are timed in turn. The threads of some
# libraries stay busy after a call; on two cores the next program took twice as long.
_REST_S = 0.05
# After a pause, threads have to wake up: on two virtual cores a call of 15 ms took 23.
# Calls of the next 30 ms do not count, unless a call takes long in any case.
_WAKE_S, _UNHURRIED_S = 0.03, 0.3


class Effort(NamedTuple):
    """The time that is spent on calls, after the warm-up.

    Attributes:
        repeats: Least number of samples of each function.
        seconds: Least time of all samples together.
        budget: Greatest time for the samples of a function, in seconds. A function
            whose first call takes longer is not called again.
    """

    repeats: int = ENOUGH
    seconds: float = 10.0
    budget: float = 20.0


class Counts(NamedTuple):
    """The computation of a program as the compiler counts it: loop bodies count once.

    Attributes:
        flops: Additions, multiplications and similar operations.
        transcendentals: Exponentials, logarithms and similar functions.
        bytes: Bytes that are read and written.
    """

    flops: float
    transcendentals: float
    bytes: float


class Program(NamedTuple):
    """A function that was compiled for its arguments, which are on the device.

    Attributes:
        call: Function that runs the program and waits for the result.
        lower_s: Time of tracing, in seconds.
        compile_s: Time of compilation, in seconds.
        temporary_bytes: Memory without arguments and results, by the compiler; ``None``
            if it does not state it.
        counts: Computation by the compiler; ``None`` if it does not state it.
    """

    call: Callable[[], Any]
    lower_s: float
    compile_s: float
    temporary_bytes: int | None
    counts: Counts | None


class Measurement(NamedTuple):
    """Result and times of a function.

    Attributes:
        result: Result of the first call.
        first_call_s: Time of the first call, in seconds; it was compiled before.
        warm_ups: Number of calls after the first that do not count.
        is_settled: Whether the last five of these differ by at most 3 %.
        samples_s: Times of the calls that count, in seconds and in order. If the first
            call takes longer than the budget, it is the only sample.
    """

    result: Any
    first_call_s: float
    warm_ups: int
    is_settled: bool
    samples_s: list[float]

    @property
    def median_s(self) -> float:
        """Median of the samples."""
        return statistics.median(self.samples_s)

    @property
    def spread(self) -> float:
        """Median distance of the samples from their median, relative to it."""
        return _distance(self.samples_s) / self.median_s if self.median_s else 0.0

    @property
    def row(self) -> dict[str, Any]:
        """The times as plain values, for result files."""
        return {
            "median_s": self.median_s,
            "spread": self.spread,
            "statistics": summary(self.samples_s),
            "first_call_s": self.first_call_s,
            "warm_ups": self.warm_ups,
            "is_settled": self.is_settled,
            "samples_s": self.samples_s,
        }


def summary(samples: Sequence[float]) -> dict[str, Any]:
    """Statistics of samples.

    Args:
        samples: At least one sample.

    Returns:
        The number ``n``, and in the unit of the samples ``min``, ``p50``, ``p90``,
        ``p99`` (``None`` for fewer than 500 samples), ``mad`` (median distance from the
        median) and ``max``.
    """
    p50, p90, p99 = np.quantile(samples, (0.5, 0.9, 0.99)).tolist()
    return {
        "n": len(samples),
        "min": min(samples),
        "p50": p50,
        "p90": p90,
        "p99": p99 if len(samples) >= _FOR_P99 else None,
        "mad": _distance(samples),
        "max": max(samples),
    }


def _distance(samples: Sequence[float]) -> float:
    """Median distance from the median."""
    median = statistics.median(samples)
    return statistics.median(abs(sample - median) for sample in samples)


def compile_ahead(function: Callable[..., Any], *arguments: Any) -> Program:
    """Compile a function for its arguments, with the highest matmul precision.

    Args:
        function: A pure function of arrays.
        arguments: Arrays on the device of the program; or their shapes, to compile
            only.
    """
    start = time.perf_counter()
    with jax.default_matmul_precision("highest"):
        lowered = jax.jit(function).lower(*arguments)
        traced = time.perf_counter()
        compiled = lowered.compile()
    done = time.perf_counter()
    memory = compiled.memory_analysis()
    return Program(
        lambda: jax.block_until_ready(compiled(*arguments)),
        traced - start,
        done - traced,
        None if memory is None else memory.temp_size_in_bytes,
        counts_of(compiled),
    )


def counts_of(compiled: jax.stages.Compiled) -> Counts | None:
    """The computation of a program as the compiler counts it, if it does."""
    try:
        found = compiled.cost_analysis()
    except (NotImplementedError, jax.errors.JaxRuntimeError):
        return None
    if not found:
        return None
    names = ("flops", "transcendentals", "bytes accessed")
    return Counts(*(found.get(name, 0.0) for name in names))  # a missing name means 0


def measure(
    calls: Calls, effort: Effort, keep: Keep | None = None
) -> dict[str, Measurement]:
    """Call each function once, then until it is warm, and then all in turn.

    Args:
        calls: Functions to time. The first call of a function may compile.
        effort: How long they are timed.
        keep: Gets the results of the first calls and of those that count.

    Returns:
        A measurement for each function, by name.
    """
    results, first, affordable = {}, {}, {}
    warm: dict[str, tuple[int, bool]] = {}
    for name, call in calls.items():
        start = time.perf_counter()
        results[name] = call()
        first[name] = time.perf_counter() - start
        if keep is not None:
            keep(name, results[name])
        warm[name] = (0, False)
        if first[name] <= effort.budget:
            affordable[name] = call
            warm[name] = warm_up(call)
    samples = {name: [taken] for name, taken in first.items()}
    samples |= interleave(affordable, effort, keep)
    return {
        name: Measurement(results[name], first[name], *warm[name], samples[name])
        for name in calls
    }


def warm_up(call: Callable[[], Any]) -> tuple[int, bool]:
    """Call until the last five times differ by at most 3 %, or for two seconds.

    Returns:
        The number of calls, and whether the times settled.
    """
    samples: list[float] = []
    start = time.perf_counter()
    while not samples or time.perf_counter() - start < _WARM_UP_S:
        samples.append(_timed(call)[1])
        last = samples[-_IN_A_ROW:]
        if len(last) == _IN_A_ROW and max(last) <= (1 + _SETTLED) * min(last):
            return len(samples), True
    return len(samples), False


def interleave(
    calls: Calls, effort: Effort, keep: Keep | None = None
) -> dict[str, list[float]]:
    """Time functions in turn, so that noise affects all of them.

    Args:
        calls: Functions that are warm.
        keep: Gets the results.
        effort: How long they are timed. Every function has at least one sample; it gets
            no further sample after its budget is used up.

    Returns:
        The samples of each function in seconds, by name. Samples with the same index
        are from the same round.
    """
    samples: dict[str, list[float]] = {name: [] for name in calls}
    spent = dict.fromkeys(calls, 0.0)
    start, rounds = time.perf_counter(), 0
    while rounds < effort.repeats or time.perf_counter() - start < effort.seconds:
        going = [name for name in calls if spent[name] <= effort.budget]
        if not going:
            break
        for name in going:
            if len(going) > 1:
                time.sleep(_REST_S)
                if samples[name] and samples[name][-1] < _UNHURRIED_S:
                    _wake(calls[name])
            result, seconds = _timed(calls[name])
            if keep is not None:
                keep(name, result)
            samples[name].append(seconds)
            spent[name] += samples[name][-1]
        rounds += 1
    return samples


def _wake(call: Callable[[], Any]) -> None:
    start = time.perf_counter()
    while time.perf_counter() - start < _WAKE_S:
        call()


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start
