"""Arrays between PyTorch and JAX over DLPack, with one rule about who owns what.

By default both directions return an owned copy: whatever happens to the original
afterwards, the result keeps its values. ``zero_copy=True`` shares the memory instead,
and refuses with ``B05`` where sharing is impossible; then neither side may be written
to while the other is alive. PyTorch does not know that JAX arrays are constant, and JAX
does not know that a tensor can change under it: a violation is silent.

Values survive the passage or it is refused. Where JAX has no 64-bit types
(``jax_enable_x64`` off, the default), JAX itself would narrow without a word; here

* integers pass when every value fits into 32 bits (labels and indices are int64 in
  PyTorch by default, so refusing them by type would be a nuisance), else ``B02``;
* float64 and complex128 are refused by type with ``B02``: they lose digits, and a
  tensor has these types because somebody asked for them. Cast with ``tensor.float()``.

Nothing is set behind the user's back. On one GPU, JAX reserves most of the memory when
it starts; ``XLA_PYTHON_CLIENT_PREALLOCATE=false`` in the environment leaves PyTorch its
share.
"""

from typing import ClassVar

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import torch
from torch.utils import dlpack

from dslo_jax.errors import DsloError


_NARROWED = {torch.int64: torch.int32, torch.uint64: torch.uint32}
_PRECISE = {torch.float64: "float", torch.complex128: "cfloat"}


class BridgeError(DsloError):
    """A tensor, array or module that cannot pass between PyTorch and JAX (``B..``)."""

    exit_code: ClassVar[int] = 3


def to_jax(
    tensor: torch.Tensor, *, zero_copy: bool = False, allow_host_copy: bool = False
) -> jax.Array:
    """Hand a tensor to JAX.

    Strided, sliced and expanded views become contiguous, lazy conjugation and negation
    are carried out, and a gradient is left behind (``detach``).

    Args:
        tensor: A dense tensor of any shape and of any type that JAX knows.
        zero_copy: Share the memory instead of copying it. The tensor must be contiguous
            and must not be written to while the array is alive.
        allow_host_copy: Pass through host memory when JAX cannot see the device of the
            tensor; the result lies on JAX's default device.

    Returns:
        The array, ready: no work on it is pending.

    Raises:
        BridgeError: The tensor holds no plain memory (``B01``), a value would be lost
            (``B02``), JAX does not have its device (``B03``), or ``zero_copy`` was
            asked for and is impossible (``B05``).
    """
    _check_tensor(tensor)
    visible = _bring_to_jax(tensor.detach(), allow_host_copy)
    # DLPack knows no lazy negation: the values would arrive with the wrong sign.
    plain = _narrow(visible.resolve_conj().resolve_neg()).contiguous()
    try:
        shared = jax.dlpack.from_dlpack(plain)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        if zero_copy or not plain.is_pinned():
            raise BridgeError(
                "B01", f"JAX cannot take {_describe(tensor)}: {error}"
            ) from error
        shared = jnp.asarray(plain.numpy())  # JAX does not read pinned host memory
    if not zero_copy:
        # copy=True of from_dlpack hands out the same memory on CPU; jnp.array copies.
        return jnp.array(shared, copy=True).block_until_ready()
    if tensor.numel() and shared.unsafe_buffer_pointer() != tensor.data_ptr():
        raise BridgeError(
            "B05",
            f"{_describe(tensor)} cannot be shared without a copy; make it contiguous "
            "and 64-byte aligned in a type that JAX keeps, or drop zero_copy",
        )
    return shared


def to_torch(
    array: jax.Array, *, zero_copy: bool = False, allow_host_copy: bool = False
) -> torch.Tensor:
    """Hand an array to PyTorch.

    Args:
        array: An array on one device, of any shape and of any type PyTorch knows.
        zero_copy: Share the memory instead of copying it. JAX counts on its arrays
            being constant: do not write to the tensor (no ``add_``, no ``out=``), ever.
        allow_host_copy: Pass through host memory when PyTorch does not have the device
            of the array; the result then lies on the CPU.

    Returns:
        The tensor, on the device of the array unless it passed through the host.

    Raises:
        BridgeError: The array holds no plain memory (``B01``), lies on several devices
            or on one that PyTorch does not have (``B03``), or ``zero_copy`` was asked
            for and is impossible (``B05``).
    """
    _check_array(array)
    if _torch_sees(array):
        try:
            shared = dlpack.from_dlpack(array.block_until_ready())
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            raise BridgeError(
                "B01", f"PyTorch cannot take {_describe(array)}: {error}"
            ) from error
        return shared if zero_copy else _owned(shared)
    if zero_copy or not allow_host_copy:
        raise BridgeError(
            "B05" if zero_copy else "B03",
            f"{_describe(array)}: PyTorch does not have this device; pass "
            "allow_host_copy=True (without zero_copy) to go through host memory",
        )
    return to_torch(jax.device_put(np.asarray(array), jax.devices("cpu")[0]))


def _owned(shared: torch.Tensor) -> torch.Tensor:
    """A copy that is complete: the array behind ``shared`` may go away now."""
    copy = shared.clone()
    if copy.is_cuda:
        torch.cuda.current_stream(copy.device).synchronize()
    return copy


def _check_tensor(tensor: torch.Tensor) -> None:
    """Refuse what holds no plain memory, with the way out."""
    if tensor.is_meta:
        fault, remedy = "is on the meta device and holds no values", "materialise it"
    elif tensor.is_nested or tensor.layout is not torch.strided:
        fault, remedy = f"has the layout {tensor.layout}", "call .to_dense() first"
    elif tensor.is_quantized:
        fault, remedy = "is quantised", "call .dequantize() first"
    else:
        return
    raise BridgeError("B01", f"{_describe(tensor)} {fault}; {remedy}")


def _check_array(array: jax.Array) -> None:
    if isinstance(array, jax.core.Tracer):
        fault, remedy = "is traced", "call to_torch outside jit, vmap and grad"
    elif jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        fault, remedy = "holds random keys", "use jax.random.key_data first"
    else:
        if len(array.devices()) > 1:
            raise BridgeError(
                "B03",
                f"{_describe(array)} lies on {len(array.devices())} devices; gather it "
                "on one first: jax.device_put(array, jax.devices()[0])",
            )
        return
    raise BridgeError("B01", f"an array of {array.dtype} {fault}; {remedy}")


def _bring_to_jax(tensor: torch.Tensor, allow_host_copy: bool) -> torch.Tensor:
    """The tensor itself where JAX has its device, else a host copy or an error."""
    kind = tensor.device.type
    if kind == "cpu" or (kind == "cuda" and _platform_size("gpu") > _index(tensor)):
        return tensor
    if allow_host_copy:
        return tensor.cpu()
    raise BridgeError(
        "B03",
        f"the tensor is on {tensor.device}, JAX has {jax.devices()}; install JAX for "
        "that device, or pass allow_host_copy=True to go through host memory",
    )


def _index(tensor: torch.Tensor) -> int:
    return tensor.device.index or 0


def _platform_size(platform: str) -> int:
    """How many devices of a platform JAX has; zero when it does not know it."""
    try:
        return len(jax.devices(platform))
    except RuntimeError:
        return 0


def _torch_sees(array: jax.Array) -> bool:
    (device,) = array.devices()
    if device.platform == "gpu":
        return device.id < torch.cuda.device_count()
    return device.platform == "cpu"


def _narrow(tensor: torch.Tensor) -> torch.Tensor:
    """Without 64-bit types in JAX: integers that fit become 32 bits wide."""
    if jax.dtypes.canonicalize_dtype(np.int64) == np.int64:
        return tensor
    if tensor.dtype in _PRECISE:
        raise BridgeError(
            "B02",
            f"JAX would narrow {tensor.dtype} to half its width; call "
            f".{_PRECISE[tensor.dtype]}() first, or enable jax_enable_x64",
        )
    narrow = _NARROWED.get(tensor.dtype)
    if narrow is None:
        return tensor
    result = tensor.to(narrow)
    if not torch.equal(result.to(tensor.dtype), tensor):
        raise BridgeError(
            "B02",
            f"a tensor of {tensor.dtype} holds values beyond {narrow}, the widest "
            "integer of JAX while jax_enable_x64 is off; enable it, or rescale",
        )
    return result


def _describe(value: torch.Tensor | jax.Array) -> str:
    noun = "tensor" if isinstance(value, torch.Tensor) else "array"
    where = value.device if isinstance(value, torch.Tensor) else set(value.devices())
    return f"the {value.dtype} {noun} of shape {tuple(value.shape)} on {where}"
