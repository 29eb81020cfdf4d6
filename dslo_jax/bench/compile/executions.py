"""How often each computation of a compiled program runs.

A loop that counts to a number that the compiler knows runs so often. A loop that ends
when its data allow it runs as often as the stage assumes: ``Turns``.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from dslo_jax.bench.compile.amounts import amount_of
from dslo_jax.bench.compile.hlo import Instruction, Program


Origin = Literal["compiled", "counted", "assumed", "unknown"]
"""Where the number of turns of a loop is from: the compiler states it; the loop counts
to a constant; the stage assumes it; or nobody knows, and it is taken as 1."""


class Turns(NamedTuple):
    """Assumed turns of the loops that a function of Python starts.

    Attributes:
        function: File and function, such as ``"_chain.py:run"``.
        turns: Number of turns; all loops of the function share them evenly.
    """

    function: str
    turns: float


class Loop(NamedTuple):
    """A loop of a program.

    Attributes:
        where: Function that the turns were assumed for, or line of Python.
        turns: How often its body runs, each time that it is started.
        starts: How often it is started.
        origin: Where ``turns`` is from.
    """

    where: str
    turns: float
    starts: float
    origin: Origin


class Executions(NamedTuple):
    """Runs of all parts of a program in one call.

    Attributes:
        times: Runs of each computation; those that are fused, or part of an operation,
            are missing.
        loops: All loops, from the outside in.
    """

    times: Mapping[str, float]
    loops: tuple[Loop, ...]


def count_executions(program: Program, assumed: Sequence[Turns] = ()) -> Executions:
    """Count how often each computation runs.

    Of the branches of a conditional, the one that moves most bytes is assumed to run.

    Args:
        program: The program.
        assumed: Turns of loops whose number depends on the data.
    """
    counter = _Counter(program, assumed)
    counter.run(program.entry, 1.0)
    return Executions(counter.times, tuple(counter.loops))


class _Counter:
    def __init__(self, program: Program, assumed: Sequence[Turns]):
        self.program = program
        self.times: dict[str, float] = {}
        self.loops: list[Loop] = []
        loops = [each for each in _all(program) if each.opcode == "while"]
        shared: dict[str, int] = {}
        self._function = {}
        for loop in loops:
            function = _function_of(program, loop, assumed)
            self._function[loop.name] = function
            if function is not None and self._constant(loop) is None:
                shared[function] = shared.get(function, 0) + 1
        self._turns = {
            each.function: float(each.turns / shared[each.function])
            for each in assumed
            if each.function in shared
        }

    def run(self, name: str, times: float) -> None:
        """Add runs of a computation, and of all that it runs."""
        self.times[name] = self.times.get(name, 0.0) + times
        for each in self.program.computations.get(name, ()):
            if each.opcode == "while":
                self._loop(each, times)
            elif each.opcode == "conditional":
                self.run(max(each.branches, key=self._weight), times)
            elif each.opcode in ("call", "async-start"):
                role = "to_apply" if each.opcode == "call" else "calls"
                called = each.computation(role)
                if called is not None:
                    self.run(called, times)

    def _loop(self, loop: Instruction, times: float) -> None:
        turns, origin = self._turns_of(loop)
        where = self._function[loop.name] or self.program.where(loop)
        self.loops.append(Loop(where, turns, times, origin))
        body, condition = (loop.computation(role) for role in ("body", "condition"))
        if condition is not None and origin != "compiled":  # else it only counts
            self.run(condition, times * (turns + 1))
        if body is not None:
            self.run(body, times * turns)

    def _constant(self, loop: Instruction) -> int | None:
        if loop.known_turns is not None:
            return loop.known_turns
        return self.program.counted_turns(loop)

    def _turns_of(self, loop: Instruction) -> tuple[float, Origin]:
        constant = self._constant(loop)
        if constant is not None:
            known = loop.known_turns is not None
            return float(constant), "compiled" if known else "counted"
        function = self._function[loop.name]
        if function is not None:
            return self._turns[function], "assumed"
        return 1.0, "unknown"

    def _weight(self, name: str) -> float:
        """Bytes that a computation moves, with those that it runs."""
        weight = 0.0
        for each in self.program.computations.get(name, ()):
            weight += amount_of(self.program, name, each).bytes
            role = {"while": "body", "call": "to_apply"}.get(each.opcode)
            called = role and each.computation(role)
            weight += self._weight(called) if called else 0.0
        return weight


def _all(program: Program) -> Iterator[Instruction]:
    for instructions in program.computations.values():
        yield from instructions


def _function_of(
    program: Program, loop: Instruction, assumed: Sequence[Turns]
) -> str | None:
    """The innermost function with an assumption that started a loop."""
    named = {each.function for each in assumed}
    return next((f.name for f in program.stack(loop) if f.name in named), None)
