"""How calls are compiled, timed and summed up."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax


Calls = Mapping[str, Callable[[], Any]]
"""What is timed, by name; each returns when its result is ready."""


class Program(NamedTuple):
    """A function that was compiled for its arguments, which are on the device.

    Attributes:
        call: Runs it and waits for the result.
        lower_s: Seconds to trace it.
        compile_s: Seconds to compile it.
        temporary_bytes: Memory beyond arguments and results, as the compiler says;
            None where it says nothing.
    """

    call: Callable[[], Any]
    lower_s: float
    compile_s: float
    temporary_bytes: int | None


class Measurement(NamedTuple):
    """What calling something told.

    Attributes:
        result: Of the first call.
        first_call_s: Seconds of the first call; the program was compiled before.
        samples_s: Seconds of the calls that count, in order. Of something that takes
            longer than the budget: the first call alone.
    """

    result: Any
    first_call_s: float
    samples_s: list[float]

    @property
    def median_s(self) -> float:
        """Median of the samples."""
        return statistics.median(self.samples_s)

    @property
    def spread(self) -> float:
        """Median distance of the samples from their median, relative to it."""
        distances = [abs(sample - self.median_s) for sample in self.samples_s]
        return statistics.median(distances) / self.median_s

    @property
    def row(self) -> dict[str, Any]:
        """The times, as result files hold them."""
        return {
            "median_s": self.median_s,
            "spread": self.spread,
            "first_call_s": self.first_call_s,
            "samples_s": self.samples_s,
        }


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
    )


def measure(
    calls: Calls, *, repeats: int, budget: float = float("inf")
) -> dict[str, Measurement]:
    """Call each once, once more to warm up, and then all in turn.

    Args:
        calls: What to time. Whatever they compile is in their first call.
        repeats: Samples of each.
        budget: Seconds. What takes longer is not called again; of the others none is
            repeated when its samples have used the budget up.

    Returns:
        What was found, by name.
    """
    results, first, affordable = {}, {}, {}
    for name, call in calls.items():
        start = time.perf_counter()
        results[name] = call()
        first[name] = time.perf_counter() - start
        if first[name] <= budget:
            affordable[name] = call
            call()
    samples = {name: [seconds] for name, seconds in first.items()}
    samples |= interleave(affordable, repeats=repeats, budget=budget)
    return {
        name: Measurement(results[name], first[name], samples[name]) for name in calls
    }


def interleave(
    calls: Calls, *, repeats: int, budget: float = float("inf")
) -> dict[str, list[float]]:
    """Time calls in turn, so that a noisy moment hits all of them.

    Args:
        calls: Warm already.
        repeats: Samples of each.
        budget: Seconds after which a call gets no further sample; one it always gets.

    Returns:
        All samples in seconds, by name.
    """
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            if sum(samples[name]) <= budget:
                start = time.perf_counter()
                call()
                samples[name].append(time.perf_counter() - start)
    return samples
