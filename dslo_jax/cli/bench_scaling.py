"""``dslo bench scaling``: the whole pipeline on 1, 2, 4, ... devices."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from dslo_jax.bench.machine import describe_machine
from dslo_jax.bench.pipeline.child import Job
from dslo_jax.bench.pipeline.scaling import SCHEMA, measure_scaling
from dslo_jax.bench.pipeline.scenarios import BATCHES
from dslo_jax.cli.measuring import photo_size
from dslo_jax.cli.saving import new_table, save_result
from dslo_jax.cli.terminal import say
from dslo_jax.cli.values import OptionalPath
from dslo_jax.devices import Precision
from dslo_jax.errors import OptionError


_USUAL = (1, 2, 4, 8)
_COLUMNS = ("devices", "batch", "photos/s", "speed-up", "efficiency", "load s")


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """Measure the photos in a second on 1, 2, 4, ... devices of this machine.

    Each number of devices is measured in a process of its own, from pixels on the host
    to labels on the host, with the same number of photos at once for each device. The
    speed-up is the ratio to the first number of devices, and the efficiency is the
    speed-up for each device. On a CPU the devices are emulated and share the cores:
    this shows that it works, and says nothing about the speed of real devices.

    Args:
        model: A pair of networks, as for dslo segment.
        mode: Discrepancy to solve for.
        precision: Precision of the networks; auto is float32 on a CPU, bfloat16
            elsewhere.
        classes: Number of classes, at most 200.
        devices: Numbers of devices, ascending. Default: 1, 2, 4, 8, as far as there
            are devices.
        batch: Photos at once for each device.
        photos: Photos, folders or patterns. Default: drawn scenes.
        photo_size: HEIGHTxWIDTH of drawn scenes in pixels.
        device: cpu, gpu, tpu or auto.
        repeats: Number of timed calls, of three batches each.
        seconds: Least time in seconds for the timed calls.
        save: JSON file for all samples, versions and the machine.
    """

    model: str = "sd2+clip-b16"
    mode: str = "velocity"
    precision: Precision = "auto"
    classes: int = 8
    devices: tuple[int, ...] = ()
    batch: int = 8
    photos: tuple[str, ...] = ()
    photo_size: str = "512x512"
    device: str = "auto"
    repeats: int = 10
    seconds: float = 10.0
    save: OptionalPath = None


def run(options: Scaling, out: Console, errors: Console) -> int:
    """Run the command and return the exit code."""
    _check(options)
    result: dict[str, Any] = {"schema": SCHEMA, "status": "running", "rows": []}
    save_result(options.save, result)  # reports at once that a file cannot be written
    job = Job(
        model=options.model,
        device=options.device,
        precision=options.precision,
        options={"mode": options.mode},
        classes=options.classes,
        photos=options.photos,
        size=photo_size(options.photo_size),
        batch=options.batch,
        calls=BATCHES,
        repeats=options.repeats,
        seconds=options.seconds,
    )
    found = measure_scaling(
        job,
        options.devices or _USUAL,
        is_open=not options.devices,
        say=lambda words: say(errors, words),
    )
    for row in found:
        result["rows"].append(row)
        save_result(options.save, result)
    # Not before: an accelerator may serve only one process.
    result |= {"status": "done", "machine": describe_machine()}
    save_result(options.save, result)
    _tell(result, out)
    return 0


def _check(options: Scaling) -> None:
    for name in ("classes", "batch", "repeats"):
        if getattr(options, name) < 1:
            raise OptionError(
                "O01", f"--{name} {getattr(options, name)}; expected at least 1"
            )
    if not (math.isfinite(options.seconds) and options.seconds >= 0):
        raise OptionError("O01", f"--seconds {options.seconds}; expected 0 or more")
    counts = options.devices
    if any(count < 1 for count in counts) or list(counts) != sorted(set(counts)):
        given = " ".join(map(str, counts))
        raise OptionError("O01", f"--devices {given}; expected ascending numbers")


def _tell(result: Mapping[str, Any], out: Console) -> None:
    table = new_table(
        "devices", "batch", "photos/s", "speed-up", "efficiency", "load s"
    )
    for row in result["rows"]:
        table.add_row(
            str(row["devices"]),
            str(row["images"]),
            f"{row['images_per_s']:.3g}",
            f"{row['speed_up']:.2f}",
            f"{row['efficiency']:.0%}",
            f"{row['load_s']:.2f}",
        )
    out.print(table)
    if any(row["emulated"] for row in result["rows"]):
        say(out, "emulated devices share the cores: no figure of real devices")
