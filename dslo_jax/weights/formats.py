"""The format of a file of weights, recognised by its first bytes, not by its name."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from dslo_jax.errors import CheckpointError
from dslo_jax.weights.flax_spelling import respell_flax
from dslo_jax.weights.msgpack_file import is_msgpack, read_msgpack
from dslo_jax.weights.npz_file import is_npz, read_npz
from dslo_jax.weights.safetensors_file import is_safetensors, read_safetensors
from dslo_jax.weights.stored import Table
from dslo_jax.weights.torch_legacy import LEGACY_MAGIC, read_torch_legacy
from dslo_jax.weights.torch_zip import ZIP_MAGIC, read_torch_zip


_LONGEST_NAME = 1024


class Format(NamedTuple):
    """A format of weights.

    Attributes:
        name: What errors call it.
        is_it: Whether a file is of this format, from its first 256 bytes and its size.
        read: Lists the tensors of a file; raises ``CheckpointError``.
        lone: Suffix of files that may have any name: the only file with this suffix in
            a folder holds its weights. Empty where only known names count.
    """

    name: str
    is_it: Callable[[bytes, int], bool]
    read: Callable[[Path], Table]
    lone: str = ""


FORMATS = (
    Format(
        "files of PyTorch",
        lambda start, size: start.startswith(ZIP_MAGIC) and not is_npz(start, size),
        read_torch_zip,
        ".pt",
    ),
    Format(
        "files of old PyTorch",
        lambda start, _: start.startswith(LEGACY_MAGIC),
        read_torch_legacy,
        ".pt",
    ),
    Format("safetensors", is_safetensors, read_safetensors),
    Format(
        "msgpack of Flax",
        lambda start, _: is_msgpack(start),
        lambda path: respell_flax(read_msgpack(path)),
    ),
    Format(".npz of NumPy", is_npz, read_npz, ".npz"),
)
"""Every format that is read; the first that recognises a file reads it."""


def read_table(path: Path) -> Table:
    """List the tensors of one file, in the layout of PyTorch and with the file's names.

    Args:
        path: A file of one of ``FORMATS``, with any name.

    Raises:
        CheckpointError: The file is not weights (``W03``), is damaged or of another
            format (``W04``), or is a pickle with more than weights (``W05``).
    """
    with path.open("rb") as file:
        start = file.read(256)
    size = path.stat().st_size
    found = next((each for each in FORMATS if each.is_it(start, size)), None)
    if found is None:
        raise _no_weights(path, start)
    table = found.read(path)
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
        f"{path} is truncated, or of none of the formats that are read: "
        f"{', '.join(each.name for each in FORMATS)}; download it again",
    )
