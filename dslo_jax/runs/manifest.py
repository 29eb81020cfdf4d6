"""The circumstances of a run, on which its results depend."""

import hashlib
import importlib.metadata
import platform
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax


_HASH = re.compile("[0-9a-f]{64}")
_PACKAGES = ("dslo-jax", "jax", "jaxlib", "flax", "numpy")


def describe(
    folders: Iterable[Path],
    *,
    batch_size: int,
    precision: str,
    device: jax.Device,  # pyright: ignore[reportInvalidTypeForm]
) -> dict[str, Any]:
    """What all results depend on besides the photos and the options of the method.

    Args:
        folders: Of the checkpoints; their files are hashed.
        batch_size: Photos at once.
        precision: Of the networks.
        device: Where they run.
    """
    return {
        "device": {"platform": device.platform, "kind": device.device_kind},
        "machine": platform.machine(),
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "checkpoint": digest(folders),
        "batch_size": batch_size,
        "precision": precision,
    }


def digest(places: Iterable[Path]) -> str:
    """A hash over the names and contents of some files, and of all files of folders."""
    total = hashlib.sha256()
    for place in places:
        folder = place if place.is_dir() else place.parent
        inside = place.rglob("*") if place.is_dir() else [place]
        for path in sorted(p for p in inside if p.is_file()):
            total.update(f"{path.relative_to(folder)} {_sha256(path)}\n".encode())
    return total.hexdigest()


def _sha256(path: Path) -> str:
    """The hash of a file; in the cache of a hub, large files have it as their name."""
    name = path.resolve().name
    if path.is_symlink() and _HASH.fullmatch(name):
        return name
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
