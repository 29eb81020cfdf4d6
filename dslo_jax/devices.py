"""The device that the networks run on, and their precision."""

import errno
import importlib.metadata
import re
import traceback
from collections.abc import Sequence
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from dslo_jax.errors import DeviceError, OptionError, cause_of, is_out_of_memory


_BACKENDS = "jax._src.xla_bridge"  # the module of JAX that starts devices

Precision = Literal["auto", "float32", "bfloat16", "float16"]


def find_device(name: str) -> jax.Device:  # pyright: ignore[reportInvalidTypeForm]
    """Find a device of this process: ``"auto"``, ``"cpu"``, ``"gpu:1"``, ...

    Args:
        name: The kind of the device, and its position among those of this process,
            from 0. Under ``jax.distributed``, other processes have other devices.

    Raises:
        DeviceError: There is no such device (``D02``); the message lists the devices.
    """
    kind, colon, number = name.partition(":")
    try:
        if colon and not number.isdecimal():
            raise ValueError(f"{number!r} is no position")
        return _local_devices(kind)[int(number or 0)]
    except Exception as error:  # backends raise what they like
        raise _no_device(name, error) from error


def find_devices(name: str, number: int | str = 1) -> np.ndarray:
    """Find devices of this process, which share the work.

    Args:
        name: As for ``find_device``; the first of them.
        number: How many: 4, or ``"4"``; ``"all"``, from the first on; or ``"2x4"``, 2
            that share the photos of a batch times 4 that share the classes.

    Returns:
        The devices ``[photos, classes]``.

    Raises:
        DeviceError: There are not so many (``D02``); the message lists the devices.
        OptionError: The number is something else (``O01``).
    """
    text = str(number)
    match = re.fullmatch(r"([1-9]\d*)(?:x([1-9]\d*))?|all", text)
    if match is None:
        raise OptionError(
            "O01",
            f"devices = {text!r}; expected a number, all, or PHOTOSxCLASSES, as in 2x4",
        )
    find_device(name)
    kind, _, position = name.partition(":")
    found = _local_devices(kind)[int(position or 0) :]
    photos, classes = int(match[1] or len(found)), int(match[2] or 1)
    if photos * classes > len(found):
        raise DeviceError(
            "D02",
            f"devices = {text!r} needs {photos * classes}, and this process has "
            f"{len(found)} of device = {name!r}: {_told(found)}",
        )
    chosen = np.empty(photos * classes, object)
    chosen[:] = found[: photos * classes]
    return chosen.reshape(photos, classes)


def _local_devices(kind: str) -> list[jax.Device]:  # pyright: ignore[reportInvalidTypeForm]
    return jax.local_devices(backend=None if kind == "auto" else kind)


def device_error(error: BaseException) -> DeviceError | None:
    """The error about a device or the machine that is behind an exception.

    Libraries raise such errors with many types and at any place: as the first array is
    made, in the middle of a computation, as a file is opened.

    Args:
        error: An exception with its traceback.

    Returns:
        The error with its remedy; ``None`` if the exception is about something else.
    """
    words = cause_of(error)
    reason = words.splitlines()[0] if words else type(error).__name__
    number = error.errno if isinstance(error, OSError) else None
    if is_out_of_memory(error):
        return DeviceError(
            "D01",
            f"out of memory ({reason}); try fewer photos or images at once, fewer "
            "classes, a smaller --affinity-size or --short-side, or half precision",
        )
    if number in (errno.EMFILE, errno.ENFILE):
        return DeviceError(
            "D03",
            f"too many open files ({reason}); raise the limit with: ulimit -n 1024",
        )
    if number == errno.EAGAIN or "can't start new thread" in reason:
        return DeviceError(
            "D03",
            f"the system starts no more threads or processes ({reason}); raise the "
            "limit with ulimit -u, or end other programs",
        )
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if any(frame.f_globals.get("__name__") == _BACKENDS for frame in frames):
        return _no_device("auto", error)
    return None


def _no_device(name: str, error: BaseException) -> DeviceError:
    reason = str(error).splitlines()[0] if str(error) else "it names no device here"
    try:
        present = _told(jax.local_devices())
    except Exception:  # JAX_PLATFORMS names a backend that is not here
        present = "none"
    chosen = jax.config.jax_platforms  # pyright: ignore[reportAttributeAccessIssue]
    missing = f"there is no device {name!r}" if name != "auto" else "JAX has no device"
    cause = f" with JAX_PLATFORMS={chosen} ({reason})" if chosen else ""
    return DeviceError(
        "D02",
        f"{missing}{cause}; devices: {present}; installed: {_installed()}. For an "
        'NVIDIA GPU: pip install "dslo-jax[cuda]"; for the processor: --device cpu, '
        "and JAX_PLATFORMS unset or cpu",
    )


def _told(devices: Sequence[jax.Device]) -> str:  # pyright: ignore[reportInvalidTypeForm]
    """The names that ``find_device`` takes, of some devices of this process."""
    names = []
    for device in devices:
        place = jax.local_devices(backend=device.platform).index(device)
        names.append(f"{device.platform}:{place}")
    return ", ".join(names)


def _installed() -> str:
    """JAX and its plugins, with their versions."""
    wanted = re.compile(r"jax(lib|[-_].*(plugin|pjrt))?$|libtpu")
    packages = importlib.metadata.distributions()
    found = {p.name: p.version for p in packages if wanted.match(p.name or "")}
    return ", ".join(f"{name} {version}" for name, version in sorted(found.items()))


def network_dtype(
    precision: str,
    device: jax.Device,  # pyright: ignore[reportInvalidTypeForm]
) -> jnp.dtype:
    """The floating type of a precision on a device.

    Args:
        precision: One of ``Precision``; ``"auto"`` is float32 on a CPU and bfloat16
            elsewhere.
        device: Where the networks run.

    Raises:
        OptionError: The precision is unknown (``O03``).
    """
    if precision == "auto":
        precision = "float32" if device.platform == "cpu" else "bfloat16"
    if precision not in get_args(Precision):
        known = ", ".join(get_args(Precision))
        raise OptionError("O03", f"precision {precision!r}; expected one of {known}")
    return jnp.dtype(precision)
