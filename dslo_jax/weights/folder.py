"""Which files of a folder hold a network: its configuration and its weights."""

import json
from pathlib import Path
from typing import Any

from dslo_jax.errors import CheckpointError
from dslo_jax.weights.safetensors_file import Weights, tensor_keys


_STEMS = ("model", "diffusion_pytorch_model")
_VARIANTS = ("", ".fp16", ".bf16")
_REFUSED = (".bin", ".ckpt", ".pt", ".pth", ".msgpack", ".h5")


def read_config(folder: Path) -> dict[str, Any]:
    """Read the ``config.json`` of a checkpoint folder.

    Args:
        folder: A model folder in transformers or diffusers layout.

    Returns:
        The configuration as plain values.

    Raises:
        CheckpointError: The file is missing or is not a JSON object (``W08``).
    """
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(
            "W08", f"{folder} has no config.json; expected a Hugging Face model folder"
        )
    return _read_object(path)


def open_weights(folder: Path) -> Weights:
    """Read the headers of the safetensors files of a model folder, whole or sharded.

    Args:
        folder: A folder with ``model.safetensors``,
            ``diffusion_pytorch_model.safetensors``, their ``.fp16`` or ``.bf16``
            variants, or an ``*.safetensors.index.json`` and its shards. The plain file
            is preferred to its variants.

    Returns:
        A mapping from tensor key to array that reads on demand.

    Raises:
        CheckpointError: Nothing usable is there (``W01``; ``W05`` for pickles), a file
            is something else than weights (``W03``) or damaged (``W04``), or a shard
            is missing or misplaced (``W08``).
    """
    for stem in _STEMS:
        for variant in _VARIANTS:
            index = folder / f"{stem}.safetensors.index{variant}.json"
            if index.is_file():
                return Weights(_shards(index))
            single = folder / f"{stem}{variant}.safetensors"
            if single.is_file():
                return Weights(dict.fromkeys(tensor_keys(single), single))
    raise _nothing_usable(folder)


def side_folder(place: Path) -> Path | None:
    """Where the JSON files lie that describe the network of a place.

    Args:
        place: A file or a folder.

    Returns:
        The folder itself, or that of the file; ``None`` for a file that describes
        itself, such as OpenAI's archive.
    """
    return place if place.is_dir() else place.parent


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError("W08", f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError("W08", f"{path} is not a JSON object")
    return content


def _shards(index: Path) -> dict[str, Path]:
    """Where each tensor of a sharded checkpoint lives."""
    places = _read_object(index).get("weight_map")
    if not isinstance(places, dict):
        raise CheckpointError("W08", f"{index} is not an index with a 'weight_map'")
    present = {path.name for path in index.parent.iterdir() if path.is_file()}
    files: dict[str, Path] = {}
    for name in sorted({str(name) for name in places.values()}):
        if name not in present:  # nor can a name with a folder be: no way out
            raise CheckpointError(
                "W08", f"{index} names {name!r}, which is not in {index.parent}"
            )
        shard = index.parent / name
        for key in tensor_keys(shard):
            if key in files:
                raise CheckpointError("W04", f"{key!r} is in two shards of {index}")
            files[key] = shard
    for key, name in places.items():
        if key not in files or files[key].name != name:
            raise CheckpointError("W08", f"{index} promises {key!r}, {name} lacks it")
    return files


def _nothing_usable(folder: Path) -> CheckpointError:
    if not folder.is_dir():
        return CheckpointError("W01", f"there is no model folder {folder}")
    refused = sorted(p.name for p in folder.iterdir() if p.suffix in _REFUSED)
    if refused:
        return CheckpointError(
            "W05",
            f"{folder / refused[0]} is refused: only safetensors cannot run code when "
            f"opened; convert it once with: python -m torch_bridge.convert {folder}",
        )
    return CheckpointError("W01", f"{folder} holds no .safetensors file")
