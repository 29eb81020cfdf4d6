"""All settings of a sweep, measured one after another."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import jax

from dslo_jax.bench.energy import Energy
from dslo_jax.bench.peaks import Peaks
from dslo_jax.bench.pipeline.photos import choose_classes
from dslo_jax.bench.pipeline.scenarios import SCENARIOS
from dslo_jax.bench.pipeline.setting import Measured, OneSetting, Tools
from dslo_jax.bench.pipeline.subjects import OURS, load_torch
from dslo_jax.bench.timing import Effort
from dslo_jax.segmenter import Segmenter


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What is measured.

    Args:
        model: As for ``dslo segment``.
        modes: Names of discrepancies.
        precisions: Precisions of the networks.
        sizes: Sides of photos for the source of affinities; empty for that of the
            model.
        classes: Numbers of classes.
        batches: Sizes of a batch; empty for 1, 2, 4, ... until memory ends.
        scenarios: Some of ``SCENARIOS``.
        distinct: Number of distinct photos, at least that of a batch; the results of
            so many are compared with those of an untimed run.
        photos: Photos, folders or patterns; empty to draw some.
        photo_size: Height and width of drawn photos.
        with_torch: Whether to measure PyTorch by turns.
        compiled: Whether PyTorch compiles its networks.
        energy: Whether to measure energy.
        effort: How long the calls of a scenario are timed.
        trace: Folder for a trace of the profiler of JAX.
    """

    model: str
    modes: tuple[str, ...]
    precisions: tuple[str, ...]
    sizes: tuple[int, ...] = ()
    classes: tuple[int, ...] = (8,)
    batches: tuple[int, ...] = ()
    scenarios: tuple[str, ...] = SCENARIOS
    distinct: int = 8
    photos: tuple[str, ...] = ()
    photo_size: tuple[int, int] = (512, 512)
    with_torch: bool = False
    compiled: bool = False
    energy: bool = False
    effort: Effort = Effort()
    trace: Path | None = None


def measure_sweep(
    sweep: Sweep,
    device: jax.Device,  # pyright: ignore[reportInvalidTypeForm]
    peaks_of: Callable[[str], Peaks],
    say: Callable[[str], None],
) -> Iterator[Measured]:
    """Measure everything, and yield the rows of each size of a batch.

    Args:
        sweep: What to measure.
        device: The device that is measured.
        peaks_of: Peaks of the device for a precision of the networks.
        say: Prints progress.

    Raises:
        DsloError: The networks cannot be loaded, or an option cannot be used.
    """
    energy = Energy(device) if sweep.energy else None
    place = (
        f"{device.platform}:{jax.local_devices(backend=device.platform).index(device)}"
    )
    for precision in sweep.precisions:
        say(f"loading the networks in {precision}")
        start = time.perf_counter()
        loaded = Segmenter.from_pretrained(sweep.model, dtype=precision, device=place)
        load_s = {OURS: time.perf_counter() - start}
        theirs = None
        if sweep.with_torch:
            theirs = load_torch(
                sweep.model, precision=precision, device=device.platform
            )
            load_s["torch"] = theirs.load_s
        for mode in sweep.modes:
            for size in sweep.sizes or (loaded.config.affinity.size,):
                for count in sweep.classes:
                    one = OneSetting(
                        loaded.networks,
                        loaded.config.with_options(mode=mode, affinity_size=size),
                        choose_classes(count),
                        precision,
                        Tools(
                            sweep.scenarios,
                            sweep.effort,
                            peaks_of(precision),
                            sweep.distinct,
                            sweep.photos,
                            sweep.photo_size,
                            theirs,
                            sweep.compiled,
                            energy,
                            sweep.trace,
                            say,
                        ),
                    )
                    for found in one.measured(sweep.batches):
                        for row in found.rows:
                            row["load_s"] = load_s[row["name"]]
                        yield found
