"""Computation and memory of the stages that ran, by formula and by the compiler."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from dslo_jax.attention import AffinitySource
from dslo_jax.bench.peaks import Peaks
from dslo_jax.bench.pipeline.subjects import Photos, Staged
from dslo_jax.bench.roofline import roofline
from dslo_jax.bench.timing import Counts, counts_of
from dslo_jax.config import SegmenterConfig
from dslo_jax.cost import Work, solver_work
from dslo_jax.cost.upsampling import upsampling_work
from dslo_jax.pipeline import Networks
from dslo_jax.pipeline.stages import Call


class StageCosts(NamedTuple):
    """What one of our stages costs for a batch.

    Attributes:
        compile_s: Time of tracing and compiling, in seconds.
        work: Computation by formula; ``None`` where there is no formula.
        counts: Computation by the compiler, loop bodies once; ``None`` if unknown.
        weight_bytes: Parameters of the network of the stage.
        other_bytes: Other arguments, results and temporary arrays of the program that
            takes most, by the compiler.
        has_programs: Whether the stage runs on the device.
    """

    compile_s: float = 0.0
    work: Work | None = None
    counts: Counts | None = None
    weight_bytes: int = 0
    other_bytes: int = 0
    has_programs: bool = False

    def plain(self, peaks: Peaks, seconds: float) -> dict[str, Any]:
        """The costs as plain values, for result files.

        Args:
            peaks: Peaks of the device, for the precision of the networks.
            seconds: Measured time of the stage.
        """
        work, counts = self.work, self.counts
        line = None
        if work is not None and work.flops and seconds:
            line = roofline(work, peaks, seconds)._asdict()
        return {
            "compile_s": self.compile_s,
            "flops": {
                "formula": None if work is None else work.flops,
                "xla": None if counts is None else counts.flops,
            },
            "bytes": {  # formulas of networks count no bytes
                "formula": None if work is None else work.bytes or None,
                "xla": None if counts is None else counts.bytes,
            },
            "roofline": line,
            "memory": {
                "predicted_bytes": self.weight_bytes + self.other_bytes
                if self.has_programs
                else None
            },
        }


def costs_of(
    networks: Networks,
    config: SegmenterConfig,
    calls: Sequence[Call],
    photos: Photos,
    staged: Staged,
) -> dict[str, StageCosts]:
    """The costs of all stages of a batch, by their names.

    Args:
        networks: The networks that ran.
        config: The options of the run.
        calls: The calls of the stages, from ``stages.watch``.
        photos: The photos of the batch.
        staged: From ``run_stages``, on these photos.
    """
    solved = staged.solved
    steps = [
        solved.solution.num_steps[photo, : solved.counts[photo]].tolist()
        for photo in range(len(photos))
    ]
    pixels = sum(photo.shape[0] * photo.shape[1] for photo in photos)
    work = work_of_stages(networks, config, calls, steps, pixels)
    own = {call.stage for call in calls}
    averaging = work.pop("aggregation", None)
    if averaging is not None:  # it is a part of the UNet's program
        stage = "aggregation" if "aggregation" in own else "unet"
        work[stage] = (work.get(stage) or Work()) + averaging
    return {
        stage: StageCosts(
            compile_s,
            work.get(stage),
            _counts([call for call in calls if call.stage == stage]),
            *_bytes([call for call in calls if call.stage == stage]),
            has_programs=stage in own,
        )
        for stage, compile_s in staged.compile_seconds.items()
    }


def work_of_stages(
    networks: Networks,
    config: SegmenterConfig,
    calls: Sequence[Call],
    steps: Sequence[Sequence[int]],
    pixels: int,
) -> dict[str, Work | None]:
    """Computation of the stages of a batch, by formula.

    Args:
        networks: The networks that ran.
        config: The options of the run.
        calls: The calls of the stages, from ``stages.watch``.
        steps: For each photo, the solver steps of every class that was solved for.
        pixels: Number of pixels of all photos together.

    Returns:
        The computation by the name of the stage; ``None`` where there is no formula.
        The averaging of the affinity has a name of its own, ``"aggregation"``.
    """
    logits = networks.source_of_logits(config.clip.attention).module
    found = dict[str, Any]()
    for call in calls:
        match call.stage:
            case "text":
                work = logits.embed_work(*call.arguments[1].shape)
                found["text"] = found.get("text", Work()) + work
            case "clip" if call.static.get("windows") is not None:
                found["clip"] = None  # the number of windows is not known from shapes
            case "clip" if found.get("clip", Work()) is not None:
                _, cut, *proxy = call.arguments
                photos, count = cut.pixels.shape[:2]
                more = (each.pixels.shape[1] for each in proxy)
                work = logits.features_work(count, call.static["attention"], *more)
                found["clip"] = found.get("clip", Work()) + work.times(photos)
            case "solver":
                found["solver"] = _solver_work(call, steps)
            case "labels":
                found["labels"] = _label_work(config, networks, steps, pixels)
    source = source_of(networks, config)
    if source is not None:
        found |= {name: w.times(len(steps)) for name, w in source.work().items()}
    return found


def source_of(networks: Networks, config: SegmenterConfig) -> AffinitySource | None:
    """The source of affinities, if the discrepancy needs one."""
    if not config.discrepancy.needs_affinity:
        return None
    return networks.affinity(config.affinity).module


def _bytes(calls: Sequence[Call]) -> tuple[int, int]:
    """Bytes of the parameters, and of all else, of the largest of some programs."""
    weights = others = 0
    for call in calls:
        sizes = call.program.memory_analysis()
        own = sum(
            _bytes_of(argument)
            for argument in call.arguments
            if isinstance(argument, nnx.State)
        )
        weights = max(weights, own)
        if sizes is not None:
            total = sizes.argument_size_in_bytes + sizes.output_size_in_bytes
            others = max(others, total + sizes.temp_size_in_bytes - own)
    return weights, others


def _counts(calls: Sequence[Call]) -> Counts | None:
    """The sum of what the compiler counts; ``None`` if it does not count."""
    known = [counts_of(call.program) for call in calls]
    found = [counts for counts in known if counts is not None]
    return Counts(*map(sum, zip(*found, strict=True))) if found else None


def _solver_work(call: Call, steps: Sequence[Sequence[int]]) -> Work | None:
    """Computation of the solver; ``None`` without a formula for the discrepancy."""
    patches = call.arguments[0].shape[-1]
    found = [
        solver_work(call.static["discrepancy"], np.array([each], int), patches)
        for each in steps
    ]
    known = [work for work in found if work is not None]
    return sum(known, start=Work()) if len(known) == len(found) else None


def _label_work(
    config: SegmenterConfig,
    networks: Networks,
    steps: Sequence[Sequence[int]],
    pixels: int,
) -> Work | None:
    """Computation of the upsampling; ``None`` for dense upsampling."""
    method = config.upsampling.upsampling
    if method == "dense":
        return None
    patches = math.prod(networks.grid(config.affinity))
    photos = len(steps)
    works = [
        upsampling_work(1, len(each), patches, pixels // photos, method)
        for each in steps
    ]
    return sum(works, start=Work())


def _bytes_of(tree: Any) -> int:
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)
