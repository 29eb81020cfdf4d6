"""Label maps, whose stored numbers are class ids."""

from pathlib import Path

from dslo_jax.images import read_label_ids
from fuzz import pictures
from fuzz.target import Target


MOST = 100_000  # pixels


def read(content: bytes, folder: Path) -> None:
    """Read a mask from a file."""
    path = folder / "mask"
    path.write_bytes(content)
    ids = read_label_ids(path, max_pixels=MOST)
    assert ids.dtype.kind == "u"
    assert ids.ndim == 2
    assert 0 < ids.size <= MOST


TARGET = Target(pictures.masks(), read, pictures.TOKENS)
