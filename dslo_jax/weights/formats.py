"""The format of a file of weights, recognised by its first bytes, not by its name."""

from pathlib import Path

from dslo_jax.errors import CheckpointError
from dslo_jax.weights.flax_spelling import respell_flax
from dslo_jax.weights.msgpack_file import is_msgpack, read_msgpack
from dslo_jax.weights.safetensors_file import is_safetensors, read_safetensors
from dslo_jax.weights.stored import Table
from dslo_jax.weights.torch_legacy import LEGACY_MAGIC, read_torch_legacy
from dslo_jax.weights.torch_zip import ZIP_MAGIC, read_torch_zip


_LONGEST_NAME = 1024


def read_table(path: Path) -> Table:
    """List the tensors of one file, in the layout of PyTorch and with the file's names.

    Args:
        path: A file of safetensors, Flax or PyTorch, with any name.

    Raises:
        CheckpointError: The file is not weights (``W03``), is damaged or of another
            format (``W04``), or is a pickle with more than weights (``W05``).
    """
    with path.open("rb") as file:
        start = file.read(256)
    if start.startswith(ZIP_MAGIC):
        table = read_torch_zip(path)
    elif start.startswith(LEGACY_MAGIC):
        table = read_torch_legacy(path)
    elif is_safetensors(start, path.stat().st_size):
        table = read_safetensors(path)
    elif is_msgpack(start):
        table = respell_flax(read_msgpack(path))
    else:
        raise _no_weights(path, start)
    for name in table:
        if not name.isprintable() or len(name) > _LONGEST_NAME:
            raise CheckpointError(
                "W04", f"{path} is damaged: it has a tensor called {name[:40]!r}"
            )
    return table


def _no_weights(path: Path, start: bytes) -> CheckpointError:
    """The error about a file that does not begin like any format of weights."""
    if start.startswith(b"version https://git-lfs"):
        return CheckpointError(
            "W03", f"{path} is a git-lfs pointer, not weights; run: git lfs pull"
        )
    if start.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"<", b"{"):
        return CheckpointError(
            "W03", f"{path} is a web page or a message, not weights; download it again"
        )
    if start[:1] == b"\x80" and start[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        return CheckpointError(
            "W05",
            f"{path} is a pickle that torch.save did not write; it was not opened. Ask "
            "its author for safetensors",
        )
    if start.startswith(b"\x89HDF"):
        return CheckpointError(
            "W04", f"{path} is a file of TensorFlow, which is not read; look for others"
        )
    return CheckpointError(
        "W04",
        f"{path} is truncated, or none of safetensors, msgpack of Flax and files of "
        "PyTorch; download it again",
    )
