"""The weights and the configuration of a network, from a file or a folder."""

import json
from pathlib import Path
from typing import Any

from dslo_jax.errors import CheckpointError
from dslo_jax.weights.choice import choose_files, looked_for
from dslo_jax.weights.clip_spelling import is_open_clip, is_openai, respell_clip
from dslo_jax.weights.formats import read_table
from dslo_jax.weights.open_clip_config import translate_config
from dslo_jax.weights.openai_config import openai_config
from dslo_jax.weights.stored import Table, Weights


_CONFIG = "config.json"
_OPEN_CLIP = "open_clip_config.json"
_MAX_NAMES_SHOWN = 8


def open_weights(place: Path) -> Weights:
    """List the tensors of a file or of a model folder, which are read on demand.

    The format of a file is recognised by its content: safetensors, msgpack of Flax, or
    a format of PyTorch. Code that a file may contain is never run.

    Args:
        place: A file; or a folder, of which ``choose_files`` chooses the files.

    Returns:
        A mapping from tensor key to array that reads on demand. Keys are spelt as
        transformers and diffusers spell them, and arrays are laid out as in PyTorch.

    Raises:
        CheckpointError: There is no file of weights (``W01``); a file is not weights
            (``W03``), is damaged or of another format (``W04``), or is a pickle with
            more than weights (``W05``); or a shard is missing or misplaced (``W08``).
    """
    table = _read_place(place)
    return Weights(respell_clip(table) if is_open_clip(table) else table)


def read_config(place: Path) -> dict[str, Any]:
    """Read the configuration of a network, as transformers or diffusers spell it.

    It comes from ``config.json`` of the folder; for weights of open_clip from
    ``open_clip_config.json``; for OpenAI's files from the shapes of their tensors.

    Args:
        place: A file of weights, or a model folder.

    Returns:
        The configuration as plain values.

    Raises:
        CheckpointError: There is no configuration, or it is not a JSON object
            (``W08``); it describes a network that is not supported (``W06``); or the
            weights that replace it cannot be read (``W01`` ... ``W05``).
    """
    source = config_source(place)
    if source.name == _OPEN_CLIP:
        return translate_config(read_object(source), source)
    if source.name == _CONFIG:
        return read_object(source)
    return openai_config(_read_place(place))


def config_source(place: Path) -> Path:
    """The file that ``read_config`` reads, to be named in an error.

    Args:
        place: A file of weights, or a model folder.

    Returns:
        ``config.json``, ``open_clip_config.json``, or the place itself if the
        configuration comes from its tensors.

    Raises:
        CheckpointError: As for ``read_config``.
    """
    side = side_folder(place)
    if side is None:
        return place
    config, open_clip = side / _CONFIG, side / _OPEN_CLIP
    if open_clip.is_file() and (not config.is_file() or _is_open_clip(place)):
        return open_clip
    if config.is_file():
        return config
    chosen = choose_files(_file_names(place)) if place.is_dir() else ()
    if chosen and is_openai(_read_place(place)):
        return place
    raise _no_config(place, side)


def side_folder(place: Path) -> Path | None:
    """Folder of the JSON files that describe a network.

    Args:
        place: A file of weights, or a model folder.

    Returns:
        The folder itself, or that of the file; ``None`` for OpenAI's files, which need
        no configuration.

    Raises:
        CheckpointError: The file is not a readable checkpoint (``W03`` ... ``W05``).
    """
    if not place.is_file():
        return place
    return None if is_openai(read_table(place)) else place.parent


def _read_place(place: Path) -> Table:
    """The tensors of a place as its files spell them."""
    if place.is_file():
        return read_table(place)
    files = choose_files(_file_names(place)) if place.is_dir() else ()
    if not files:
        raise _nothing_usable(place)
    if files[0].endswith(".json"):
        return _read_shards(place / files[0])
    return read_table(place / files[0])


def _is_open_clip(place: Path) -> bool:
    """Whether ``open_clip_config.json`` describes the weights, not ``config.json``."""
    if place.is_file():
        return is_open_clip(read_table(place))
    return any(
        name.startswith("open_clip_") for name in choose_files(_file_names(place))
    )


def _file_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def read_object(path: Path) -> dict[str, Any]:
    """Read a file that holds a JSON object.

    Raises:
        CheckpointError: It is not JSON, or not an object (``W08``).
    """
    try:
        content = json.loads(path.read_bytes())  # with or without a byte order mark
    except (ValueError, RecursionError) as error:
        raise CheckpointError("W08", f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError("W08", f"{path} is not a JSON object")
    return content


def _read_shards(index: Path) -> Table:
    """The tensors of a sharded checkpoint."""
    places = read_object(index).get("weight_map")
    if not isinstance(places, dict):
        raise CheckpointError("W08", f"{index} is not an index with a 'weight_map'")
    present = _file_names(index.parent)
    table: Table = {}
    for name in sorted({str(name) for name in places.values()}):
        if name not in present:  # this also refuses a name with a folder in it
            raise CheckpointError(
                "W08", f"{index} names {name!r}, which is not in {index.parent}"
            )
        for key, tensor in read_table(index.parent / name).items():
            if key in table:
                raise CheckpointError("W04", f"{key!r} is in two shards of {index}")
            table[key] = tensor
    for key, name in places.items():
        if key not in table or table[key].path.name != name:
            raise CheckpointError("W08", f"{index} promises {key!r}, {name} lacks it")
    return table


def _no_config(place: Path, side: Path) -> CheckpointError:
    if place.is_file() and is_open_clip(read_table(place)):
        return CheckpointError(
            "W08",
            f"{place} does not say what network it belongs to; put the {_OPEN_CLIP} of "
            f"its repository into {side}",
        )
    return CheckpointError(
        "W08", f"{side} has no {_CONFIG}; expected a Hugging Face model folder"
    )


def _nothing_usable(folder: Path) -> CheckpointError:
    if not folder.is_dir():
        return CheckpointError("W01", f"there is no model folder or file {folder}")
    names = _file_names(folder)
    shown = ", ".join(names[:_MAX_NAMES_SHOWN]) or "no files"
    more = f" and {len(names) - _MAX_NAMES_SHOWN} more" * (
        len(names) > _MAX_NAMES_SHOWN
    )
    hint = ""
    if any(".non_ema." in name for name in names):
        hint = ". Weights called non_ema are those of training, not their average"
    return CheckpointError(
        "W01", f"{folder} holds {shown}{more}; looked for {looked_for()}{hint}"
    )
