"""Descriptions of GPUs for the compiler, which asks for a GPU that is not there.

The fields and values are those of the OpenXLA project (Apache License 2.0), files
``h100_sxm``, ``h200`` and ``a100_sxm_80`` of the folder
``xla/backends/gpu/target_config/specs`` in github.com/openxla/xla. The versions of CUDA
are those of the compiler's packages.
"""

from typing import NamedTuple


class Rate(NamedTuple):
    """Rate of one kind of unit of a core, for one type of number.

    Attributes:
        dtype: Number of the type in XLA's list of types.
        clock_ghz: Clock of the unit.
        units: Units of a core.
        operations: Operations of a unit in a cycle.
    """

    dtype: int
    clock_ghz: float
    units: int
    operations: int


class Gpu(NamedTuple):
    """What the compiler asks about a GPU.

    Attributes:
        name: Name that the driver reports.
        capability: Major version of the compute capability.
        is_accelerated: Whether the compiler may use what only this generation has.
        cores: Number of multiprocessors.
        lanes: Units for float32 of a multiprocessor.
        clock_ghz: Boost clock.
        bandwidth: Bytes per second of the memory.
        memory: Bytes of the memory.
        cache: Bytes of the second-level cache.
        shared: Bytes of shared memory of a multiprocessor.
        shared_of_block: Greatest number of bytes that a block may ask for.
        scalar: Rates of the scalar units.
        matrix: Rates of the tensor cores.
    """

    name: str
    capability: int
    is_accelerated: bool
    cores: int
    lanes: int
    clock_ghz: float
    bandwidth: int
    memory: int
    cache: int
    shared: int
    shared_of_block: int
    scalar: tuple[Rate, ...] = ()
    matrix: tuple[Rate, ...] = ()


_BOOST, _TENSOR = 1.98, 1.8295201
_EIGHT_BIT = (2, 6, 19, 20, 23, 24, 25, 28, 29, 33, 35, 36)
_HOPPER = Gpu(
    name="NVIDIA H100 80GB HBM3",
    capability=9,
    is_accelerated=True,
    cores=132,
    lanes=128,
    clock_ghz=_BOOST,
    bandwidth=3_352_320_000_000,
    memory=84_942_979_072,
    cache=52_428_800,
    shared=233_472,
    shared_of_block=232_448,
    scalar=(
        *(Rate(dtype, _BOOST, 64, 1) for dtype in (4, 8, 12)),
        *(Rate(dtype, _BOOST, 128, 2) for dtype in (10, 16)),
        Rate(11, _BOOST, 128, 1),
    ),
    matrix=(
        *(Rate(dtype, _TENSOR, 4, 1024) for dtype in _EIGHT_BIT),
        *(Rate(dtype, _TENSOR, 4, 512) for dtype in (10, 16)),
        Rate(11, _TENSOR, 4, 256),
        Rate(12, _BOOST, 4, 32),
    ),
)

GPUS = {
    "h100": _HOPPER,
    "h200": _HOPPER._replace(
        name="NVIDIA H200 141GB HBM3e",
        bandwidth=4_800_000_000_000,
        memory=151_397_597_184,
    ),
    "a100": Gpu(
        name="NVIDIA A100-SXM4-80GB",
        capability=8,
        is_accelerated=False,
        cores=108,
        lanes=64,
        clock_ghz=1.41,
        bandwidth=2_039_040_000_000,
        memory=85_100_068_864,
        cache=41_943_040,
        shared=167_936,
        shared_of_block=166_912,
    ),
}
"""GPUs by the name of the target."""


def describe_gpu(gpu: Gpu) -> str:
    """The text of XLA's ``GpuTargetConfigProto`` for a GPU."""
    feature = "ACCELERATED_FEATURES" if gpu.is_accelerated else "NONE"
    device = {
        **{"threads_per_block_limit": 1024, "threads_per_warp": 32},
        **{"shared_memory_per_block": 49152, "shared_memory_per_core": gpu.shared},
        **{"threads_per_core_limit": 2048, "core_count": gpu.cores},
        **{"fpus_per_core": gpu.lanes, "block_dim_limit_x": 2147483647},
        **{"block_dim_limit_y": 65535, "block_dim_limit_z": 65535},
        **{"memory_bandwidth": gpu.bandwidth, "l2_cache_size": gpu.cache},
        **{"clock_rate_ghz": gpu.clock_ghz, "device_memory_size": gpu.memory},
        "shared_memory_per_block_optin": gpu.shared_of_block,
        **{"registers_per_core_limit": 65536, "registers_per_block_limit": 65536},
        **{"thread_dim_limit_x": 1024, "thread_dim_limit_y": 1024},
        **{"thread_dim_limit_z": 64, "device_address_bits": 64},
        **{"device_vendor": '"NVIDIA Corporation"', "name": f'"{gpu.name}"'},
        "platform_version": f'"Compute Capability {gpu.capability}.0"',
        **{"driver_version": '"13.0.0"', "runtime_version": '"13.0.0"'},
        **{"compile_time_toolkit_version": '"13.0.0"', "dnn_version": '"9.10.0"'},
    }
    fields = " ".join(f"{name}: {value}" for name, value in device.items())
    return (
        f"gpu_device_info {{ {fields} "
        f"cuda_compute_capability {{ major: {gpu.capability} "
        f"feature_extension: {feature} }} "
        f"{_rates('scalar_unit_description', gpu.scalar)}"
        f"{_rates('matrix_unit_description', gpu.matrix)}}} "
        'platform_name: "CUDA" dnn_version_info { major: 9 minor: 10 } '
        f'device_description_str: "{gpu.name}"'
    )


def _rates(field: str, rates: tuple[Rate, ...]) -> str:
    if not rates:
        return ""
    entries = " ".join(
        f"rate_infos {{ key: {rate.dtype} value {{ clock_rate_ghz: {rate.clock_ghz} "
        f"units_per_core: {rate.units} ops_per_clock: {rate.operations} }} }}"
        for rate in rates
    )
    return f"{field} {{ {entries} }} "
