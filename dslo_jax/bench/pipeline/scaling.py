"""Photos in a second over the number of devices, each number in its own process."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from dslo_jax.bench.pipeline.child import Job, run_child
from dslo_jax.errors import DeviceError


SCHEMA = "dslo.bench.scaling.v1"


def measure_scaling(
    job: Job, counts: Sequence[int], *, is_open: bool, say: Callable[[str], None]
) -> Iterator[dict[str, Any]]:
    """Measure one number of devices after another, and yield their rows.

    The batch grows with the devices, so that each device always has as many photos.

    Args:
        job: What one device does; ``batch`` is its photos at once.
        counts: Numbers of devices, ascending.
        is_open: Whether to end without an error at the first number of devices that
            the machine does not have.
        say: Prints progress.

    Yields:
        Plain values: those of ``run_child``, and ``speed_up`` and ``efficiency`` over
        the first row.

    Raises:
        DeviceError: The machine has fewer devices (``D02``), or memory ends (``D01``).
    """
    first: Mapping[str, Any] | None = None
    environment = _emulated(max(counts)) if job.device.startswith("cpu") else {}
    for count in counts:
        say(f"measuring {count} device{'s' if count > 1 else ''}")
        many = replace(job, devices=count, batch=job.batch * count)
        try:
            row = run_child(many, environment)
        except DeviceError as error:
            if is_open and first is not None and error.code == "D02":
                return
            raise
        first = first or row
        yield {**row, **scaled(row, first), "emulated": bool(environment)}


def scaled(row: Mapping[str, Any], first: Mapping[str, Any]) -> dict[str, float]:
    """Speed-up and efficiency of a row.

    Args:
        row: ``images_per_s`` with some number of ``devices``.
        first: The same with fewer devices, which counts as efficient.
    """
    speed_up = row["images_per_s"] / first["images_per_s"]
    return {
        "speed_up": speed_up,
        "efficiency": speed_up * first["devices"] / row["devices"],
    }


def _emulated(count: int) -> dict[str, str]:
    """Variables that divide the processor into several devices of JAX."""
    given = os.environ.get("XLA_FLAGS", "")
    flag = f"--xla_force_host_platform_device_count={count}"
    return {"XLA_FLAGS": f"{given} {flag}".strip()}
