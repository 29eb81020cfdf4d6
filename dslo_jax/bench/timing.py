"""How calls are compiled, timed and summed up."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np


Calls = Mapping[str, Callable[[], Any]]
"""What is timed, by name; each returns when its result is ready."""


ENOUGH = 30
"""Samples; a run with fewer is called quick."""

_SETTLED, _IN_A_ROW = 0.03, 5  # the last so many samples are within so much
_WARM_UP_S = 2.0  # whether settled or not
_FOR_P99 = 500  # samples, of which five are beyond it
# Before each call of several: the threads of some libraries spin on after theirs, which
# on two cores made the next program take twice as long.
_REST_S = 0.05
# After a rest threads have to wake up: on two virtual cores a call of 15 ms took 23.
# Calls of that moment do not count; to one that takes long it makes no difference.
_WAKE_S, _UNHURRIED_S = 0.03, 0.3


class Effort(NamedTuple):
    """How long calls are timed, after they have warmed up.

    Attributes:
        repeats: Samples of each, at least.
        seconds: For all samples together, at least.
        budget: Seconds. What takes longer is not called again; of the others none is
            repeated when its samples have used the budget up.
    """

    repeats: int = ENOUGH
    seconds: float = 10.0
    budget: float = 20.0


class Counts(NamedTuple):
    """What the compiler says that a program does; the body of a loop counts once.

    Attributes:
        flops: Additions, multiplications and the like.
        transcendentals: Exponentials, logarithms and the like.
        bytes: Read and written.
    """

    flops: float
    transcendentals: float
    bytes: float


class Program(NamedTuple):
    """A function that was compiled for its arguments, which are on the device.

    Attributes:
        call: Runs it and waits for the result.
        lower_s: Seconds to trace it.
        compile_s: Seconds to compile it.
        temporary_bytes: Memory beyond arguments and results, as the compiler says;
            None where it says nothing.
        counts: None where the compiler says nothing.
    """

    call: Callable[[], Any]
    lower_s: float
    compile_s: float
    temporary_bytes: int | None
    counts: Counts | None


class Measurement(NamedTuple):
    """What calling something told.

    Attributes:
        result: Of the first call.
        first_call_s: Seconds of the first call; the program was compiled before.
        warm_ups: Calls after the first that do not count.
        is_settled: True if the last five of these were within 3 % of each other.
        samples_s: Seconds of the calls that count, in order. Of something that takes
            longer than the budget: the first call alone.
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
        return _distance(self.samples_s) / self.median_s

    @property
    def row(self) -> dict[str, Any]:
        """The times, as result files hold them."""
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
    """What samples say: their number, smallest, largest, percentiles, and spread.

    Args:
        samples: One at least.

    Returns:
        ``n``, and in the unit of the samples ``min``, ``p50``, ``p90``, ``p99`` (None
        of fewer than 500), ``mad`` (median distance from the median) and ``max``.
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
    """Compile for arguments; matrix products run at the full precision of operands.

    Args:
        function: A pure function of arrays.
        arguments: Arrays where the program shall run, or their shapes, to compile only.
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
        _counts(compiled),
    )


def _counts(compiled: jax.stages.Compiled) -> Counts | None:
    try:
        found = compiled.cost_analysis()
    except (NotImplementedError, jax.errors.JaxRuntimeError):
        return None
    if not found:
        return None
    names = ("flops", "transcendentals", "bytes accessed")
    return Counts(*(found.get(name, 0.0) for name in names))  # 0 is left out


def measure(calls: Calls, effort: Effort) -> dict[str, Measurement]:
    """Call each once, then to warm up, and then all in turn.

    Args:
        calls: What to time. Whatever they compile is in their first call.
        effort: For how long.

    Returns:
        What was found, by name.
    """
    results, first, affordable = {}, {}, {}
    warm: dict[str, tuple[int, bool]] = {}
    for name, call in calls.items():
        start = time.perf_counter()
        results[name] = call()
        first[name] = time.perf_counter() - start
        warm[name] = (0, False)
        if first[name] <= effort.budget:
            affordable[name] = call
            warm[name] = warm_up(call)
    samples = {name: [taken] for name, taken in first.items()}
    samples |= interleave(affordable, effort)
    return {
        name: Measurement(results[name], first[name], *warm[name], samples[name])
        for name in calls
    }


def warm_up(call: Callable[[], Any]) -> tuple[int, bool]:
    """Call until the last five took the same within 3 %, or for two seconds.

    Returns:
        The number of calls, and whether they settled.
    """
    samples: list[float] = []
    start = time.perf_counter()
    while not samples or time.perf_counter() - start < _WARM_UP_S:
        samples.append(_timed(call))
        last = samples[-_IN_A_ROW:]
        if len(last) == _IN_A_ROW and max(last) <= (1 + _SETTLED) * min(last):
            return len(samples), True
    return len(samples), False


def interleave(calls: Calls, effort: Effort) -> dict[str, list[float]]:
    """Time calls in turn, so that a noisy moment hits all of them.

    Args:
        calls: Warm already.
        effort: For how long. A call that has used the budget up gets no further sample;
            one it always gets.

    Returns:
        All samples in seconds, by name; the first of each are of the same round, and
        so on.
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
            samples[name].append(_timed(calls[name]))
            spent[name] += samples[name][-1]
        rounds += 1
    return samples


def _wake(call: Callable[[], Any]) -> None:
    start = time.perf_counter()
    while time.perf_counter() - start < _WAKE_S:
        call()


def _timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
