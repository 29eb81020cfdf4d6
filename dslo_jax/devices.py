"""The device that the networks run on, and their precision."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp

from dslo_jax.errors import DeviceError, OptionError


Precision = Literal["auto", "float32", "bfloat16", "float16"]


def find_device(name: str) -> jax.Device:  # pyright: ignore[reportInvalidTypeForm]
    """Find the device of a name: ``"auto"``, ``"cpu"``, ``"gpu:1"``, ...

    Raises:
        DeviceError: There is no such device (``D02``); the message lists the devices.
    """
    if name == "auto":
        return jax.devices()[0]
    kind, _, number = name.partition(":")
    try:
        return jax.devices(kind)[int(number or 0)]
    except (RuntimeError, IndexError, ValueError) as error:
        present = ", ".join(f"{d.platform}:{d.id}" for d in jax.devices())
        raise DeviceError(
            "D02",
            f"there is no device {name!r}; jax {jax.__version__} sees: {present}. For "
            "an NVIDIA GPU install dslo-jax[cuda]",
        ) from error


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
