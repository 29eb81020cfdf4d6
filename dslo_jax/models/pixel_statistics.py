"""The mean and deviation of the pixels that a network was trained on, from its folder.

Three files may state them. transformers 5 writes ``processor_config.json``, with the
image processor as an object in it; versions before wrote ``preprocessor_config.json``;
OpenCLIP writes ``open_clip_config.json``. They are looked at in this order, which is
that of transformers, and no further than to the first that has statistics. So a file
that does not count may hold anything.
"""

import dataclasses
import json
from pathlib import Path
from typing import TypeVar

from dslo_jax.errors import CheckpointError
from dslo_jax.models.clip_config import ClipVisionConfig
from dslo_jax.models.config_fields import Fields, is_number


Config = TypeVar("Config", bound=ClipVisionConfig)
Triple = tuple[float, float, float]


def with_pixel_statistics(config: Config, folder: Path | None) -> Config:
    """Give a config the statistics that its folder states.

    A photo is RGB in 0 ... 255. What a file says of scaling and normalising it becomes
    one mean and one deviation of RGB in [0, 1], which is what our networks take. Sizes
    and crops are not looked at: photos are resized to what the method wants.

    Args:
        config: The config to complete.
        folder: The folder of the network's files; ``None`` where there is none.

    Returns:
        The config with the folder's statistics; unchanged where none are stated.

    Raises:
        CheckpointError: The file that counts is not JSON (``W08``), or states no
            statistics that could be used (``W06``).
    """
    fields = None if folder is None else _stated(folder)
    if fields is None:
        return config
    mean, std = config.pixel_mean, config.pixel_std
    if fields.prefix == "preprocess_cfg.":  # OpenCLIP
        mean, std = _triple(fields, "mean", mean), _triple(fields, "std", std)
    elif _is_on(fields, "do_normalize"):
        mean = _triple(fields, "image_mean", mean)
        std = _triple(fields, "image_std", std)
    else:
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if min(std) <= 0:
        name = "std" if "std" in fields.values else "image_std"
        raise fields.wrong(name, "positive numbers")
    brightest = 255 * _rescale_factor(fields)
    if brightest != 1:  # the statistics are those of pixels in [0, brightest]
        mean = (mean[0] / brightest, mean[1] / brightest, mean[2] / brightest)
        std = (std[0] / brightest, std[1] / brightest, std[2] / brightest)
    return dataclasses.replace(config, pixel_mean=mean, pixel_std=std)


def _stated(folder: Path) -> Fields | None:
    """The first object in a folder that describes what becomes of a photo."""
    for name, part in (
        ("processor_config.json", "image_processor"),
        ("preprocessor_config.json", None),
        ("open_clip_config.json", "preprocess_cfg"),
    ):
        path = folder / name
        if not path.is_file():
            continue
        fields = Fields(_read_object(path), path)
        if part is None:
            return fields
        if fields.values.get(part) is not None:
            return fields.part(part)
    return None


def _read_object(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError("W08", f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError("W08", f"{path} is not a JSON object")
    return content


def _rescale_factor(fields: Fields) -> float:
    """What photos are multiplied by before the mean is subtracted."""
    if not _is_on(fields, "do_rescale"):
        raise fields.wrong(
            "do_rescale",
            "true: without it, nobody knows whether photos come as 0 ... 255 or as "
            "0 ... 1; write true, and the statistics of pixels in 0 ... 1",
        )
    return fields.number("rescale_factor", 1 / 255)


def _is_on(fields: Fields, name: str) -> bool:
    """A switch is on where it is left out, and off where it is null."""
    is_null = name in fields.values and fields.values[name] is None
    return not is_null and fields.flag(name, True)


def _triple(fields: Fields, name: str, default: Triple) -> Triple:
    """A number for each of red, green and blue, or one for all three."""
    found = fields.values.get(name)
    if found is None:
        return default
    each = [found] * 3 if is_number(found) else found
    if not isinstance(each, (list, tuple)) or len(each) != 3:
        raise fields.wrong(name, "three numbers")
    if not all(map(is_number, each)):
        raise fields.wrong(name, "three finite numbers")
    red, green, blue = map(float, each)
    return red, green, blue
