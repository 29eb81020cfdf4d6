"""Reading of the text of a compiled program (XLA's HLO, after all passes).

The text lists computations, and each of them its instructions in the order in which
they run. A loop, a branch and a fusion name other computations. Tables before them say
from which lines of Python an instruction comes.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple


BYTES = {
    **{"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2},
    **{"s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8, "c64": 8},
    **{"s4": 0.5, "u4": 0.5, "f8e4m3fn": 1, "f8e5m2": 1},
}
"""Bytes of an element of each type; a type that is not here holds no data."""

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.*)$")
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\](\{[^}]*\})?")
_ENTRY_OF_TABLE = re.compile(r"^(\d+) (.*)$")
_ON_CHIP = "S(1)"  # the memory space beside the processor of a TPU (VMEM)
_TABLES = ("FileNames", "FunctionNames", "FileLocations", "StackFrames")


class Array(NamedTuple):
    """Type of an array.

    Attributes:
        dtype: Name of the type, such as ``"f32"``.
        shape: Lengths of its axes.
        on_chip: Whether a TPU keeps it beside the processor and not in its main memory.
    """

    dtype: str
    shape: tuple[int, ...]
    on_chip: bool = False

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> float:
        """Bytes of all elements."""
        return float(self.size * BYTES.get(self.dtype, 0))


class Frame(NamedTuple):
    """A line of Python that an instruction comes from."""

    file: str
    function: str
    line: int

    @property
    def name(self) -> str:
        """File without folders, and function, such as ``"balancing.py:scale"``."""
        return f"{self.file.rpartition('/')[2]}:{self.function}"


class Instruction(NamedTuple):
    """An instruction.

    Attributes:
        name: Its name.
        opcode: What it does, such as ``"fusion"``.
        arrays: Types of its results; several for a tuple.
        operands: Names of its arguments.
        rest: The text behind the arguments: attributes. It begins with the value of a
            constant, and with the number of a parameter.
        is_root: Whether it is the result of its computation.
    """

    name: str
    opcode: str
    arrays: tuple[Array, ...]
    operands: tuple[str, ...]
    rest: str
    is_root: bool

    def attribute(self, name: str) -> str | None:
        """Text of an attribute; ``None`` if it is missing."""
        found = re.search(rf"\b{name}=(\{{[^}}]*\}}|\"[^\"]*\"|[^\s,]+)", self.rest)
        return None if found is None else found[1].strip('{}"')

    def numbers(self, name: str) -> tuple[int, ...]:
        """An attribute that is a list of numbers; empty if it is missing."""
        return tuple(int(n) for n in re.findall(r"\d+", self.attribute(name) or ""))

    def computation(self, role: str) -> str | None:
        """Name of the computation in a role: ``calls``, ``body``, ``to_apply``, ..."""
        found = self.attribute(role)
        return None if found is None else found.removeprefix("%")

    @property
    def branches(self) -> tuple[str, ...]:
        """Computations of which a conditional runs one."""
        several = self.attribute("branch_computations")
        if several is not None:
            return tuple(name.strip().removeprefix("%") for name in several.split(","))
        both = (self.computation(f"{which}_computation") for which in ("true", "false"))
        return tuple(name for name in both if name is not None)

    @property
    def cycles(self) -> int:
        """Cycles of a TPU, as its compiler estimates them; 0 if it does not say."""
        found = re.search(r'"estimated_cycles":"(\d+)"', self.rest)
        return int(found[1]) if found else 0

    @property
    def known_turns(self) -> int | None:
        """How often a loop runs, if the compiler knows it."""
        found = re.search(r'"known_trip_count":\{"n":"(\d+)"', self.rest)
        return int(found[1]) if found else None

    @property
    def target(self) -> str | None:
        """Function outside the program that a custom call calls."""
        return self.attribute("custom_call_target")


class Program(NamedTuple):
    """A compiled program.

    Attributes:
        computations: Instructions of every computation, in order.
        entry: Name of the computation that runs first.
        frames: For each id of a stack frame, the lines of Python from the inside out.
    """

    computations: Mapping[str, tuple[Instruction, ...]]
    entry: str
    frames: Mapping[int, tuple[Frame, ...]]

    def counted_turns(self, loop: Instruction) -> int | None:
        """Turns of a loop that counts from 0 to a constant; ``None`` for others."""
        body = self.computations.get(loop.computation("condition") or "", ())
        by_name = {each.name: each for each in body}
        for each in body:
            if each.is_root and each.opcode == "compare":
                counter, limit = (by_name.get(name) for name in each.operands)
                if (
                    counter is not None
                    and limit is not None
                    and counter.opcode == "get-tuple-element"
                    and limit.opcode == "constant"
                    and each.attribute("direction") == "LT"
                ):
                    number = re.match(r"\d+", limit.rest)
                    return int(number[0]) if number else None
        return None

    def stack(self, instruction: Instruction) -> tuple[Frame, ...]:
        """Lines of Python that an instruction comes from, from the inside out."""
        found = re.search(r"stack_frame_id=(\d+)", instruction.rest)
        return self.frames.get(int(found[1]), ()) if found else ()

    def where(self, instruction: Instruction) -> str:
        """The innermost line of this package, or the name of the operation."""
        for frame in self.stack(instruction):
            _, inside, path = frame.file.rpartition("dslo_jax/")
            if inside:
                return f"{path}:{frame.line} {frame.function}"
        return instruction.attribute("op_name") or instruction.name


def read_program(text: str) -> Program:
    """Read the text of a compiled program.

    Args:
        text: From ``as_text()`` of a compiled function.

    Raises:
        ValueError: The text has no entry computation.
    """
    computations: dict[str, tuple[Instruction, ...]] = {}
    tables: dict[str, dict[int, str]] = {name: {} for name in _TABLES}
    entry, table = None, None
    lines = iter(text.splitlines())
    for line in lines:
        if line in tables:
            table = tables[line]
        elif table is not None and (row := _ENTRY_OF_TABLE.match(line)):
            table[int(row[1])] = row[2]
        elif found := _COMPUTATION.match(line):
            computations[found[2]] = tuple(_body(lines))
            entry = found[2] if found[1] else entry
    if entry is None:
        raise ValueError("the text holds no ENTRY computation; is it a compiled HLO?")
    return Program(computations, entry, _frames(tables))


def _body(lines: Iterator[str]) -> Iterator[Instruction]:
    """The instructions up to the end of a computation."""
    for line in lines:
        if line.startswith("}"):
            return
        if found := _INSTRUCTION.match(line):
            yield _instruction(found[1], found[2], "ROOT " in line[: line.find("=")])


def _instruction(name: str, text: str, is_root: bool) -> Instruction:
    end = _end_of_type(text)
    opcode, _, behind = text[end:].strip().partition("(")
    close = _closing(behind)
    inside = re.sub(r"/\*.*?\*/", "", behind[:close])
    operands = tuple(re.findall(r"%([\w.\-]+)", inside))
    is_leaf = opcode in ("constant", "parameter")
    rest = (inside if is_leaf else "") + behind[close + 1 :]
    return Instruction(name, opcode, _arrays(text[:end]), operands, rest, is_root)


def _arrays(text: str) -> tuple[Array, ...]:
    return tuple(
        Array(
            dtype,
            tuple(int(n) for n in dims.split(",") if n),
            _ON_CHIP in (layout or ""),
        )
        for dtype, dims, layout in _ARRAY.findall(text)
        if dtype in BYTES
    )


def _end_of_type(text: str) -> int:
    """Where the type of a result ends: at the first space outside all brackets."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter in "({[") - (letter in ")}]")
        if letter == " " and depth == 0:
            return place
    return len(text)


def _closing(text: str) -> int:
    """Where the bracket closes that was opened before the text."""
    depth = 1
    for place, letter in enumerate(text):
        depth += (letter in "({[") - (letter in ")}]")
        if depth == 0:
            return place
    return len(text)


def _frames(tables: Mapping[str, Mapping[int, str]]) -> dict[int, tuple[Frame, ...]]:
    names = {key: text.strip('"') for key, text in tables["FileNames"].items()}
    functions = {key: text.strip('"') for key, text in tables["FunctionNames"].items()}
    places: dict[int, Frame] = {}
    for key, text in tables["FileLocations"].items():
        ids = {word: int(n) for word, n in re.findall(r"(\w+)=(\d+)", text)}
        file = names.get(ids.get("file_name_id", 0), "")
        function = functions.get(ids.get("function_name_id", 0), "")
        places[key] = Frame(file, function, ids.get("line", 0))
    links = {
        key: tuple(int(n) for n in re.findall(r"=(\d+)", text))
        for key, text in tables["StackFrames"].items()
    }
    return {key: tuple(_chain(key, links, places)) for key in links}


def _chain(
    key: int, links: Mapping[int, tuple[int, ...]], places: Mapping[int, Frame]
) -> Iterator[Frame]:
    seen: set[int] = set()
    while key in links and key not in seen:
        seen.add(key)
        place, *parent = links[key]
        if place in places:
            yield places[place]
        # The parent is written one higher than its number; the first has none.
        key = parent[0] - 1 if parent else 0
