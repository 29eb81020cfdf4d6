"""The names that a pickled checkpoint may contain, and their stand-ins.

A pickle names classes and functions by their module, and calls them. Here nothing is
imported or looked up. A name must be a key of ``ADMITTED``, whose value is one of the
small stand-ins of this file; otherwise the checkpoint is refused.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from dslo_jax.weights.stored import DTYPES


_MAX_AXES = 16


class StorageType(NamedTuple):
    """A class of storages, with the type of their numbers; ``None`` for plain bytes."""

    dtype: np.dtype | None


class Storage(NamedTuple):
    """A block of numbers that the pickle refers to and the file holds elsewhere.

    Attributes:
        dtype: Type of the numbers; ``None`` for plain bytes.
        key: Name of the storage in the file.
        count: Number of its numbers, or bytes.
    """

    dtype: np.dtype | None
    key: str
    count: int

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.count * (1 if self.dtype is None else self.dtype.itemsize)


class StorageView(NamedTuple):
    """A tensor: numbers of a storage, with a shape.

    Attributes:
        storage: The storage of the numbers.
        dtype: Type of the numbers.
        offset: Index of the first number in the storage.
        shape: Length of every axis.
        strides: Step along every axis, in numbers.
    """

    storage: Storage
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Record:
    """An object of which only the attributes are kept."""

    __slots__ = ("fields",)

    def __init__(self):
        self.fields: dict[str, Any] = {}


class RecordType(NamedTuple):
    """A class whose objects become a ``Record``; their arguments are ignored."""

    name: str


class Maker(NamedTuple):
    """A stand-in for a function or class that a pickle may call.

    Attributes:
        make: A function of this file that takes the arguments in the pickle. It raises
            ``ValueError`` if PyTorch would not write these arguments.
    """

    make: Callable[[tuple[Any, ...]], Any]


def find(name: str) -> Any:
    """Find the stand-in for a name of a pickle; ``None`` for other names.

    Args:
        name: Module and name, with a dot between.
    """
    if name.startswith("__torch__."):  # the modules of a TorchScript archive
        return RecordType(name)
    return ADMITTED.get(name)


def _tensor(arguments: tuple[Any, ...], dtype: np.dtype | None = None) -> StorageView:
    """Make a tensor from ``(storage, offset, shape, strides, ...)``."""
    if len(arguments) < 4 or not isinstance(arguments[0], Storage):
        raise ValueError("a tensor without a storage")
    storage, offset, shape, strides = arguments[:4]
    dtype = dtype or storage.dtype
    if dtype is None:
        raise ValueError("a tensor without a type")
    if not (_is_sizes((offset,)) and _is_sizes(shape) and _is_sizes(strides)):
        raise ValueError("a tensor whose shape is no list of whole numbers")
    if len(shape) != len(strides):
        raise ValueError("a tensor whose shape and strides differ in length")
    held = storage.nbytes // dtype.itemsize
    numbers = math.prod(shape)
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if numbers > held or offset > held or (numbers and last >= held):
        raise ValueError(f"a tensor of shape {shape} that lies outside its storage")
    return StorageView(storage, dtype, offset, tuple(shape), tuple(strides))


def _tensor_of_type(arguments: tuple[Any, ...]) -> StorageView:
    """Make a tensor of a storage of bytes; its type is the seventh argument."""
    if len(arguments) < 7 or not isinstance(arguments[6], np.dtype):
        raise ValueError("a tensor without a type")
    return _tensor(arguments, arguments[6])


def _parameter(arguments: tuple[Any, ...]) -> StorageView:
    if not arguments or not isinstance(arguments[0], StorageView):
        raise ValueError("a parameter without a tensor")
    return arguments[0]


def _dictionary(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    """Make an empty dictionary; its entries follow in the pickle."""
    if arguments:
        raise ValueError("a dictionary that is made from something")
    return {}


def _only_argument(arguments: tuple[Any, ...]) -> Any:
    if len(arguments) != 1 or not isinstance(arguments[0], tuple | list):
        raise ValueError("a list that is made from something else")
    return arguments[0]


def _tagged(arguments: tuple[Any, ...]) -> Any:
    """Return the first argument; the second is the type of its elements."""
    if len(arguments) != 2:
        raise ValueError("a value with a type that has no type")
    return arguments[0]


def _forgotten(arguments: tuple[Any, ...]) -> Record:
    del arguments
    return Record()


def _is_sizes(values: object) -> bool:
    if not isinstance(values, tuple) or len(values) > _MAX_AXES:
        return False
    return all(type(value) is int and 0 <= value < 1 << 62 for value in values)


_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
# Objects of a training run that are not weights; they are read and dropped.
_BOOKKEEPING = (
    "torch.device",
    "_codecs.encode",
    "numpy.dtype",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
)

ADMITTED: Mapping[str, Any] = MappingProxyType(
    {
        "collections.OrderedDict": Maker(_dictionary),
        "torch._utils._rebuild_tensor": Maker(_tensor),
        "torch._utils._rebuild_tensor_v2": Maker(_tensor),
        "torch._utils._rebuild_tensor_v3": Maker(_tensor_of_type),
        "torch._utils._rebuild_parameter": Maker(_parameter),
        "torch._utils._rebuild_parameter_with_state": Maker(_parameter),
        "torch.Size": Maker(_only_argument),
        "torch.jit._pickle.build_intlist": Maker(_only_argument),
        "torch.jit._pickle.build_doublelist": Maker(_only_argument),
        "torch.jit._pickle.build_boollist": Maker(_only_argument),
        "torch.jit._pickle.build_tensorlist": Maker(_only_argument),
        "torch.jit._pickle.restore_type_tag": Maker(_tagged),
        "torch.storage.UntypedStorage": StorageType(None),
        "torch.UntypedStorage": StorageType(None),
        **{f"torch.{key}": StorageType(DTYPES[t]) for key, t in _STORAGES.items()},
        **{f"torch.{name}": dtype for name, dtype in DTYPES.items()},
        **dict.fromkeys(_BOOKKEEPING, Maker(_forgotten)),
        "argparse.Namespace": RecordType("argparse.Namespace"),
    }
)
"""All names that a pickle may contain, except for the modules of TorchScript."""
