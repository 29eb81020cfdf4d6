"""Description of the machine that a result was measured on."""

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax


_PACKAGES = (
    *("dslo-jax", "jax", "jaxlib", "flax", "numpy"),
    *("torch", "transformers", "diffusers"),
)
_SETTINGS = (
    *("XLA_FLAGS", "JAX_PLATFORMS", "JAX_COMPILATION_CACHE_DIR"),
    *("XLA_PYTHON_CLIENT_PREALLOCATE", "OMP_NUM_THREADS", "GLIBC_TUNABLES"),
)
_FOLDERS = ("JAX_COMPILATION_CACHE_DIR",)
_WHAT_RUNS = (":(top)*.py", ":(top)*.toml", ":(top)constraints.txt")


def describe_machine(
    device: jax.Device | None = None,  # pyright: ignore[reportInvalidTypeForm]
) -> dict[str, Any]:
    """Device, versions and settings, as plain values.

    Args:
        device: Device that runs the programs; default: the first one.

    Returns:
        The description, with ``None`` for each value that this system does not provide.
        ``load`` is the mean number of runnable processes in the minute before the
        measurement, ``governor`` the policy for the clock of the first core. ``ticks``
        is for ``stolen_since``.
    """
    used = jax.local_devices()[0] if device is None else device
    return {
        "started_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": _command(),
        "commit": commit_of_code(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "device": {"platform": used.platform, "kind": used.device_kind},
        "cpu": processor_name(),
        "cores": usable_cores(),
        "governor": _governor(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "ticks": _ticks(),
        "settings": {name: _setting(name) for name in _SETTINGS},
    }


def _setting(name: str) -> str | None:
    """A variable; of a folder only that it is set, because results are published."""
    value = os.environ.get(name)
    return "set" if value and name in _FOLDERS else value


def stolen_since(machine: Mapping[str, Any]) -> float | None:
    """Share of the time of the cores that the host gave to other virtual machines.

    Args:
        machine: From ``describe_machine``.

    Returns:
        Share since the description was made, in [0, 1]; ``None`` if the system does not
        provide it.
    """
    before, now = machine["ticks"], _ticks()
    if before is None or now is None:
        return None
    return (now["stolen"] - before["stolen"]) / max(now["all"] - before["all"], 1)


def _command() -> str:
    """The command line, with the last part only of absolute paths."""
    program, *words = (_last_part(word) for word in sys.argv)
    spec = sys.modules["__main__"].__spec__
    if spec is not None:
        program = f"python -m {spec.parent or spec.name}"
    elif program.endswith(".py"):
        program = f"python {program}"
    return " ".join([program, *words])


def _last_part(word: str) -> str:
    return Path(word).name if Path(word).is_absolute() else word


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def commit_of_code() -> str | None:
    """The commit of this code; ``None`` if it was installed without git.

    It ends in "-dirty" if code has changed since the commit. Results that a benchmark
    writes into the clone do not count.
    """
    try:
        if not _git("ls-files", Path(__file__).name):
            return None  # installed inside a clone of another project
        commit = _git("describe", "--always", "--exclude=*")
        changed = _git("diff", "--name-only", "HEAD", "--", *_WHAT_RUNS)
        return f"{commit}-dirty" if changed else commit or None
    except OSError:
        return None


def _git(*words: str) -> str:
    folder = Path(__file__).parent
    finished = subprocess.run(
        ["git", *words], cwd=folder, capture_output=True, text=True
    )
    return finished.stdout.strip()


def _ticks() -> dict[str, int] | None:
    """Clock ticks of all cores since the start: all of them, and the stolen ones."""
    try:
        first, *_ = Path("/proc/stat").read_text().splitlines()
    except OSError:
        return None
    # user, nice, system, idle, iowait, irq, softirq, steal; guests are part of user
    ticks = [int(word) for word in first.split()[1:9]]
    return {"all": sum(ticks), "stolen": ticks[7]} if len(ticks) == 8 else None


def processor_name() -> str:
    """The model of the processor, as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor() or platform.machine()


def _governor() -> str | None:
    path = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    try:
        return path.read_text().strip()
    except OSError:
        return None


def usable_cores() -> int | None:
    """Number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()
