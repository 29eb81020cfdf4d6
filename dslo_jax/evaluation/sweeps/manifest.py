"""What measurements depend on: only equal manifests may share a journal."""

import hashlib
import importlib.metadata
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax

from dslo_jax.config import SegmenterConfig
from dslo_jax.evaluation.datasets.samples import SampleSet


_PACKAGES = ("dslo-jax", "jax", "jaxlib", "flax", "numpy")


def describe(
    folders: Iterable[Path],
    *,
    batch_size: int,
    precision: str,
    device: jax.Device,  # pyright: ignore[reportInvalidTypeForm]
) -> dict[str, Any]:
    """What all measurements depend on besides the photos and the cells.

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


def header_of(
    samples: SampleSet, config: SegmenterConfig, circumstances: Mapping[str, Any]
) -> dict[str, Any]:
    """The header of the journal of an evaluation; further modes may join it.

    Args:
        samples: The photos.
        config: Of every mode, but for the mode.
        circumstances: From ``describe``; nothing where saved labels are scored, which
            then are those of whatever the journal says.
    """
    names = "\n".join(samples.names).encode("utf-8", "surrogateescape")
    return {
        **circumstances,
        "dataset": samples.describe(),
        "names": hashlib.sha256(names).hexdigest(),
        "classes": [list(names) for names in samples.classes.synonyms],
        "config": config.flat | {"mode": None},
    }


def digest(places: Iterable[Path]) -> str:
    """A hash over the names and contents of some files, and of all files of folders."""
    total = hashlib.sha256()
    for place in places:
        folder = place if place.is_dir() else place.parent
        inside = place.rglob("*") if place.is_dir() else [place]
        for path in sorted(p for p in inside if p.is_file()):
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            total.update(f"{path.relative_to(folder)} {content}\n".encode())
    return total.hexdigest()
