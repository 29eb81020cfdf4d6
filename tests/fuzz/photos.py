"""Photos of all formats, from memory."""

from pathlib import Path

from dslo_jax.images import read_photo
from fuzz import pictures
from fuzz.target import Target


MOST = 100_000  # pixels


def read(content: bytes, folder: Path) -> None:
    """Read a photo; of inputs of odd length the second page, as far as there is one."""
    page = len(content) % 2 if b"PNG" not in content[:4] else 0
    photo = read_photo(content, page=0, max_pixels=MOST)
    height, width, channels = photo.pixels.shape
    assert channels == 3
    assert 4 <= height * width <= MOST
    if page and any(note.startswith("frame") for note in photo.notes):
        read_photo(content, page=page, max_pixels=MOST)


TARGET = Target(pictures.photos(), read, pictures.TOKENS)
