"""Computation and memory traffic of single instructions of a compiled program.

The compiler's own count cannot be used: it counts the body of a loop once, and for a
GPU that is not there it gives none.
"""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from dslo_jax.bench.compile.hlo import Array, Instruction, Program


FREE = frozenset(
    (
        *("parameter", "constant", "tuple", "get-tuple-element", "bitcast"),
        *("while", "conditional", "call", "after-all", "add-dependency"),
        *("optimization-barrier", "partition-id", "replica-id", "iota"),
    )
)
"""Instructions that compute and move nothing themselves."""

_PARTS = ("dynamic-slice", "slice", "gather")  # read a part of their first argument
_MOVES = frozenset(
    (
        *("copy", "copy-start", "transpose", "reshape", "bitcast-convert", "pad"),
        *("broadcast", "slice", "dynamic-slice", "dynamic-update-slice", "reverse"),
        *("concatenate", "gather", "scatter", "convert", "sort", "select", "compare"),
    )
)
_TRANSCENDENTAL = frozenset(
    (
        *("exponential", "exponential-minus-one", "log", "log-plus-one", "tanh"),
        *("logistic", "sine", "cosine", "power", "rsqrt", "sqrt", "cbrt", "erf"),
    )
)
_CONVOLUTIONS = ("__cudnn$conv",)
_GEMMS = ("__cublas$",)


class Product(NamedTuple):
    """Products of matrices or convolutions of one kind.

    Attributes:
        dtype: Type of the factors.
        precision: ``"default"``, ``"high"`` or ``"highest"``.
        flops: Additions and multiplications.
        where: Line of Python.
    """

    dtype: str
    precision: str
    flops: float
    where: str


class Amount(NamedTuple):
    """Work of one instruction.

    Attributes:
        flops: Additions and multiplications, with those of ``products``.
        transcendentals: Exponentials, logarithms, roots.
        bytes: Bytes read from and written to the main memory.
        products: Products of matrices in it.
    """

    flops: float = 0.0
    transcendentals: float = 0.0
    bytes: float = 0.0
    products: tuple[Product, ...] = ()


def is_free(instruction: Instruction) -> bool:
    """Whether an instruction computes nothing, moves nothing and starts nothing."""
    opcode = instruction.opcode
    return opcode in FREE or opcode.endswith(("-done", "-update"))


def amount_of(program: Program, computation: str, instruction: Instruction) -> Amount:
    """Work of an instruction of a computation that is run (not of a fused one)."""
    if is_free(instruction):
        return Amount()
    types = _types(program, computation)
    flops, transcendentals, products = _arithmetic(program, types, instruction)
    moved = _bytes(program, types, instruction)
    return Amount(flops, transcendentals, moved, tuple(products))


def inside(program: Program, instruction: Instruction) -> Iterator[Instruction]:
    """The instruction, or all of those that are fused in it."""
    called = instruction.computation("calls")
    if called is None or called not in program.computations:
        yield instruction
        return
    for each in program.computations[called]:
        yield from inside(program, each)


def _types(program: Program, computation: str) -> dict[str, tuple[Array, ...]]:
    return {each.name: each.arrays for each in program.computations[computation]}


def _arithmetic(
    program: Program, types: Mapping[str, tuple[Array, ...]], instruction: Instruction
) -> tuple[float, float, list[Product]]:
    called = instruction.computation("calls")
    if called is not None and called in program.computations:
        types, parts = _types(program, called), program.computations[called]
        found = [_arithmetic(program, types, part) for part in parts]
        return (
            sum((each[0] for each in found), start=0.0),
            sum((each[1] for each in found), start=0.0),
            [product for each in found for product in each[2]],
        )
    product = _product_flops(types, instruction)
    if product is not None:
        first = _first(types, instruction)
        kind = Product(
            first.dtype, _precision(instruction), product, program.where(instruction)
        )
        return product, 0.0, [kind]
    opcode = instruction.opcode
    size = float(sum(array.size for array in instruction.arrays))
    if opcode in ("reduce", "reduce-window"):
        return float(_first(types, instruction).size), 0.0, []
    if opcode in _TRANSCENDENTAL:
        return 0.0, size, []
    if opcode in FREE or opcode in _MOVES or "-" in opcode or opcode == "fusion":
        return 0.0, 0.0, []
    return size, 0.0, []


def _first(types: Mapping[str, tuple[Array, ...]], instruction: Instruction) -> Array:
    """Type of the first argument."""
    for operand in instruction.operands:
        for array in types.get(operand, ()):
            return array
    return Array("f32", (0,))


def _product_flops(
    types: Mapping[str, tuple[Array, ...]], instruction: Instruction
) -> float | None:
    """FLOPs of a product or convolution; ``None`` for any other instruction."""
    target = instruction.target or ""
    if instruction.opcode == "dot" or target.startswith(_GEMMS):
        contracted = instruction.numbers("lhs_contracting_dims") or _of_json(
            instruction, "lhs_contracting_dimensions"
        )
        shape = _first(types, instruction).shape
        inner = 1
        for axis in contracted:
            inner *= shape[axis]
        return 2.0 * instruction.arrays[0].size * inner
    if instruction.opcode == "convolution" or target.startswith(_CONVOLUTIONS):
        left, right = (types[name][0] for name in instruction.operands[:2])
        return _convolution_flops(instruction, left, right)
    return None


def _convolution_flops(instruction: Instruction, left: Array, right: Array) -> float:
    """2 for each pair of an input and a weight that meet; padding is not counted."""
    labels = instruction.attribute("dim_labels") or ""
    ins, kernel, outs = re.match(r"(\w+)_(\w+)->(\w+)", labels).groups()  # pyright: ignore[reportOptionalMemberAccess]
    out = instruction.arrays[0]
    places = {letter: axis for axis, letter in enumerate(outs)}
    pairs = float(out.shape[places["b"]] * out.shape[places["f"]])
    pairs *= right.shape[kernel.index("i")]
    window = instruction.attribute("window") or ""
    for number, letter in enumerate(c for c in "0123456789" if c in outs):
        pairs *= _meetings(
            left.shape[ins.index(letter)],
            right.shape[kernel.index(letter)],
            out.shape[places[letter]],
            _of_window(window, number),
        )
    return 2.0 * pairs


def _of_window(window: str, axis: int) -> tuple[int, int, int, int]:
    """Stride, padding before, dilation of the input and of the kernel, of an axis."""

    def value(name: str, default: str) -> str:
        found = re.search(rf"\b{name}=(\S+)", window)
        return found[1].split("x")[axis] if found else default

    low = value("pad", "0_0").split("_")[0]
    stride, left, right = (
        value(name, "1") for name in ("stride", "lhs_dilate", "rhs_dilate")
    )
    return int(stride), int(low), int(left), int(right)


def _meetings(
    length: int, kernel: int, out: int, window: tuple[int, int, int, int]
) -> int:
    """Pairs of an output and a tap that meets an input, along one axis."""
    stride, low, spread, gap = window
    reach = (length - 1) * spread + 1
    count = 0
    for tap in range(kernel):
        first = tap * gap - low
        places = range(first, first + out * stride, stride)
        count += sum(0 <= p < reach and p % spread == 0 for p in places)
    return count


def _precision(instruction: Instruction) -> str:
    stated = instruction.attribute("operand_precision")
    if stated is None:
        found = re.search(r'"operand_precision":\["(\w+)"', instruction.rest)
        stated = found[1].lower() if found else "default"
    return stated.split(",")[0]


def _of_json(instruction: Instruction, name: str) -> tuple[int, ...]:
    found = re.search(rf'"{name}":\[([^\]]*)\]', instruction.rest)
    return tuple(int(n) for n in re.findall(r"\d+", found[1])) if found else ()


def _bytes(
    program: Program, types: Mapping[str, tuple[Array, ...]], instruction: Instruction
) -> float:
    """Bytes that pass between the processor and its main memory."""
    opcode = instruction.opcode
    if opcode == "copy-start":  # results: the copy, the original, a flag
        return _all_outside(instruction.arrays[:2])
    called = instruction.computation("calls")
    if called is None or called not in program.computations:
        given = [types.get(name, ()) for name in instruction.operands]
        if opcode in _PARTS:
            return 2 * _all_outside(instruction.arrays)
        if opcode == "dynamic-update-slice":
            return 2 * _all_outside(given[1])
        return sum(map(_all_outside, (instruction.arrays, *given)))
    fused = program.computations[called]
    operands = [types.get(name, ()) for name in instruction.operands]
    read = sum(
        (_read(fused, number, given) for number, given in enumerate(operands)),
        start=0.0,
    )
    return read + _written(fused, instruction)


def _outside(array: Array) -> float:
    return 0.0 if array.on_chip else array.nbytes


def _all_outside(arrays: tuple[Array, ...]) -> float:
    return sum(map(_outside, arrays), start=0.0)


def _read(
    fused: tuple[Instruction, ...], number: int, given: tuple[Array, ...]
) -> float:
    """Bytes that a fusion reads of an argument; only a part, if it takes a slice."""
    whole = _all_outside(given)
    name = next((each.name for each in fused if _number(each) == number), "")
    users = list(_users(fused, name))
    if not users:
        return whole
    parts = 0.0
    for user in users:
        if user.opcode in _PARTS and user.operands[0] == name:
            parts += user.arrays[0].nbytes
        elif user.opcode == "dynamic-update-slice" and user.operands[0] == name:
            continue  # written in place
        else:
            return whole
    return min(whole, parts)


def _number(instruction: Instruction) -> int | None:
    """Number of a parameter; ``None`` for other instructions."""
    if instruction.opcode != "parameter":
        return None
    found = re.match(r"\d+", instruction.rest)
    return int(found[0]) if found else None


def _users(fused: tuple[Instruction, ...], name: str) -> Iterator[Instruction]:
    """Instructions that use a value, also behind another name for it."""
    for each in fused:
        if name in each.operands:
            if each.opcode == "bitcast":
                yield from (
                    user._replace(
                        operands=tuple(
                            name if o == each.name else o for o in user.operands
                        )
                    )
                    for user in _users(fused, each.name)
                )
            else:
                yield each


def _written(fused: tuple[Instruction, ...], instruction: Instruction) -> float:
    """Bytes that a fusion writes; only the new part, if it updates an array."""
    by_name = {each.name: each for each in fused}
    (root,) = [each for each in fused if each.is_root] or [fused[-1]]
    roots = (
        [by_name.get(name, root) for name in root.operands]
        if root.opcode == "tuple"
        else [root]
    )
    if len(roots) != len(instruction.arrays):
        return _all_outside(instruction.arrays)
    total = 0.0
    for array, made in zip(instruction.arrays, roots, strict=True):
        while made.opcode == "bitcast" and made.operands[0] in by_name:
            made = by_name[made.operands[0]]
        if made.opcode == "dynamic-update-slice" and made.operands[1] in by_name:
            part = by_name[made.operands[1]].arrays[0].nbytes
            total += 0.0 if array.on_chip else min(part, array.nbytes)
        else:
            total += _outside(array)
    return total
