"""Memory of this process and of its devices."""

import contextlib
from pathlib import Path

import jax


_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_host_peak() -> bool:
    """Forget the peak of this process so far; returns whether the system can."""
    with contextlib.suppress(OSError):
        _RESET.write_text("5")
        return True
    return False


def host_peak() -> int | None:
    """Greatest memory of this process since ``reset_host_peak``, in bytes.

    ``None`` where the system does not state it (it does on Linux).
    """
    return _field("VmHWM")


def host_bytes() -> int | None:
    """Memory of this process now, in bytes; ``None`` as in ``host_peak``."""
    return _field("VmRSS")


def available_bytes() -> int | None:
    """Memory that programs can still get from this machine, in bytes."""
    return _field("MemAvailable", Path("/proc/meminfo"))


def total_bytes() -> int | None:
    """Memory of this machine, in bytes; ``None`` as in ``host_peak``."""
    return _field("MemTotal", Path("/proc/meminfo"))


def device_peak(
    device: jax.Device,  # pyright: ignore[reportInvalidTypeForm]
) -> int | None:
    """Greatest memory of the arrays on a device since the start of this process.

    Returns:
        Bytes; ``None`` if the backend does not state it, as on a CPU.
    """
    found = device.memory_stats()
    return None if found is None else found.get("peak_bytes_in_use")


def _field(name: str, path: Path | None = None) -> int | None:
    try:
        lines = (path or _STATUS).read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        key, _, value = line.partition(":")
        if key == name:
            return 1024 * int(value.split()[0])
    return None
