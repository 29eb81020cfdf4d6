"""Times, steps, errors, memory and computation of solvers at one size."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

import jax
import numpy as np

from dslo_jax.bench.cases import (
    Case,
    Dtype,
    Scene,
    Size,
    discrepancy_case,
    draw_scene,
    self_attention_case,
    upsampling_case,
)
from dslo_jax.bench.peaks import Peaks
from dslo_jax.bench.roofline import roofline
from dslo_jax.bench.scenes import draw_affinities
from dslo_jax.bench.timing import Effort, Measurement, Program, compile_ahead, measure
from dslo_jax.bench.truth import scaled_error
from dslo_jax.cost import Work
from dslo_jax.solvers import Discrepancy, discrepancy_of, registry
from dslo_jax.solvers.contract import require_usable


SCHEMA = "dslo.bench.solvers.v2"
SELF_ATTENTION = "self-attention"
"""The one case that has no classes."""

_AROUND: Mapping[str, Callable[[Size], Case]] = {
    "upsampling": upsampling_case,
    SELF_ATTENTION: self_attention_case,
}


def solver_names() -> tuple[str, ...]:
    """Names of all cases: the discrepancies, and the steps before and after them."""
    return (*registry.DISCREPANCIES, *_AROUND)


def measure_solvers(
    solvers: Sequence[str],
    size: Size,
    affinities: np.ndarray,
    *,
    device: jax.Device,  # pyright: ignore[reportInvalidTypeForm]
    peaks: Peaks,
    effort: Effort,
) -> list[dict[str, Any]]:
    """Measure solvers in turn.

    Args:
        solvers: Some of ``solver_names``.
        size: Size of the scene.
        affinities: ``[images patches patches]``, from ``draw_affinities``.
        device: Device to measure.
        peaks: Peaks of this device.
        effort: How long the calls are timed.

    Returns:
        A row for each solver; see ``bench_discrepancy``.
    """
    scene = draw_scene(size, affinities, device)
    cases = {name: _case_of(name, scene) for name in solvers}
    return _measured(cases, size, device=device, peaks=peaks, effort=effort)


def bench_discrepancy(
    discrepancy: Discrepancy,
    *,
    patches: int = 1024,
    classes: int = 8,
    images: int = 1,
    dtype: Dtype = "float32",
    device: jax.Device | None = None,  # pyright: ignore[reportInvalidTypeForm]
    truth: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    work: Callable[[np.ndarray], Work] | None = None,
    peaks: Peaks | None = None,
    effort: Effort = Effort(),
) -> dict[str, Any]:
    """Measure any discrepancy, as ``dslo bench solvers`` does.

    The discrepancy is fitted to the sources, and the first of its ``attempts`` is
    compiled and timed.

    Args:
        discrepancy: Discrepancy to measure.
        patches: Number of patches of an image; a square number.
        classes: Number of classes of an image.
        images: Number of images that one program solves.
        dtype: Type of the affinity; errors include those of its rounding.
        device: Device to measure; default: the first one.
        truth: Function of a source ``[classes patches]`` and an affinity ``[patches
            patches]`` to the values in float64. Our own discrepancies have one for most
            options.
        work: Function of the numbers of steps, ``[images classes]``, to the
            computation. Our own discrepancies have one for most options.
        peaks: From ``measure_peaks`` on this device; the roofline needs them.
        effort: How long the calls are timed; default: ten seconds.

    Returns:
        Plain values, as in the files of ``dslo bench solvers``. ``median_s`` and other
        times are in seconds. ``error`` is the largest distance from the truth, relative
        to the greatest true value (for our path and velocity, to each value); it is
        ``None`` without a truth (``has_truth``), or if a value is not a number.
        ``num_steps`` is ``None`` for a closed form. ``converged`` is a share of all
        classes. ``memory`` is in bytes. ``roofline`` is ``None`` without a formula for
        the computation or without peaks.

    Raises:
        ValueError: A size is out of range.
        OptionError: A discrepancy of one's own breaks a rule of ``Discrepancy``
            (``O10``).
    """
    size = Size(patches, classes, images, dtype)
    _require_measurable(discrepancy, size, effort.repeats)
    device = jax.local_devices()[0] if device is None else device
    scene = draw_scene(size, draw_affinities(patches, images), device)
    case = discrepancy_case(discrepancy, scene)
    if truth is not None:
        pairs = zip(scene.sources, scene.affinities, strict=True)
        case = case._replace(
            truth=lambda: np.stack([truth(*pair) for pair in pairs]),
            error=scaled_error,
        )
    if work is not None:
        case = case._replace(work=work)
    cases = {discrepancy.name: case}
    (row,) = _measured(cases, size, device=device, peaks=peaks, effort=effort)
    return row


def _require_measurable(discrepancy: Discrepancy, size: Size, repeats: int) -> None:
    require_usable(discrepancy)
    counts = {"classes": size.classes, "images": size.images, "repeats": repeats}
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"`{name}` is {count}, expected at least 1")
    if size.dtype not in get_args(Dtype):
        raise ValueError(
            f"`dtype` is {size.dtype!r}, expected one of {get_args(Dtype)}"
        )


def _case_of(name: str, scene: Scene) -> Case:
    if name in _AROUND:
        return _AROUND[name](scene.size)
    return discrepancy_case(discrepancy_of(name), scene)


def _measured(
    cases: Mapping[str, Case],
    size: Size,
    *,
    device: jax.Device,  # pyright: ignore[reportInvalidTypeForm]
    peaks: Peaks | None,
    effort: Effort,
) -> list[dict[str, Any]]:
    """Measure cases in turn; the result has a row for each."""
    programs = {
        name: compile_ahead(case.function, *jax.device_put(case.arguments, device))
        for name, case in cases.items()
    }
    calls = {name: program.call for name, program in programs.items()}
    found = measure(calls, effort)
    return [
        _row(name, size, case, programs[name], found[name])
        | {"roofline": _roofline(size, case, programs[name], found[name], peaks)}
        for name, case in cases.items()
    ]


def _row(
    name: str, size: Size, case: Case, program: Program, found: Measurement
) -> dict[str, Any]:
    steps, converged = found.result.num_steps, found.result.converged
    error = _error(case, np.asarray(found.result.values))
    return {
        "solver": name,
        "name": "dslo-jax",
        **size._asdict(),
        **({"classes": None} if name == SELF_ATTENTION else {}),
        **found.row,
        "error": error,
        "has_truth": case.truth is not None,
        # A closed form has no steps.
        "num_steps": None if steps is None else int(steps.max()) or None,
        "converged": None if converged is None else float(np.mean(converged)),
        "lower_s": program.lower_s,
        "compile_s": program.compile_s,
        "memory": {
            "predicted_bytes": case.predicted_bytes,
            "compiler_bytes": program.temporary_bytes,
        },
    }


def _error(case: Case, values: np.ndarray) -> float | None:
    """The error; ``None`` without a truth, or if a value is not a number."""
    if case.truth is None:
        return None
    truth = case.truth()
    error = case.error(values.reshape(truth.shape), truth)
    return error if math.isfinite(error) else None


def _roofline(
    size: Size,
    case: Case,
    program: Program,
    found: Measurement,
    peaks: Peaks | None,
) -> dict[str, Any] | None:
    """The computation by our formulas and by the compiler, and the roofline."""
    shape, steps = (size.images, size.classes), found.result.num_steps
    taken = np.zeros(shape, int) if steps is None else np.asarray(steps).reshape(shape)
    work, counts = case.work(taken), program.counts
    if work is None or peaks is None:
        return None
    return {
        "flops": work.flops,
        "transcendentals": work.transcendentals,
        "bytes": work.bytes,
        "working_set_bytes": work.working_set_bytes,
        "compiler": None if counts is None else counts._asdict(),
        **roofline(work, peaks, found.median_s)._asdict(),
    }
