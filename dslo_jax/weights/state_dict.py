"""Tensors by name from the content of a pickle of PyTorch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dslo_jax.errors import CheckpointError
from dslo_jax.weights.admitted import Record, Storage, StorageType, StorageView
from dslo_jax.weights.stored import StoredTensor, Table


_WRAPPERS = ("state_dict", "model_state_dict", "model")
# The prefix of every name in files of DistributedDataParallel.
_PARALLEL = "module."
_MAX_NAME = 1024
_MAX_FIELDS = 1_000_000
# Tied parameters are one storage under several names. More sharing than this would be
# an attack on memory.
_MAX_SHARING = 4


def storage_of(identifier: Any) -> tuple[Storage, Any]:
    """Read a reference of a pickle to a storage; the rest of the reference follows.

    Args:
        identifier: ``("storage", type, key, device, count, ...)``.

    Raises:
        ValueError: It is something else.
    """
    match identifier:
        case ("storage", StorageType(dtype), str(key), str(), int(count), *rest):
            if count < 0 or type(count) is not int or len(key) > _MAX_NAME:
                raise ValueError("a storage of an impossible size")
            return Storage(dtype, key, count), rest
    raise ValueError("a reference to something that is not a storage")


def tensors_of(content: Any, path: Path) -> dict[str, StorageView]:
    """Find the tensors in the content of a pickle.

    Args:
        content: A state dict, a training checkpoint that has one, or the modules of a
            TorchScript archive. Other values are left out.
        path: The file, to be named in errors.

    Raises:
        CheckpointError: There are no tensors where they are expected (``W05``).
        ValueError: Modules are nested without end.
    """
    if isinstance(content, Record):
        return _module_tensors(content)
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    entries = content.items() if isinstance(content, dict) else ()
    tensors = {
        key: value
        for key, value in entries
        if isinstance(key, str) and isinstance(value, StorageView)
    }
    if not tensors:
        held = type(content).__name__
        raise CheckpointError(
            "W05", f"{path} holds a {held} without tensors, expected a state dict"
        )
    if all(name.startswith(_PARALLEL) for name in tensors):
        return {name.removeprefix(_PARALLEL): value for name, value in tensors.items()}
    return tensors


def locate(
    tensors: Mapping[str, StorageView], offsets: Mapping[str, int], path: Path
) -> Table:
    """Find the bytes of tensors in the file.

    Args:
        tensors: The tensors of a pickle.
        offsets: Position of each storage in the file, in bytes.
        path: The file.

    Raises:
        ValueError: The tensors are together several times as large as the file.
    """
    table = {}
    left = _MAX_SHARING * path.stat().st_size
    for name, (storage, dtype, offset, shape, strides) in tensors.items():
        place = offsets[storage.key] + offset * dtype.itemsize
        tensor = StoredTensor(path, place, dtype, shape, strides)
        table[name] = tensor
        left -= tensor.span * dtype.itemsize
    if left < 0:
        raise ValueError("its tensors are larger than the file, many times over")
    return table


def _module_tensors(module: Record) -> dict[str, StorageView]:
    """The tensors of nested modules, their names joined by ``.``."""
    tensors: dict[str, StorageView] = {}
    todo = [("", module)]
    left = _MAX_FIELDS
    while todo:
        prefix, record = todo.pop()
        for field, value in record.fields.items():
            left -= 1
            name = f"{prefix}{field}"
            if len(name) > _MAX_NAME or left < 0:
                raise ValueError("modules that are nested without end")
            if isinstance(value, StorageView):
                tensors[name] = value
            elif isinstance(value, Record):
                todo.append((f"{name}.", value))
    return tensors
