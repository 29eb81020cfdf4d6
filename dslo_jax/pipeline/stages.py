"""Jitted functions that announce, time and count their compilations and runs."""

import threading
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import jax

from dslo_jax import tuning
from dslo_jax.errors import DeviceError, is_out_of_memory
from dslo_jax.pipeline.mesh import over_photos


Announce = Callable[[str, bool], None]
"""A function that is called as a stage begins, with the name of the stage and whether
it compiles first."""


class Timing(NamedTuple):
    """Time of one stage in one run.

    Attributes:
        stage: Name of the stage.
        seconds: Wall time of the computation until its outputs are ready; the sum if
            the stage ran several times.
        compile_seconds: Time of tracing and compiling; 0 if the program was compiled
            before.
    """

    stage: str
    seconds: float
    compile_seconds: float


BATCH = "batch"
"""Name in timings of all stages of a batch on the device together, if none is waited
for; see ``Clock``."""


class Clock:
    """The timings of one run.

    Args:
        announce: Called as each stage of this run begins.
        waits: Whether each stage is waited for and timed alone. Otherwise its program
            is only started, and its time belongs to that of the whole batch.
    """

    def __init__(self, announce: Announce | None = None, *, waits: bool = True):
        self._timings: dict[str, Timing] = {}
        self._announce = announce
        self.waits = waits

    @property
    def timings(self) -> tuple[Timing, ...]:
        """Timings of the stages so far, in the order of their first run."""
        return tuple(self._timings.values())

    def add(self, stage: str, seconds: float, compile_seconds: float = 0.0) -> None:
        """Add the time of a stage."""
        known = self._timings.get(stage, Timing(stage, 0.0, 0.0))
        self._timings[stage] = Timing(
            stage, known.seconds + seconds, known.compile_seconds + compile_seconds
        )

    def include(self, timings: Iterable[Timing]) -> None:
        """Add the times of another clock."""
        for timing in timings:
            self.add(*timing)

    def seconds_of(self, stage: str) -> float:
        """Seconds of a stage so far, without compilation."""
        known = self._timings.get(stage)
        return 0.0 if known is None else known.seconds

    @property
    def compile_seconds(self) -> float:
        """Seconds of compilation so far, of all stages."""
        times = (timing.compile_seconds for timing in self._timings.values())
        return sum(times, 0.0)

    def announce(self, stage: str, compiles: bool = False) -> None:
        """Announce that a stage begins."""
        if self._announce is not None:
            self._announce(stage, compiles)

    def time(self, stage: str, function: Callable[..., Any], *args: Any) -> Any:
        """Run and time a stage on the host."""
        self.announce(stage)
        start = time.perf_counter()
        result = function(*args)
        self.add(stage, time.perf_counter() - start)
        return result


def merged(*timings: Iterable[Timing]) -> tuple[Timing, ...]:
    """The sums of several timings, one for each stage."""
    clock = Clock()
    for each in timings:
        clock.include(each)
    return clock.timings


class Static:
    """A static argument whose hash is computed once, because a network's hash is slow.

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
        stage: Name of the stage.
        program: The program that was compiled for these arguments.
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
        """FLOPs as the compiler counts them: those of a loop body count once."""
        return float(self.program.cost_analysis().get("flops", 0.0))


_REMEDIES = {
    "text": "fewer or shorter templates",
    "clip": "a smaller short_side, half precision",
    "logits": "fewer classes",
    "labels": "a smaller photo, fewer classes",
}
"""What makes a stage need less memory, by its name."""

_listening: list[Announce] = []
_watching: list[list[Call]] = []


@contextmanager
def listen(announce: Announce) -> Iterator[None]:
    """Call a function for the jitted stages of all runs, in a ``with`` block.

    Args:
        announce: Called as each stage begins.
    """
    _listening.append(announce)
    try:
        yield
    finally:
        _listening.remove(announce)


@contextmanager
def watch() -> Iterator[list[Call]]:
    """Collect the calls of all stages in a ``with`` block, with their programs."""
    calls: list[Call] = []
    _watching.append(calls)
    try:
        yield calls
    finally:
        _watching[:] = [other for other in _watching if other is not calls]


class Uncompiled:
    """The function of a stage in the place of its program, for ``jax.disable_jit``.

    Args:
        function: The function of the stage.
        args: Its arguments.
        static: Its static arguments.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        static: Mapping[str, Hashable],
    ):
        self._function, self._static = function, static
        self._args = args
        self.args_info = jax.tree.map(jax.typeof, args), {}

    @property
    def out_info(self) -> Any:
        """The shapes of the outputs."""
        return jax.eval_shape(partial(self._function, **self._static), *self._args)

    def __call__(self, *args: Any) -> Any:
        """Run the function, one operation after another."""
        with jax.default_matmul_precision("highest"):
            return self._function(*args, **self._static)

    def cost_analysis(self) -> Mapping[str, float]:
        """No costs, because nothing is compiled."""
        return {}


def _platform_of(args: tuple[Any, ...]) -> str:
    """The platform of the devices that hold the arguments."""
    for leaf in jax.tree.leaves(args):
        for device in leaf.sharding.device_set:
            return device.platform
    return jax.default_backend()


class Stage:
    """A function that is compiled once per shape, ahead of its first call.

    Matrix products have the full precision of their operands; by default an accelerator
    would round float32 operands to fewer bits.

    Args:
        name: Name of the stage, for people.
        function: A pure function. Its positional arguments are arrays, or trees of
            them; its keyword arguments are static and hashable.

    Attributes:
        function: As the argument, for a program of several stages.
    """

    def __init__(self, name: str, function: Callable[..., Any]):
        self.name = name
        self.function = function
        self._compiled: dict[Hashable, Any] = {}
        self._lock = threading.Lock()  # two threads must not compile the same program

    @property
    def num_compilations(self) -> int:
        """Number of programs that were compiled in this process."""
        return len(self._compiled)

    def forget_programs(self) -> None:
        """Free the memory of all programs; they are compiled again when needed."""
        with self._lock:
            self._compiled.clear()

    def __call__(self, clock: Clock, *args: Any, **static: Hashable) -> Any:
        """Run the program, and add its time to the clock.

        A clock that waits gets the time until the outputs are ready. For one that does
        not, the time of compilation goes to the stage ``BATCH``.

        Args:
            clock: The timings of the run.
            *args: Arrays, or trees of them. If one is a ``jax.ShapeDtypeStruct`` with
                a sharding, the program is compiled and not run.
            **static: The static arguments.

        Returns:
            The outputs, or their shapes if the program was not run.

        Raises:
            DeviceError: The device has too little memory (``D01``).
        """
        leaves, tree = jax.tree.flatten(args)
        key = (
            tree,
            tuple((leaf.shape, leaf.dtype, leaf.sharding) for leaf in leaves),
            tuple(sorted(static.items())),
        )
        debugged = jax.config.jax_disable_jit  # pyright: ignore[reportAttributeAccessIssue]
        start = time.perf_counter()
        try:
            with self._lock:
                compiles = key not in self._compiled and not debugged
                for announce in (clock.announce, *_listening):
                    announce(self.name, compiles)
                if compiles:
                    start = time.perf_counter()
                    self._compiled[key] = self.lower(args, static).compile()
            program = (
                Uncompiled(self.function, args, static)
                if debugged
                else self._compiled[key]
            )
            for calls in _watching:
                calls.append(Call(self.name, program, static))
            ready = time.perf_counter()
            if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves):
                result = program.out_info
            else:
                with jax.debug_nans(False):  # NaN marks a class without solution
                    result = program(*args)
                    if clock.waits:
                        jax.block_until_ready(result)
        except jax.errors.JaxRuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise self._no_memory(self._compiled.get(key)) from error
        seconds, compiling = time.perf_counter() - ready, ready - start
        if clock.waits:
            clock.add(self.name, seconds, compiling if compiles else 0.0)
        elif compiles:
            clock.add(BATCH, 0.0, compiling)
        return result

    def lower(self, args: tuple[Any, ...], static: Mapping[str, Hashable]) -> Any:
        """Trace the function, ready to be compiled.

        Args:
            args: Arrays, or shapes with a sharding, also on devices that are not there.
            static: The static arguments.

        Returns:
            The lowered function; its ``compile()`` gives the program.
        """
        jitted = jax.jit(
            over_photos(self.function, args),
            static_argnames=tuple(static),
            compiler_options=tuning.compiler_options(_platform_of(args)),
        )
        with jax.default_matmul_precision("highest"):
            return jitted.lower(*args, **static)

    def _no_memory(self, program: Any) -> DeviceError:
        """The error of a stage for which the device has too little memory."""
        needed = ""
        if program is not None and (sizes := program.memory_analysis()) is not None:
            total = (
                sizes.argument_size_in_bytes
                + sizes.output_size_in_bytes
                + sizes.temp_size_in_bytes
            )
            needed = f" about {total / 2**30:.1f} GiB,"
        remedy = _REMEDIES.get(self.name, "a smaller affinity_size, half precision")
        return DeviceError(
            "D01",
            f"stage {self.name!r} needs{needed} more memory than the device has; use "
            f"{remedy}, or a smaller batch",
        )
