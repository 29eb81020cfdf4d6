"""What all benchmarks share: the machine, interleaved timing, and the result file."""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax


RESULTS = Path(__file__).parent / "results"
# CC0, by Rachel Michetti, courtesy of Pikolo Espresso Bar; from scikit-image's samples.
PHOTO = Path(__file__).parent / "coffee.jpg"
_PACKAGES = ("jax", "jaxlib", "flax", "numpy", "torch", "transformers", "diffusers")
_SETTINGS = ("XLA_FLAGS", "JAX_PLATFORMS", "OMP_NUM_THREADS", "GLIBC_TUNABLES")


def interleave(
    functions: Mapping[str, Callable[[], Any]], *, repeats: int
) -> dict[str, list[float]]:
    """Time functions in turn, so that a noisy moment hits all of them.

    Args:
        functions: Each returns when its work is done; one unmeasured call comes first.
        repeats: Measured calls of each.

    Returns:
        All samples in seconds, by name.
    """
    samples: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            samples[name].append(time.perf_counter() - start)
    return samples


def describe_machine() -> dict[str, Any]:
    """Device, versions and settings that a figure depends on."""
    device = jax.devices()[0]
    return {
        "started_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": _command(),
        "commit": _commit(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "device": {"platform": device.platform, "kind": device.device_kind},
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "settings": {name: os.environ.get(name) for name in _SETTINGS},
    }


def save(name: str, result: Mapping[str, Any]) -> Path:
    """Write a result file; strict JSON."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(dict(result), indent=1, allow_nan=False) + "\n")
    return path


def _command() -> str:
    """What was run; of paths of this machine only the last part."""
    words = [Path(word).name if word.startswith("/") else word for word in sys.argv]
    return " ".join(["python", *words])


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor()
