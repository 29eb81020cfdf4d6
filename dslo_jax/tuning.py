"""All numbers that were chosen for speed or memory, and where they were measured.

They change results by rounding errors only. The device was a CPU with two cores, a Xeon
or an EPYC, unless a comment names another. Start here to tune for another device.
Code that differs between devices is chosen with ``by_platform``.
"""

import os
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import jax


def by_platform(
    *args: Any,
    cpu: Callable[..., Any],
    other: Callable[..., Any],
    gpu: Callable[..., Any] | None = None,
) -> Any:
    """Call one function on a CPU, another one on GPUs and TPUs.

    The platform is that for which the program is compiled, which need not be present;
    only the function for this platform is compiled.

    Args:
        *args: Arrays, or trees of them, for the function.
        cpu: The function for a CPU.
        other: The function for other platforms; its result must have the same shapes.
        gpu: The function for NVIDIA GPUs, if they need another one.
    """
    special = {} if gpu is None else {"cuda": gpu}
    return jax.lax.platform_dependent(*args, cpu=cpu, **special, default=other)


_COMMAND_BUFFERS = "xla_gpu_enable_command_buffer"


def compiler_options(platform: str) -> dict[str, str]:
    """Options of the compiler for the programs of a pipeline.

    On a GPU, whole loops become command buffers: the host starts a solver once, and the
    GPU decides itself whether a loop goes on. By default the host starts each step, and
    waits for the GPU to say whether another one follows. What the environment variable
    ``XLA_FLAGS`` says of command buffers goes first.

    Args:
        platform: Platform of a device: ``"cpu"``, ``"gpu"`` or ``"tpu"``.
    """
    if platform != "gpu" or _COMMAND_BUFFERS in os.environ.get("XLA_FLAGS", ""):
        return {}
    kinds = (
        "FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL,CONDITIONAL,DYNAMIC_SLICE_FUSION,"
        "WHILE"  # the others are those of XLA itself
    )
    return {_COMMAND_BUFFERS: kinds}


BLOCK_ROWS = 256
"""Rows of the kernel in a block: 4 MiB at N = 4096, 16 MiB at N = 16384 (float32).
Blocks of 128 to 1024 rows take the same time. Blocks of 16 to 64 rows fit the
second-level cache, but starting more operations takes longer than that saves."""

BLOCKS_TOGETHER = 2**22
"""On GPUs and TPUs, greatest number of entries of the blocks that one step computes:
1024 rows at N = 4096, 256 at N = 16384. A GPU is given each operation by the host. The
rows and their kernel, 16 MiB each, fit its second-level cache: 50 MiB on an H100."""

GATHERED_AT_ONCE = 2**22
"""Greatest number of entries of rows that are gathered at once: 16 MiB. The system
allocates larger buffers anew in every call, which takes longer than gathering block by
block. If the rows are gathered at once, gradients have the size of the rows instead of
the affinity."""

MANY = 32
"""Least number of classes for which a CPU copies the affinity, transposed. On the Xeon
the copy takes 62 ms at N = 4096, and a step of 64 classes then takes 17 ms, not 26."""

WIDTH = 32
"""For products with the transposed affinity, the number of classes is padded to a
multiple of this, because 171 classes take longer than 192."""

STAGES = (512, 256, 160, 128, 96, 64, 32, 16)
"""Numbers of classes that stay in the chain as other classes arrive. Each number adds a
loop to the compiled program."""

CPU_STAGES = (8, 4, 1)
"""Further numbers, on a CPU. Elsewhere a step of fewer classes is not faster: reading
the affinity takes the time, or a TPU computes for eight or more rows at once. By the
compiler's estimate, a TPU v5e takes as long for 64 classes as for 8."""

SUM_PARTS = 8
"""On GPUs and TPUs, number of parts of a product with a vector. Eight rows fill a tile
of a TPU. For one row a GPU would make a copy of the matrix."""

SUMMED_ROWS = 128
"""On a CPU, least number of rows in a product that computes column sums. Such a product
adds rows one after another, and in float32 the sum of thousands has an error of 1e-5.
Several smaller products take the same time."""

PART = 4096
"""On a CPU, greatest number of entries of a row that one product adds. It adds them in
several partial sums, which is exact enough for thousands. More parts take a tenth
longer."""

SHARED, SHARED_CLASS = 17.0, 0.39
"""Microseconds for a shared row of 4096 patches, and for each class in addition. Only
the ratios to the next two numbers matter."""

OWNED, OWNED_CLASS = 27.0, 0.065
"""The same for a row that one class owns."""

PAIRS_ON = ("cpu",)
"""Platforms where classes may own rows, because both ways were measured there."""

SCORES_AT_ONCE, SCORES_AT_ONCE_GPU = 2**24, 2**27
"""Greatest number of attention scores, of all heads, that an accelerator holds at
once. The compiler for TPUs keeps 64 MiB of them in the vector memory of a v5e or v6e.
Twice as many are moved to the memory of the chip and back, for three times the
estimated cycles. A GPU has no such memory. With 512 MiB at once it starts an eighth of
the kernels."""

_XLA_0_10 = version("jaxlib").startswith("0.10.")

QUICK_XLA_FLAGS = " ".join(
    (
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
        "--xla_cpu_use_onednn=false",
        "--xla_cpu_parallel_codegen_split_count=1",
        # XLA ends the process at a flag that it does not know, as 0.12 would at this.
        "--xla_cpu_use_fusion_emitters=false" if _XLA_0_10 else "",
    )
)
"""Flags of XLA for networks so small that compiling them takes longer than running. On
a CPU the programs of the bundled networks compile in a third of the time. Then a photo
of 128 x 160 pixels takes 223 instead of 112 ms of CPU time (mean of 32 photos, 20
classes), so they suit the page, where a person waits for the first result, and no
folder. On 24 scenes and in two modes they gave the same labels."""

WINDOWS_TOGETHER = {"cpu": 1}
"""Number of sliding windows that CLIP sees at once. Elsewhere it is 8: with 14 x 14
patches each, they are a few more patches than a whole photo has."""

SLOT_NUMBERS = {"cpu": 2**18}
"""Numbers that a step of the loop over a tile of pixels may hold: what the cache of a
CPU holds. Elsewhere a step computes the whole tile."""


def blocks_together(blocks: int, entries: int) -> int:
    """Number of blocks, each of so many entries, in a step on GPUs and TPUs."""
    divisors = (count for count in range(1, blocks + 1) if blocks % count == 0)
    return max(
        (count for count in divisors if count * entries <= BLOCKS_TOGETHER), default=1
    )


def slot_numbers(platform: str) -> int:
    """``SLOT_NUMBERS`` of a platform, such as ``"cpu"``."""
    return SLOT_NUMBERS.get(platform, 2**25)


def windows_together(platform: str) -> int:
    """``WINDOWS_TOGETHER`` of a platform, such as ``"cpu"``."""
    return WINDOWS_TOGETHER.get(platform, 8)


DIVIDED_PATCHES = 16384
"""Least number of patches for which several devices divide the affinity of a photo, not
its classes. An affinity of 16384 patches takes 1 GiB in float32."""

HOST_DECIDES_ON = ("cpu",)
"""Platforms where the host looks at results between two programs of a batch, and makes
the labels that the maps alone decide. On a CPU nothing is gained by not waiting, and
fewer classes and pixels are computed. Elsewhere a batch runs from its pixels to its
labels without waiting, and is checked afterwards."""

LAYERS = (16, 32, 64)
"""Numbers of layers of a photo that one call computes labels for. A photo of 512 x 512
pixels has 64 layers of 64 x 64 cells. A call is 5 to 9 kernels on an H100, as its
compiler divides it."""

LAYER_NUMBERS = {"tpu": 2**24, "cpu": 2**19}
"""Numbers that a step of such a call may hold. A TPU keeps fewer of them close to its
vector units. A CPU, which only runs exported programs so, takes 0.6 times as long as
with 2^27. On a GPU it is 2^27, 512 MiB: 8 photos with 24 classes in one step."""

LAYERS_AHEAD = 2**26
"""Greatest number of bytes of the colours of a batch whose labels are computed without
waiting. The photos of other batches are labelled one by one."""


def host_decides(platform: str) -> bool:
    """Whether a platform, such as ``"cpu"``, is in ``HOST_DECIDES_ON``."""
    return platform in HOST_DECIDES_ON


def layer_numbers(platform: str) -> int:
    """``LAYER_NUMBERS`` of a platform, such as ``"tpu"``."""
    return LAYER_NUMBERS.get(platform, 2**27)
