"""The zip files of ``torch.save`` (since PyTorch 1.6) and ``torch.jit.save``.

A folder in the zip file holds ``data.pkl``, a pickle that names tensors and refers to
storages, and an entry of raw bytes for each storage: ``data/0``, ``data/1``, ... The
code in a TorchScript archive is ignored.
"""

import io
from io import BufferedIOBase
from pathlib import Path
from typing import Any

from dslo_jax.errors import CheckpointError
from dslo_jax.weights.admitted import Storage
from dslo_jax.weights.state_dict import locate, storage_of, tensors_of
from dslo_jax.weights.stored import Table, damage_in
from dslo_jax.weights.unpickle import unpickle
from dslo_jax.weights.zip_directory import ZipEntry, read_directory


ZIP_MAGIC = b"PK\x03\x04"
_MAX_PICKLE_BYTES = 1 << 24


def read_torch_zip(path: Path) -> Table:
    """List the tensors of a zip file of PyTorch.

    Raises:
        CheckpointError: The file is damaged or was not written by PyTorch (``W04``), or
            its pickle holds more than weights (``W05``).
    """
    with path.open("rb") as file, damage_in(path):
        return _read(file, path)


def _read(file: BufferedIOBase, path: Path) -> Table:
    entries = read_directory(file, path.stat().st_size)
    pickles = [name for name in entries if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise CheckpointError("W04", f"{path} is a zip file, but not one of PyTorch")
    root = pickles[0].removesuffix("data.pkl")
    order = _content(file, entries.get(f"{root}byteorder"), b"little")
    if order != b"little":
        raise ValueError("its numbers are not little-endian")
    offsets: dict[str, int] = {}

    def find_storage(identifier: Any) -> Storage:
        storage, rest = storage_of(identifier)
        entry = entries.get(f"{root}data/{storage.key}")
        if rest or entry is None or not entry.stored:
            raise ValueError(f"the storage {storage.key!r} is missing or compressed")
        if entry.size != storage.nbytes:
            raise ValueError(
                f"the storage {storage.key!r} has {entry.size} bytes, "
                f"{storage.nbytes} were promised"
            )
        offsets[storage.key] = entry.offset
        return storage

    pickled = _content(file, entries[pickles[0]], b"")
    content = unpickle(io.BytesIO(pickled), path, find_storage)
    return locate(tensors_of(content, path), offsets, path)


def _content(file: BufferedIOBase, entry: ZipEntry | None, missing: bytes) -> bytes:
    """The bytes of a small entry."""
    if entry is None:
        return missing
    if not entry.stored or entry.size > _MAX_PICKLE_BYTES:
        raise ValueError("its pickle is compressed, or more than a table of tensors")
    file.seek(entry.offset)
    return file.read(entry.size)
