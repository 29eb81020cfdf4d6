"""Conversion of arrays between PyTorch and JAX over DLPack, with clear ownership.

By default both directions return a copy that owns its memory, so that later changes of
the original have no effect. ``zero_copy=True`` shares the memory instead, or fails with
``B05`` where this is impossible. Then neither side may be written to while the other
exists. PyTorch does not know that JAX arrays are constant, and JAX does not know that a
tensor may change, so no error reports a violation.

A conversion never changes values. Without 64-bit types (``jax_enable_x64`` off, the
default), JAX itself would convert them to 32 bits silently. Here

* integers are converted when every value fits into 32 bits, because labels and indices
  are int64 in PyTorch by default; otherwise the error is ``B02``;
* float64 and complex128 are refused with ``B02``, because they would lose digits. Cast
  them with ``tensor.float()``.

No global setting is changed. On one GPU, JAX reserves most of the memory when it
starts; with ``XLA_PYTHON_CLIENT_PREALLOCATE=false`` in the environment, it leaves
memory for PyTorch.
"""

from typing import ClassVar

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import torch
from torch.nn.parameter import is_lazy
from torch.utils import dlpack

from dslo_jax.errors import DsloError


_NARROWED = {torch.int64: torch.int32, torch.uint64: torch.uint32}
_WITH_ADDRESSES = ("cpu", "cuda")
_PRECISE = {torch.float64: "float", torch.complex128: "cfloat"}


class BridgeError(DsloError):
    """A tensor, array or module that cannot pass between PyTorch and JAX (``B..``)."""

    exit_code: ClassVar[int] = 3


def to_jax(
    tensor: torch.Tensor, *, zero_copy: bool = False, allow_host_copy: bool = False
) -> jax.Array:
    """Convert a tensor to a JAX array.

    Strided, sliced and expanded views become contiguous, lazy conjugation and negation
    are carried out, and the tensor is detached from its gradient.

    Args:
        tensor: A dense tensor of any shape and of any type that JAX knows.
        zero_copy: Whether to share the memory. The tensor must be contiguous, and must
            not be written to while the array exists.
        allow_host_copy: Whether to copy through host memory when JAX does not have the
            device of the tensor; the result is then on JAX's default device.

    Returns:
        The array; no work on it is pending.

    Raises:
        BridgeError: The tensor has no plain memory (``B01``), a value would be lost
            (``B02``), JAX does not have its device (``B03``), or ``zero_copy`` is
            impossible (``B05``).
    """
    _check_tensor(tensor)
    visible = _bring_to_jax(tensor.detach(), allow_host_copy)
    # DLPack ignores lazy negation: the values would have the wrong sign.
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
        # ``from_dlpack(copy=True)`` shares the memory on CPU; ``jnp.array`` copies.
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
    """Convert a JAX array to a tensor.

    Args:
        array: An array on one device, of any shape and of any type that PyTorch knows.
        zero_copy: Whether to share the memory. JAX relies on constant arrays: never
            write to the tensor (no ``add_``, no ``out=``).
        allow_host_copy: Whether to copy through host memory when PyTorch does not have
            the device of the array; the result is then on the CPU.

    Returns:
        The tensor; on the device of the array, or on the CPU after a host copy.

    Raises:
        BridgeError: The array has no plain memory (``B01``), is on several devices or
            on one that PyTorch does not have (``B03``), or ``zero_copy`` is impossible
            (``B05``).
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
    """Copy a tensor and wait, so that the array behind ``shared`` may be freed."""
    copy = shared.clone()
    if copy.is_cuda:
        torch.cuda.current_stream(copy.device).synchronize()
    return copy


def _check_tensor(tensor: torch.Tensor) -> None:
    """Refuse (``B01``) a tensor without plain memory; the error names the remedy."""
    if is_lazy(tensor):
        raise BridgeError("B01", "the module has not run yet; give it an input first")
    if tensor.is_meta:
        fault, remedy = "is on the meta device and holds no values", "materialise it"
    elif tensor.is_nested or tensor.layout is not torch.strided:
        fault, remedy = f"has the layout {tensor.layout}", "call .to_dense() first"
    elif tensor.is_quantized:
        fault, remedy = "is quantised", "call .dequantize() first"
    elif tensor.device.type in _WITH_ADDRESSES and not _has_memory(tensor):
        fault = f"is a {type(tensor).__name__} without memory of its own"
        remedy = (
            "pass a plain tensor with values, outside FakeTensorMode and torch.func"
        )
    else:
        return
    raise BridgeError("B01", f"{_describe(tensor)} {fault}; {remedy}")


def _has_memory(tensor: torch.Tensor) -> bool:
    """Whether all values of a tensor lie in memory that belongs to it.

    Fake tensors, wrappers around other tensors, and tensors inside ``torch.func`` have
    a shape and a device like any other, and no values at their address.
    """
    try:
        storage = tensor.untyped_storage()
        if storage.device.type not in _WITH_ADDRESSES:
            return False
        address = storage.data_ptr()
    except RuntimeError:
        return False
    if tensor.numel() == 0:
        return True
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    last = tensor.storage_offset() + sum((size - 1) * step for size, step in steps)
    return address != 0 and (last + 1) * tensor.element_size() <= storage.nbytes()


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
    """Return the tensor if JAX has its device, else a host copy or an error."""
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
    """Number of devices of a platform in JAX; 0 for an unknown platform."""
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
    """Convert integers that fit to 32 bits, if JAX has no 64-bit types.

    Raises:
        BridgeError: A value would be lost (``B02``).
    """
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
