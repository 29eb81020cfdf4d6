"""Chips that are not there: their compilers, and their published peak rates."""

import functools
import importlib.metadata
import logging
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from dslo_jax.bench.compile.gpus import GPUS, describe_gpu
from dslo_jax.errors import DeviceError


class Chip(NamedTuple):
    """A chip that programs are compiled for.

    Attributes:
        name: Name on the command line.
        kind: ``"tpu"`` or ``"gpu"``.
        source: Where the peaks are from.
        bfloat16: FLOPs per second of products in bfloat16.
        float32: FLOPs per second of products in full float32. A TPU adds six products
            in bfloat16.
        tensorfloat32: FLOPs per second of products with factors rounded to tf32.
        vector: FLOPs per second outside products.
        bandwidth: Bytes per second of the memory.
        memory: Bytes of the memory.
        clock: Cycles per second in the estimates of the compiler; 0 for a GPU.
        topology: Name of the smallest topology of a TPU that its compiler takes.
    """

    name: str
    kind: str
    source: str
    bfloat16: float
    float32: float
    tensorfloat32: float
    vector: float
    bandwidth: float
    memory: float
    clock: float = 0.0
    topology: str = ""

    def product_rate(self, dtype: str, precision: str) -> float:
        """FLOPs per second of products of a type at a precision."""
        if dtype in ("bf16", "f16"):
            return self.bfloat16
        return self.float32 if precision == "highest" else self.tensorfloat32


def _tpu(name: str, topology: str, bfloat16: float, **rest: Any) -> Chip:
    return Chip(
        name=name,
        kind="tpu",
        topology=topology,
        bfloat16=bfloat16,
        float32=bfloat16 / 6,
        tensorfloat32=bfloat16,
        **rest,
    )


def _gpu(name: str, bfloat16: float, tf32: float, float32: float) -> Chip:
    return Chip(
        name=name,
        kind="gpu",
        source="NVIDIA's data sheet (dense, SXM); bandwidth and memory as in gpus.py",
        bfloat16=bfloat16,
        float32=float32,
        tensorfloat32=tf32,
        vector=float32,
        bandwidth=GPUS[name].bandwidth,
        memory=GPUS[name].memory,
    )


CHIPS: Mapping[str, Chip] = MappingProxyType(
    {
        "v5e": _tpu(
            "v5e",
            "v5e:2x2",
            197e12,
            source="docs.cloud.google.com/tpu/docs/v5e; the clock is the peak divided "
            "by the operations of four units of 128 x 128 in a cycle",
            vector=6.1e12,
            bandwidth=819e9,
            memory=16e9,
            clock=1.5e9,
        ),
        "v6e": _tpu(
            "v6e",
            "v6e:2x2",
            918e12,
            source="docs.cloud.google.com/tpu/docs/v6e; the clock is assumed",
            vector=7.2e12,
            bandwidth=1640e9,
            memory=32e9,
            clock=1.75e9,
        ),
        "h100": _gpu("h100", 989e12, 494e12, 67e12),
        "h200": _gpu("h200", 989e12, 494e12, 67e12),
        "a100": _gpu("a100", 312e12, 156e12, 19.5e12),
    }
)
"""All chips by their names."""

LAUNCH_S = 3e-6
"""Assumed time to start a kernel on a GPU from the host, in seconds."""

HOST_READ_S = 10e-6
"""Assumed time until the host has read a value from a GPU, in seconds."""

_PACKAGES = {
    "tpu": ("tpu-aot", ("libtpu",)),
    "gpu": ("gpu-aot", ("jax-cuda13-plugin", "jax-cuda13-pjrt", "nvidia-cuda-nvcc")),
}
# The compiler of TPUs asks the machine which TPU it has, unless it is told.
_SETTINGS = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_LOG_DIR": "disabled",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


def missing_packages(chip: Chip) -> tuple[str, ...]:
    """Packages of the compiler of a chip that are not installed."""
    return tuple(name for name in _PACKAGES[chip.kind][1] if not _is_installed(name))


def describe_compiler(name: str) -> dict[str, Any]:
    """Packages of the compiler of a chip with their versions, and its peaks."""
    chip = CHIPS[name]
    packages = _PACKAGES[chip.kind][1]
    versions = {each: importlib.metadata.version(each) for each in packages}
    return {"versions": versions, "peaks": chip._asdict()}


def stay_on_cpu() -> None:
    """Let JAX start no device but the CPU: it would look for those of the compilers.

    Must be called before the first array is made.
    """
    jax.config.update("jax_platforms", "cpu")


@functools.lru_cache(maxsize=16)
def topology(name: str, count: int = 1) -> tuple[Any, ...]:
    """Devices of a chip that are not there.

    Args:
        name: One of ``CHIPS``.
        count: Number of devices.

    Returns:
        The devices, for shardings of abstract arrays.

    Raises:
        DeviceError: The compiler is not installed, cannot start, or has no such
            topology (``D04``).
    """
    chip = CHIPS[name]
    missing = missing_packages(chip)
    extra = _PACKAGES[chip.kind][0]
    if missing:
        raise DeviceError(
            "D04",
            f"to compile for {name}, {', '.join(missing)} must be installed: "
            f'pip install -c constraints.txt "dslo-jax[{extra}]"; use an environment '
            "of its own, because JAX would look for such devices at every start",
        )
    for key, value in _SETTINGS.items():
        os.environ.setdefault(key, value)
    try:
        if chip.kind == "gpu":
            found = topologies.get_topology_desc(
                platform="cuda",
                topology=f"1x1x{count}",
                target_config=describe_gpu(GPUS[name]),
            )
        else:
            shape = chip.topology if count <= 4 else f"{name}:4x4"
            found = topologies.get_topology_desc(platform="tpu", topology_name=shape)
    except Exception as error:  # the plugins raise what they like
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DeviceError(
            "D04",
            f"the compiler for {name} does not start: {reason}; are its packages those "
            f"of the extra {extra}, with the versions of constraints.txt?",
        ) from error
    return tuple(found.devices[:count])


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def quiet_logs() -> None:
    """Silence JAX's warnings about devices that are not there."""
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.ERROR)
