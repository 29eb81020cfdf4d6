"""Jitted functions that say when they compile, and how long they took."""

import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax

from dslo_jax.errors import DeviceError


Announce = Callable[[str, bool], None]
"""Called with a stage's name as it begins, and whether it compiles first."""


class Timing(NamedTuple):
    """One stage of one run.

    Attributes:
        stage: Name of the stage.
        seconds: Wall time of the computation, outputs ready; the sum where a run
            passes through the stage several times.
        compile_seconds: Time spent tracing and compiling before it; 0 when the shapes
            were known already.
    """

    stage: str
    seconds: float
    compile_seconds: float


class Clock:
    """Collects the timings of one run and announces its stages.

    Args:
        announce: Told of every stage of this run.
    """

    def __init__(self, announce: Announce | None = None):
        self._timings: dict[str, Timing] = {}
        self._announce = announce

    @property
    def timings(self) -> tuple[Timing, ...]:
        """The stages so far, in the order of their first pass."""
        return tuple(self._timings.values())

    def add(self, stage: str, seconds: float, compile_seconds: float = 0.0) -> None:
        """Note a pass through a stage."""
        known = self._timings.get(stage, Timing(stage, 0.0, 0.0))
        self._timings[stage] = Timing(
            stage, known.seconds + seconds, known.compile_seconds + compile_seconds
        )

    def seconds_of(self, stage: str) -> float:
        """Seconds of a stage so far; compilation left out."""
        known = self._timings.get(stage)
        return 0.0 if known is None else known.seconds

    def announce(self, stage: str, compiles: bool = False) -> None:
        """Say that a stage begins."""
        if self._announce is not None:
            self._announce(stage, compiles)

    def time(self, stage: str, function: Callable[..., Any], *args: Any) -> Any:
        """Run and time a stage that happens on the host."""
        self.announce(stage)
        start = time.perf_counter()
        result = function(*args)
        self.add(stage, time.perf_counter() - start)
        return result


class Static:
    """A static argument whose hash is computed once, as that of a network is slow.

    Args:
        value: Anything hashable.
    """

    def __init__(self, value: Any):
        self.value = value
        self._hash = hash(value)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Static)
            and self._hash == other._hash
            and self.value == other.value
        )


class Call(NamedTuple):
    """One call of a stage.

    Attributes:
        stage: Its name.
        program: What was compiled for these arguments.
        static: The static arguments.
    """

    stage: str
    program: Any
    static: Mapping[str, Any]

    @property
    def arguments(self) -> tuple[Any, ...]:
        """The arguments, with shapes instead of arrays."""
        return self.program.args_info[0]

    @property
    def flops(self) -> float:
        """What the compiler counts: the body of a loop once, however often it turns."""
        return float(self.program.cost_analysis().get("flops", 0.0))


_listening: list[Announce] = []
_watching: list[list[Call]] = []


@contextmanager
def listen(announce: Announce) -> Iterator[None]:
    """Be told of the jitted stages of all runs, whatever their clocks announce.

    Args:
        announce: Told of every stage.
    """
    _listening.append(announce)
    try:
        yield
    finally:
        _listening.remove(announce)


@contextmanager
def watch() -> Iterator[list[Call]]:
    """Collect the calls of all stages, to ask their programs what they cost."""
    calls: list[Call] = []
    _watching.append(calls)
    try:
        yield calls
    finally:
        _watching[:] = [other for other in _watching if other is not calls]


class Stage:
    """A function that is compiled once per shape, ahead of its first call.

    Matrix products run at the full precision of their operands: without that, an
    accelerator rounds float32 operands to fewer bits.

    Args:
        name: What people call this stage.
        function: A pure function; positional arguments are arrays (or trees of them),
            keyword arguments are static and hashable.
    """

    def __init__(self, name: str, function: Callable[..., Any]):
        self.name = name
        self._function = function
        self._compiled: dict[Hashable, Any] = {}

    @property
    def num_compilations(self) -> int:
        """How many different shapes were compiled in this process."""
        return len(self._compiled)

    def __call__(self, clock: Clock, *args: Any, **static: Hashable) -> Any:
        """Run on ready inputs, wait for the outputs, and note the time on the clock.

        Raises:
            DeviceError: The device has too little memory (``D01``).
        """
        leaves, tree = jax.tree.flatten(args)
        key = (
            tree,
            tuple((leaf.shape, leaf.dtype, leaf.sharding) for leaf in leaves),
            tuple(sorted(static.items())),
        )
        compiles = key not in self._compiled
        for announce in (clock.announce, *_listening):
            announce(self.name, compiles)
        start = time.perf_counter()
        try:
            if compiles:
                self._compiled[key] = self._compile(args, static)
            program = self._compiled[key]
            for calls in _watching:
                calls.append(Call(self.name, program, static))
            ready = time.perf_counter()
            result = jax.block_until_ready(program(*args))
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise DeviceError(
                "D01",
                f"stage {self.name!r} needs more memory than the device has; use a "
                "smaller batch or affinity_size, or half precision",
            ) from error
        seconds = time.perf_counter() - ready
        clock.add(self.name, seconds, ready - start if compiles else 0.0)
        return result

    def _compile(self, args: tuple[Any, ...], static: dict[str, Hashable]) -> Any:
        jitted = jax.jit(self._function, static_argnames=tuple(static))
        with jax.default_matmul_precision("highest"):
            return jitted.lower(*args, **static).compile()
