"""One row of ``dslo bench compile``: a stage compiled for a chip."""

import dataclasses
import math
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from dslo_jax import tuning
from dslo_jax.bench.compile.estimate import Totals, add_up, estimate
from dslo_jax.bench.compile.executions import count_executions
from dslo_jax.bench.compile.findings import (
    Finding,
    find_arrays,
    find_collectives,
    find_host_steps,
    find_memory,
    find_parameter_moves,
    find_rounded_products,
)
from dslo_jax.bench.compile.hlo import Array, read_program
from dslo_jax.bench.compile.stages import Case, Size, make_cases
from dslo_jax.bench.compile.targets import CHIPS, Chip, topology
from dslo_jax.pipeline import Placement, place
from dslo_jax.work import WORD


SCHEMA = "dslo.bench.compile.v1"


def compile_stage(
    name: str, size: Size, target: str, devices: int = 1
) -> list[dict[str, Any]]:
    """Compile the programs of a stage, and read what the compiler made of them.

    Args:
        name: Name of the stage; see ``stages.stage_names``.
        size: Its size.
        target: Name of the chip; see ``targets.CHIPS``.
        devices: Number of chips: photos are divided over them, and classes where there
            are more chips than photos.

    Returns:
        A row for each program. A program that cannot be compiled has the reason in
        ``failed``, and no figures.

    Raises:
        DeviceError: The compiler is not installed or does not start (``D04``).
    """
    chip = CHIPS[target]
    placement = only_shapes(topology(target, devices), size.batch)
    about = {"target": target, "devices": devices, **size._asdict()}
    try:
        cases = list(make_cases(name, size, placement, chip.kind))
    except Exception as error:  # a stage that cannot be made is a row, not the end
        return [{**about, "stage": name, "failed": _reason(error)}]
    return [
        {**about, "stage": case.name, **_row_of(case, size, chip, devices)}
        for case in cases
    ]


def only_shapes(chips: Sequence[Any], batch: int) -> Placement:
    """The placement of a pipeline on chips: photos first, then classes are divided.

    Args:
        chips: The devices, which need not be there.
        batch: Number of photos.
    """
    devices = np.array(chips).reshape(math.gcd(batch, len(chips)), -1)
    return dataclasses.replace(place(devices), only_shapes=True)


def _row_of(case: Case, size: Size, chip: Chip, devices: int) -> dict[str, Any]:
    start = time.perf_counter()
    try:
        lowered = case.stage.lower(case.args, case.static)
        middle = time.perf_counter()
        compiled = lowered.compile()
    except Exception as error:  # compilers raise what they like
        return {"failed": _reason(error), "failed_after_s": _since(start)}
    row = {
        "failed": None,
        "calls": case.calls,
        "lower_s": round(middle - start, 3),
        "compile_s": _since(middle),
    }
    return {**row, **describe_program(compiled, case, size, chip, devices)}


def describe_program(
    compiled: Any, case: Case, size: Size, chip: Chip, devices: int = 1
) -> dict[str, Any]:
    """Figures and findings of a compiled program, as plain values.

    Args:
        compiled: The compiled function.
        case: What was compiled.
        size: Its size.
        chip: The chip that it was compiled for.
        devices: Number of chips; the figures are those of one of them.
    """
    program = read_program(compiled.as_text())
    runs = count_executions(program, case.turns)
    totals = add_up(program, runs.times, chip)
    exchanges = find_collectives(program, runs.times)
    # A GPU decides itself whether a loop goes on if the loop is in a command buffer,
    # and the compiler leaves loops with exchanges out of them.
    is_recorded = bool(tuning.compiler_options(chip.kind)) and not exchanges
    host = find_host_steps(
        program, runs, loops_ask_host=chip.kind == "gpu" and not is_recorded
    )
    memory, model = _memory(compiled), _model(case, devices)
    photos, by_size = size.batch // math.gcd(size.batch, devices), case.is_solver
    findings = [
        *find_arrays(
            program,
            runs.times,
            lambda array: is_square(array, size.patches, photos if by_size else None),
            only_moves=case.is_network,
            known_bytes=float(model["temp"] or 0),
        ),
        *(find_parameter_moves(program) if case.is_network else ()),
        *find_memory(memory["temp"], model["temp"], WORD * size.patches**2),
        *host,
        *find_rounded_products(_products(totals)),
    ]
    reads = sum((each.times for each in host), start=0.0)
    guess = estimate(totals, reads, chip)
    return {
        "flops": totals.flops,
        "transcendentals": totals.transcendentals,
        "bytes": totals.bytes,
        "launches": totals.launches if chip.kind == "gpu" else None,
        "memory": memory,
        "model": model,
        "loops": [loop._asdict() for loop in runs.loops],
        "products": _summary(totals),
        "collectives": [each._asdict() for each in exchanges],
        "findings": [finding._asdict() for finding in _merged(findings)],
        "estimate": guess._asdict(),
        "compiler": _compiler_counts(compiled),
    }


def is_square(array: Array, patches: int, photos: int | None = None) -> bool:
    """Whether an array counts as N x N.

    Args:
        array: The array.
        patches: N.
        photos: Number of photos, if N * N numbers for each of them are enough, as in a
            solver, where nothing else is as large. Otherwise two axes must have N.
    """
    if patches < 2:
        return False
    if photos is not None and array.size >= photos * patches**2:
        return True
    return array.shape.count(patches) >= 2


def _products(totals: Totals) -> Iterable[tuple[str, str, str, float]]:
    for product, count in totals.products.items():
        yield product.dtype, product.precision, product.where, count


def _summary(totals: Totals) -> list[dict[str, Any]]:
    """FLOPs and runs of products, by type and precision."""
    sums: dict[tuple[str, str], list[float]] = {}
    for product, count in totals.products.items():
        entry = sums.setdefault((product.dtype, product.precision), [0.0, 0.0])
        entry[0] += count * product.flops
        entry[1] += count
    return [
        {"dtype": dtype, "precision": precision, "flops": flops, "times": times}
        for (dtype, precision), (flops, times) in sums.items()
    ]


def _merged(findings: Iterable[Finding]) -> list[Finding]:
    """Findings of the same kind at the same line, added up."""
    merged: dict[Finding, float] = {}
    for each in findings:
        key = each._replace(times=0.0)
        merged[key] = merged.get(key, 0.0) + each.times
    return [key._replace(times=times) for key, times in merged.items()]


def _memory(compiled: Any) -> dict[str, int]:
    sizes = compiled.memory_analysis()
    return {
        part: getattr(sizes, f"{part}_size_in_bytes")
        for part in ("argument", "output", "temp", "generated_code")
    }


def _model(case: Case, devices: int) -> dict[str, Any]:
    """The cost model, divided evenly among the devices."""
    work = case.work
    found = {
        "flops": None if work is None else work.flops,
        "bytes": None if work is None else work.bytes or None,
        "temp": case.memory,
    }
    return {name: value and value // devices for name, value in found.items()}


def _compiler_counts(compiled: Any) -> dict[str, float]:
    """The compiler's own counts, with the body of every loop once."""
    counts = compiled.cost_analysis() or {}
    return {
        name: counts[name] for name in ("flops", "bytes accessed") if name in counts
    }


def _since(start: float) -> float:
    return round(time.perf_counter() - start, 3)


def _reason(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300] if lines else ''}"
