"""Facts about a compiled program that cost time, or that differ from the cost model."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

from dslo_jax.bench.compile.amounts import inside, is_free
from dslo_jax.bench.compile.executions import Executions
from dslo_jax.bench.compile.hlo import Array, Instruction, Program


Kind = Literal["array", "parameters", "memory", "host", "precision"]
"""An array of N x N that is written; parameters of a network that are copied in every
call; memory that the cost model does not know; a step that leaves the device; a product
of float32 factors that rounds them."""

_MOVES = frozenset(
    (
        *("copy", "copy-start", "transpose", "gather", "scatter", "concatenate", "pad"),
        *("slice", "dynamic-slice", "dynamic-update-slice", "reverse", "sort"),
        *("convert", "reshape", "broadcast"),
    )
)
_LEAST_BYTES = 2**20  # smaller copies of parameters take no time
_QUIET = frozenset(("parameter", "constant", "bitcast", "tuple", "get-tuple-element"))
_HOST = frozenset(("infeed", "outfeed", "send", "recv"))
_CALLBACKS = re.compile(r"callback|HostExecute|MoveToHost|MoveToDevice", re.IGNORECASE)
_COLLECTIVES = (
    *("all-gather", "all-reduce", "all-to-all", "reduce-scatter"),
    *("collective-permute", "ragged-all-to-all", "collective-broadcast"),
)


class Finding(NamedTuple):
    """A fact about a program.

    Attributes:
        kind: What it is about.
        what: The operation.
        where: Line of Python.
        bytes: Bytes of the array, where there is one; of all arrays for parameters.
        times: How often it happens in one call.
        known: Whether the cost model counts it.
    """

    kind: Kind
    what: str
    where: str
    bytes: float
    times: float
    known: bool = False


class Collective(NamedTuple):
    """An exchange between devices.

    Attributes:
        what: Its kind, such as ``"all-gather"``.
        bytes: Bytes of the result on each device.
        times: How often it happens in one call.
        where: Line of Python.
    """

    what: str
    bytes: float
    times: float
    where: str


def find_arrays(
    program: Program,
    times: Mapping[str, float],
    is_square: Callable[[Array], bool],
    *,
    only_moves: bool,
    known_bytes: float,
) -> list[Finding]:
    """Find where an N x N array is written: copied, turned, gathered, or computed.

    Prefetching into the memory beside a TPU's processor does not count.

    Args:
        program: The program.
        times: From ``count_executions``.
        is_square: Whether an array counts as N x N.
        only_moves: Whether arrays that are computed do not count, because they are the
            purpose of the program.
        known_bytes: Memory that the cost model predicts. Arrays are known up to this
            sum, those that are written least often first.
    """
    found: dict[tuple[str, str, float], float] = {}
    for name, count in times.items():
        for each in program.computations.get(name, ()):
            size = max((a.nbytes for a in each.arrays if is_square(a)), default=0.0)
            prefetched = each.opcode == "copy-start" and each.arrays[0].on_chip
            if not size or prefetched or is_free(each):
                continue
            what, is_move = _operations(program, each)
            if is_move or not only_moves:
                key = what, program.where(each), size
                found[key] = found.get(key, 0.0) + count
    left, result = known_bytes, []
    for (what, where, size), count in sorted(found.items(), key=lambda item: item[1]):
        left -= size * count
        result.append(Finding("array", what, where, size, count, known=left >= 0))
    return result


def find_parameter_moves(program: Program) -> list[Finding]:
    """Find parameters of a network that every call copies, turns or converts.

    Returns:
        A finding for each operation, with the bytes of all arrays that it makes.
    """
    body = program.computations[program.entry]
    parameters = {each.name for each in body if each.opcode == "parameter"}
    found: dict[str, tuple[float, float]] = {}
    for each in body:
        if each.opcode == "bitcast" and parameters.issuperset(each.operands):
            parameters.add(each.name)
        prefetched = each.opcode == "copy-start" and each.arrays[0].on_chip
        if is_free(each) or prefetched or not each.operands:
            continue
        what, is_move = _operations(program, each)
        if is_move and parameters.issuperset(each.operands):
            count, size = found.get(what, (0.0, 0.0))
            found[what] = count + 1, size + sum(a.nbytes for a in each.arrays)
    return [
        Finding("parameters", what, "", size, count)
        for what, (count, size) in found.items()
        if size >= _LEAST_BYTES
    ]


def find_memory(temporary: int, predicted: int | None, square: int) -> list[Finding]:
    """Find temporary memory beyond the prediction by an N x N array or more.

    Args:
        temporary: Bytes that the compiler reserves.
        predicted: Bytes that the cost model predicts; ``None`` if it does not.
        square: Bytes of an N x N array.
    """
    if predicted is None or temporary - predicted < square:
        return []
    return [Finding("memory", "temporary", "", float(temporary - predicted), 1.0)]


def _operations(program: Program, instruction: Instruction) -> tuple[str, bool]:
    """The operations of an instruction, and whether they only move numbers."""
    parts = [e for e in inside(program, instruction) if e.opcode not in _QUIET]
    names = sorted({each.opcode for each in parts})
    return "+".join(names) or instruction.opcode, set(names) <= _MOVES


def find_host_steps(
    program: Program, runs: Executions, *, loops_ask_host: bool
) -> list[Finding]:
    """Find what leaves the device: feeds, callbacks, and loops that ask the host.

    Args:
        program: The program.
        runs: From ``count_executions``.
        loops_ask_host: Whether the host reads the predicate of a loop before each turn,
            if the compiler does not know the number of turns.
    """
    found = []
    for name, count in runs.times.items():
        for each in program.computations.get(name, ()):
            is_callback = each.target and _CALLBACKS.search(each.target)
            if each.opcode in _HOST or is_callback:
                what = each.target or each.opcode
                found.append(Finding("host", what, program.where(each), 0.0, count))
    for loop in runs.loops:
        if loops_ask_host and loop.origin != "compiled":
            reads = loop.starts * (loop.turns + 1)
            found.append(Finding("host", "predicate", loop.where, 0.0, reads))
    return found


def find_rounded_products(
    products: Iterable[tuple[str, str, str, float]],
) -> list[Finding]:
    """Find products of float32 factors that are not computed in full precision.

    Args:
        products: Type, precision, line of Python and number of each product.
    """
    return [
        Finding("precision", f"float32 at {precision}", where, 0.0, times)
        for dtype, precision, where, times in products
        if dtype == "f32" and precision != "highest"
    ]


def find_collectives(program: Program, times: Mapping[str, float]) -> list[Collective]:
    """Find the exchanges between devices."""
    found: dict[tuple[str, float, str], float] = {}
    for name, count in times.items():
        for what, each in _collectives(program, name):
            size = max((array.nbytes for array in each.arrays), default=0.0)
            key = what, size, program.where(each)
            found[key] = found.get(key, 0.0) + count
    return [
        Collective(what, size, count, where)
        for (what, size, where), count in found.items()
    ]


def _collectives(program: Program, name: str) -> Iterator[tuple[str, Instruction]]:
    for each in program.computations.get(name, ()):
        stem = each.opcode.removesuffix("-start")
        if stem in _COLLECTIVES:
            yield stem, each
