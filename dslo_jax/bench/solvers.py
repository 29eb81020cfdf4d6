"""Our solvers at one size: their times, steps, errors, memory, and work."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dslo_jax import ops
from dslo_jax.attention import average_attention
from dslo_jax.bench.peaks import Peaks
from dslo_jax.bench.roofline import (
    Work,
    attention_work,
    kl_work,
    path_work,
    roofline,
    upsampling_work,
    velocity_work,
)
from dslo_jax.bench.scenes import draw_source
from dslo_jax.bench.timing import Measurement, Program, compile_ahead, measure
from dslo_jax.bench.truth import (
    relative_error,
    scaled_error,
    true_attention,
    true_kl,
    true_path,
    true_upsampled,
    true_velocity,
)
from dslo_jax.models.query_key import QueryKey
from dslo_jax.solvers import (
    kl_map,
    maximum_velocity,
    optimal_path,
    path_bytes,
    reading_of,
    velocity_bytes,
)


Solver = Literal["path", "velocity", "kl", "upsampling", "self-attention"]
Dtype = Literal["float32", "bfloat16", "float16"]

SCHEMA = "dslo.bench.solvers.v2"
_PIXELS = 8  # of a patch, on each axis
_LAYERS, _HEADS, _CHANNELS = 2, 5, 64  # of the self-attentions of Stable Diffusion 2


class Size(NamedTuple):
    """What a measurement is about.

    Attributes:
        patches: Of an image; a square number.
        classes: Of an image.
        images: Solved by one program.
        dtype: Of the affinity, or of queries and keys. All else is float32.
    """

    patches: int
    classes: int
    images: int
    dtype: Dtype


class Outcome(NamedTuple):
    """What a program returns; steps and status only where there are steps."""

    values: jax.Array
    num_steps: jax.Array | None = None
    converged: jax.Array | None = None


class Scene(NamedTuple):
    """What is solved.

    Attributes:
        size: Of what is drawn.
        sources: ``[images classes patches]``.
        affinities: ``[images patches patches]``, not narrowed.
        narrow: The affinities on the device, of the type to measure; without the axis
            of images if there is one.
    """

    size: Size
    sources: np.ndarray
    affinities: np.ndarray
    narrow: jax.Array

    @property
    def itemsize(self) -> int:
        """Bytes of an entry of the affinity that is measured."""
        return self.narrow.dtype.itemsize


class Case(NamedTuple):
    """One thing to measure.

    Attributes:
        function: Of the arguments, to an ``Outcome``.
        arguments: On the host or on the device.
        truth: Makes the values in float64, from arguments that were not narrowed.
        error: Distance of values from the truth.
        work: What has to be done, by the steps ``[images classes]`` that were taken;
            of what takes none, they are zeros.
        predicted_bytes: Beyond arguments and results; None where nobody predicts it.
    """

    function: Callable[..., Outcome]
    arguments: Any
    truth: Callable[[], np.ndarray]
    error: Callable[[np.ndarray, np.ndarray], float]
    work: Callable[[np.ndarray], Work]
    predicted_bytes: int | None = None


def measure_solvers(
    solvers: Sequence[Solver],
    size: Size,
    affinities: np.ndarray,
    *,
    device: jax.Device,  # pyright: ignore[reportInvalidTypeForm]
    peaks: Peaks,
    repeats: int,
    seconds: float,
    budget: float,
) -> list[dict[str, Any]]:
    """Measure solvers in turn.

    Args:
        solvers: Which.
        size: At which size.
        affinities: ``[images patches patches]``, from ``draw_affinity``.
        device: Where.
        peaks: Of this device.
        repeats: See ``timing.measure``.
        seconds: See there.
        budget: See there.

    Returns:
        A row for each; ``error`` is None if any value is not a number.
    """
    narrow = _shaped(affinities).astype(jnp.dtype(size.dtype), copy=False)
    sources = np.stack(
        [draw_source(size.patches, size.classes, seed) for seed in range(size.images)]
    )
    scene = Scene(size, sources, affinities, jax.device_put(narrow, device))
    cases = {solver: _case_of(solver, scene) for solver in solvers}
    programs = {
        solver: compile_ahead(case.function, *jax.device_put(case.arguments, device))
        for solver, case in cases.items()
    }
    calls = {solver: program.call for solver, program in programs.items()}
    found = measure(calls, repeats=repeats, seconds=seconds, budget=budget)
    return [
        _row(solver, size, case, programs[solver], found[solver])
        | {"roofline": _roofline(size, case, programs[solver], found[solver], peaks)}
        for solver, case in cases.items()
    ]


def _row(
    solver: str, size: Size, case: Case, program: Program, found: Measurement
) -> dict[str, Any]:
    outcome: Outcome = found.result
    truth = case.truth()
    error = case.error(np.asarray(outcome.values).reshape(truth.shape), truth)
    steps, converged = outcome.num_steps, outcome.converged
    return {
        "solver": solver,
        "name": "dslo-jax",
        **size._asdict(),
        **({"classes": None} if solver == "self-attention" else {}),
        **found.row,
        "error": error if math.isfinite(error) else None,
        "num_steps": None if steps is None else int(steps.max()),
        "converged": None if converged is None else float(np.mean(converged)),
        "lower_s": program.lower_s,
        "compile_s": program.compile_s,
        "memory": {
            "predicted_bytes": case.predicted_bytes,
            "compiler_bytes": program.temporary_bytes,
        },
    }


def _roofline(
    size: Size, case: Case, program: Program, found: Measurement, peaks: Peaks
) -> dict[str, Any]:
    """Work by our count and the compiler's, and how near the time is to the peaks."""
    shape, steps = (size.images, size.classes), found.result.num_steps
    taken = np.zeros(shape, int) if steps is None else np.asarray(steps).reshape(shape)
    work, counts = case.work(taken), program.counts
    return {
        **work._asdict(),
        "compiler": None if counts is None else counts._asdict(),
        **roofline(work, peaks, found.median_s)._asdict(),
    }


def _case_of(solver: Solver, scene: Scene) -> Case:
    match solver:
        case "path":
            return _path(scene)
        case "velocity":
            return _velocity(scene)
        case "kl":
            return _kl(scene)
        case "upsampling":
            return _upsampling(scene.size)
        case "self-attention":
            return _self_attention(scene.size)


def _path(scene: Scene) -> Case:
    """As the segmenter asks first: what carries mass, in the domain ``"kernel"``."""
    (device,) = scene.narrow.devices()
    reading = reading_of(scene.sources, platform=device.platform)
    options = reading._asdict()

    def solve(source: jax.Array, affinity: jax.Array) -> Outcome:
        found = optimal_path(source, affinity, domain="kernel", **options)
        return Outcome(found.path, found.num_steps, found.converged)

    return _on_affinity(
        scene,
        solve,
        true_path,
        partial(path_work, reading=reading),
        partial(path_bytes, **options),
    )


def _velocity(scene: Scene) -> Case:
    def solve(source: jax.Array, affinity: jax.Array) -> Outcome:
        found = maximum_velocity(source, affinity)
        return Outcome(found.velocity, found.num_steps, found.converged)

    return _on_affinity(scene, solve, true_velocity, velocity_work, velocity_bytes)


def _on_affinity(
    scene: Scene,
    solve: Callable[..., Outcome],
    truth: Callable[..., np.ndarray],
    work: Callable[..., Work],
    predict: Callable[..., int],
) -> Case:
    """What maps sources and an affinity to values for every class and patch."""
    size, itemsize = scene.size, scene.itemsize
    return Case(
        _per_image(solve, size),
        (_shaped(scene.sources), scene.narrow),
        partial(_all_images, truth, scene.sources, scene.affinities),
        relative_error,
        partial(work, patches=size.patches, itemsize=itemsize),
        predict(size.classes, size.patches, itemsize=itemsize, images=size.images),
    )


def _kl(scene: Scene) -> Case:
    size = scene.size

    def solve(source: jax.Array) -> Outcome:
        return Outcome(kl_map(source))

    return Case(
        _per_image(solve, size),
        (_shaped(scene.sources),),
        partial(_all_images, true_kl, scene.sources),
        scaled_error,
        lambda _: kl_work(size.images, size.classes, size.patches),
    )


def _upsampling(size: Size) -> Case:
    """Maps of all classes, brought to the pixels by their neighbouring patches."""
    rng = np.random.default_rng(0)
    side = math.isqrt(size.patches)
    grid, pixels = (side, side), (_PIXELS * side, _PIXELS * side)
    maps = rng.random((size.images, size.classes, *grid), np.float32)
    photos = rng.random((size.images, *pixels, 3), np.float32)

    def solve(maps: jax.Array, photo: jax.Array) -> Outcome:
        return Outcome(ops.joint_bilateral_upsample(maps, photo))

    return Case(
        _per_image(solve, size),
        (_shaped(maps), _shaped(photos)),
        partial(_all_images, true_upsampled, maps, photos),
        scaled_error,
        lambda _: upsampling_work(
            size.images, size.classes, size.patches, math.prod(pixels)
        ),
    )


def _self_attention(size: Size) -> Case:
    """The affinity from queries and keys; there are no classes yet."""
    rng = np.random.default_rng(0)
    shape = (2, _LAYERS, size.images, size.patches, _HEADS, _CHANNELS)
    queries, keys = rng.normal(size=shape).astype(np.float32)

    def solve(pairs: list[QueryKey]) -> Outcome:
        return Outcome(average_attention(pairs, [1.0] * _LAYERS))

    narrow = [part.astype(jnp.dtype(size.dtype)) for part in (queries, keys)]
    pairs = [QueryKey(*layer) for layer in zip(*narrow, strict=True)]
    by_image = (part.swapaxes(0, 1) for part in (queries, keys))
    return Case(
        solve,
        (pairs,),
        partial(_all_images, true_attention, *by_image),
        scaled_error,
        lambda _: attention_work(
            size.images,
            size.patches,
            heads=_LAYERS * _HEADS,
            channels=_CHANNELS,
            itemsize=jnp.dtype(size.dtype).itemsize,
        ),
    )


def _per_image(solve: Callable[..., Outcome], size: Size) -> Callable[..., Outcome]:
    """One image as it is, several mapped over."""
    return solve if size.images == 1 else jax.vmap(solve)


def _shaped(arrays: np.ndarray) -> np.ndarray:
    """Without the axis of images if there is one."""
    return arrays[0] if len(arrays) == 1 else arrays


def _all_images(truth: Callable[..., np.ndarray], *arrays: np.ndarray) -> np.ndarray:
    return np.stack([truth(*image) for image in zip(*arrays, strict=True)])
