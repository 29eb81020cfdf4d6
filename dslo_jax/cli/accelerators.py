"""Accelerators of this machine that JAX does not use, and why."""

import importlib.metadata
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import jax


_DRIVER = Path("/proc/driver/nvidia/version")
_TPU_NODES = ("/dev/accel0", "/dev/vfio/0")


def unused() -> tuple[str, ...]:
    """One sentence for each kind of accelerator that JAX does not use.

    No sentence for a kind that is used. Nothing is started but the devices of JAX.
    """
    found = [_unused_gpu(), _unused_tpu()]
    return tuple(sentence for sentence in found if sentence)


def _unused_gpu() -> str:
    return _unused(
        "GPU",
        "cuda",
        here=_has_nvidia_driver,
        absent="no NVIDIA driver on this machine",
        plugin=r"jax[-_]cuda\d*[-_]plugin$",
        remedy='pip install "dslo-jax[cuda]"',
        hidden_by=("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"),
    )


def _unused_tpu() -> str:
    return _unused(
        "TPU",
        "tpu",
        here=lambda: any(Path(node).exists() for node in _TPU_NODES),
        absent="no TPU on this machine",
        plugin=r"libtpu$",
        remedy='pip install "jax[tpu]"',
        hidden_by=(),
    )


def _unused(
    kind: str,
    backend: str,
    *,
    here: Callable[[], bool],
    absent: str,
    plugin: str,
    remedy: str,
    hidden_by: tuple[str, ...],
) -> str:
    """Why JAX does not use one kind of accelerator; empty if it does."""
    try:
        if jax.local_devices(backend=backend):
            return ""
        reason = "JAX found none"
    except Exception as error:  # backends raise what they like
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    installed = _installed(plugin)
    if not here():
        more = f", though {installed} is installed" if installed else ""
        return f"{kind}: not used: {absent}{more}"
    if not installed:
        return f"{kind}: not used: JAX has no plugin for it; {remedy}"
    chosen = _chosen_platforms()
    if chosen and backend not in chosen.replace("gpu", "cuda").split(","):
        return f"{kind}: not used: JAX_PLATFORMS={chosen} leaves it out"
    for name in hidden_by:
        if os.environ.get(name, "0") in ("", "-1", "void", "none"):
            return f"{kind}: not used: {name}={os.environ[name]!r} hides it"
    return f"{kind}: not used: {reason} ({installed})"


def _chosen_platforms() -> str | None:
    """The value of ``JAX_PLATFORMS``, or what a program has set in its place."""
    return jax.config.jax_platforms  # pyright: ignore[reportAttributeAccessIssue]


def _has_nvidia_driver() -> bool:
    return _DRIVER.exists() or shutil.which("nvidia-smi") is not None


def _installed(pattern: str) -> str:
    """Name and version of the first installed package whose name matches."""
    for package in importlib.metadata.distributions():
        if re.match(pattern, package.name or ""):
            return f"{package.name} {package.version}"
    return ""
