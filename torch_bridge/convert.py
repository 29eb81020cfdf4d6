"""Pickled torch checkpoints to safetensors: ``python -m torch_bridge.convert FOLDER``.

``.bin``, ``.ckpt``, ``.pt`` and ``.pth`` files are pickles, and pickles can run code.
They are opened once, here, by ``torch.load(weights_only=True)``, which builds tensors
and nothing else; whatever needs more than that is refused. The originals stay where
they are.
"""

import argparse
import json
import pickle
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from dslo_jax.errors import CheckpointError, DsloError
from dslo_jax.files import write_json
from torch_bridge.weights import write_safetensors


_PICKLES = (".bin", ".ckpt", ".pt", ".pth")
_FOREIGN = {".msgpack": "Flax", ".h5": "TensorFlow"}
# The bookkeeping of a training run lies next to weights and is none.
_BOOKKEEPING = ("optimizer", "scheduler", "training_args", "random_states", "rng_state")
_WRAPPERS = ("state_dict", "model_state_dict", "model")


def convert_folder(folder: Path | str) -> Iterator[str]:
    """Convert the pickles of a model folder, or of a diffusers pipeline folder.

    Args:
        folder: A model folder; its direct sub-folders are converted too.

    Yields:
        One line per file about what was done, as it is done.

    Raises:
        CheckpointError: There is no such folder or nothing to convert (``W01``), a file
            is damaged (``W04``), or it holds more than tensors and is refused
            (``W05``).
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError("W01", f"there is no model folder {folder}")
    _require_safe_torch()
    busy = False
    for place in [folder, *sorted(p for p in folder.iterdir() if p.is_dir())]:
        for line in _convert_place(place):
            busy = True
            yield line
    if not busy:
        raise CheckpointError(
            "W01", f"{folder} and its sub-folders hold no {', '.join(_PICKLES)} file"
        )


def read_pickle(path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of one pickled checkpoint, and nothing but tensors.

    Args:
        path: A ``.bin``, ``.ckpt``, ``.pt`` or ``.pth`` file.

    Returns:
        Tensor key to tensor, on the CPU.

    Raises:
        CheckpointError: The file is damaged (``W04``), or holds something else than
            tensors (``W05``).
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            "W05",
            f"{path} holds more than tensors and is refused: {reason} Ask its author "
            "for safetensors, or export the state dict with the program that wrote it",
        ) from error
    except (EOFError, RuntimeError, UnicodeDecodeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError("W04", f"{path} is damaged: {reason}") from error
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(
            "W05", f"{path} holds {type(content).__name__}, expected names and tensors"
        )
    strange = [key for key, value in content.items() if not torch.is_tensor(value)]
    if strange:
        raise CheckpointError(
            "W05",
            f"{path} is not a state dict: {strange[0]!r} is "
            f"{type(content[strange[0]]).__name__}, expected a tensor",
        )
    return dict(content)


def _convert_place(folder: Path) -> Iterator[str]:
    """Convert the files of one folder; sharded checkpoints keep their shards."""
    pickles = sorted(
        path
        for path in folder.iterdir()
        if path.suffix in _PICKLES and not path.stem.startswith(_BOOKKEEPING)
    )
    for path in pickles:
        target = folder / _target_name(path, alone=len(pickles) == 1)
        if target.exists():
            yield f"kept  {target} (already there)"
            continue
        tensors = read_pickle(path)
        write_safetensors(tensors, target)
        size = target.stat().st_size / 1e6
        yield f"wrote {target} ({len(tensors)} tensors, {size:.1f} MB)"
    for index in sorted(folder.glob("*.bin.index*.json")):
        yield from _convert_index(index)
    for path in sorted(folder.iterdir()):
        if path.suffix in _FOREIGN:
            yield f"left  {path} ({_FOREIGN[path.suffix]} file, not PyTorch)"


def _target_name(path: Path, *, alone: bool) -> str:
    """The name under which ``dslo_jax`` looks for what a pickle holds.

    Hugging Face writes ``pytorch_model`` as a pickle and ``model`` as safetensors. The
    only pickle of a model folder is its weights, whatever it is called.
    """
    stem = re.sub(r"^pytorch_model", "model", path.stem)
    known = re.match(r"(diffusion_pytorch_)?model\b", stem)
    config = path.parent / "config.json"
    if not known and alone and config.is_file():
        diffusers = '"_class_name"' in config.read_text(encoding="utf-8")
        stem = "diffusion_pytorch_model" if diffusers else "model"
    return f"{stem}.safetensors"


def _convert_index(index: Path) -> Iterator[str]:
    """Write the index of a sharded checkpoint with the new names of its shards."""
    target = index.with_name(
        re.sub(r"^pytorch_model", "model", index.name).replace(".bin.", ".safetensors.")
    )
    if target.exists():
        yield f"kept  {target} (already there)"
        return
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
        places = {
            key: _target_name(index.parent / Path(name).name, alone=False)
            for key, name in content["weight_map"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            "W08", f"{index} is not an index with a 'weight_map'"
        ) from error
    missing = [name for name in places.values() if not (index.parent / name).is_file()]
    if missing:
        raise CheckpointError(
            "W08", f"{index} names a shard that is missing: no file became {missing[0]}"
        )
    content["weight_map"] = places
    write_json(target, content)
    yield f"wrote {target} ({len(places)} tensors in {len({*places.values()})} shards)"


def _require_safe_torch() -> None:
    """Before 2.6, ``weights_only=True`` could be tricked into running code."""
    version = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
    if version < (2, 6):
        raise CheckpointError(
            "W05",
            f"torch {torch.__version__} can be made to run code by a pickled "
            "checkpoint (CVE-2025-32434); install torch 2.6 or later",
        )


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m torch_bridge.convert",
        description="Convert pickled torch checkpoints to safetensors, next to them.",
    )
    parser.add_argument("folder", type=Path, help="a model or pipeline folder")
    options = parser.parse_args(arguments)
    try:
        for line in convert_folder(options.folder):
            print(line)  # noqa: T201
    except DsloError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
