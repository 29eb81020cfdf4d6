"""The files of ``torch.save`` before PyTorch 1.6: several pickles, then raw bytes.

The pickles are a magic number, a version, a description of the machine, the content,
and the keys of the storages. After them follow the storages in the order of the keys,
each as its number of elements in eight bytes, and its elements.
"""

from io import BufferedIOBase
from pathlib import Path
from typing import Any

from dslo_jax.weights.admitted import Storage
from dslo_jax.weights.state_dict import locate, storage_of, tensors_of
from dslo_jax.weights.stored import Table, damage_in
from dslo_jax.weights.unpickle import unpickle


LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_VERSION = 1001


def read_torch_legacy(path: Path) -> Table:
    """List the tensors of a file of an old ``torch.save``.

    Raises:
        CheckpointError: The file is damaged or from a big-endian machine (``W04``), or
            its pickle holds more than weights (``W05``).
    """
    with path.open("rb") as file, damage_in(path):
        return _read(file, path)


def _read(file: BufferedIOBase, path: Path) -> Table:
    storages: dict[str, Storage] = {}

    def find_storage(identifier: Any) -> Storage:
        storage, rest = storage_of(identifier)
        if rest != [None]:
            raise ValueError(f"the storage {storage.key!r} is a part of another one")
        if storages.setdefault(storage.key, storage) != storage:
            raise ValueError(f"the storage {storage.key!r} appears in two sizes")
        return storage

    file.seek(len(LEGACY_MAGIC))
    if unpickle(file, path) != _VERSION:
        raise ValueError("its version is unknown")
    machine = unpickle(file, path)
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise ValueError("its numbers are not little-endian")
    content = unpickle(file, path, find_storage)
    keys = unpickle(file, path)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ValueError("the list of its storages is missing")
    if sorted(keys) != sorted(storages):
        raise ValueError("the list of its storages does not fit its content")
    offsets = _find_storages(file, [storages[key] for key in keys], path.stat().st_size)
    return locate(tensors_of(content, path), offsets, path)


def _find_storages(
    file: BufferedIOBase, storages: list[Storage], size: int
) -> dict[str, int]:
    """Position of each storage; bytes after the last one are ignored."""
    offsets = {}
    for storage in storages:
        count = int.from_bytes(file.read(8), "little")
        offset = file.tell()
        if count != storage.count or offset + storage.nbytes > size:
            raise ValueError(f"the storage {storage.key!r} is cut short")
        offsets[storage.key] = offset
        file.seek(offset + storage.nbytes)
    return offsets
