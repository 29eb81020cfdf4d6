"""Checkpoints of any format to safetensors: ``python -m torch_bridge.convert PLACE``.

``dslo_jax`` reads these formats itself. A converted checkpoint can also be loaded by
other programs, without a pickle: it has the names of Hugging Face, and a
``config.json``. torch is not needed, code in a file is never run, and the originals are
kept.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from dslo_jax.errors import CheckpointError, DsloError
from dslo_jax.files import atomic_file, write_json
from dslo_jax.weights import choose_files, open_weights, read_config


def convert(place: Path | str) -> Iterator[str]:
    """Convert a file, a model folder, or every part of a diffusers pipeline folder.

    Args:
        place: A file of weights; or a model folder, whose direct sub-folders are
            converted too.

    Yields:
        A line of text for each checkpoint, as soon as it is converted.

    Raises:
        CheckpointError: There is nothing to convert (``W01``), or a checkpoint cannot
            be read; see ``dslo_jax.weights.open_weights``.

    Memory:
        The weights of one network.
    """
    place = Path(place)
    if place.is_file():
        yield from _convert(place, place)
        return
    busy = False
    folders = sorted(p for p in place.iterdir() if p.is_dir()) if place.is_dir() else []
    for folder in [place, *folders] if place.is_dir() else []:
        files = choose_files(path.name for path in folder.iterdir() if path.is_file())
        if files:
            busy = True
            yield from _convert(folder, folder / files[0])
    if not busy:
        open_weights(place)  # raises the error that names the files it looks for


def _convert(place: Path, file: Path) -> Iterator[str]:
    """Convert the weights of a place; ``file`` is their file or index."""
    if ".safetensors" in file.suffixes:
        yield f"kept  {file} (already safetensors)"
        return
    weights = open_weights(place)
    config = _config_of(place)
    diffusers = file.name.startswith("diffusion_") or "_class_name" in config
    stem = "diffusion_pytorch_model" if diffusers else "model"
    target = file.with_name(f"{stem}.safetensors")
    if target.exists():
        yield f"kept  {target} (already there)"
        return
    tensors = {key: np.ascontiguousarray(weights[key]) for key in weights}
    with atomic_file(target) as written:
        save_file(tensors, written.name, metadata={"format": "pt"})
    size = target.stat().st_size / 1e6
    yield f"wrote {target} ({len(tensors)} tensors, {size:.1f} MB)"
    described = file.with_name("config.json")
    if config and not described.exists():
        write_json(described, config)
        yield f"wrote {described}"


def _config_of(place: Path) -> dict:
    """The configuration of a place; empty if there is none."""
    try:
        return read_config(place)
    except CheckpointError as error:
        if error.code != "W08":
            raise
        return {}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m torch_bridge.convert",
        description="Convert checkpoints of PyTorch, Flax, OpenAI and open_clip to "
        "safetensors, next to them.",
    )
    parser.add_argument(
        "place", type=Path, help="a file, or a model or pipeline folder"
    )
    options = parser.parse_args(arguments)
    try:
        for line in convert(options.place):
            print(line)  # noqa: T201
    except DsloError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
