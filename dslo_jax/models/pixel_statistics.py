"""Mean and standard deviation of the pixels that a network was trained on.

Three files of a folder may state them. transformers 5 writes ``processor_config.json``,
which contains the image processor as an object; earlier versions wrote
``preprocessor_config.json``; OpenCLIP writes ``open_clip_config.json``. They are read
in this order, which is that of transformers, up to the first that has statistics. The
files after it are not read and may have any content.
"""

import dataclasses
from pathlib import Path
from typing import TypeVar

from dslo_jax.models.clip_config import ClipVisionConfig
from dslo_jax.models.config_fields import Fields, is_number
from dslo_jax.weights import read_object


Config = TypeVar("Config", bound=ClipVisionConfig)
Triple = tuple[float, float, float]


def with_pixel_statistics(config: Config, folder: Path | None) -> Config:
    """Give a config the statistics that its folder states.

    The files describe how to scale and normalise RGB in 0 ... 255. This is expressed
    here as one mean and one standard deviation of RGB in [0, 1], the input of our
    networks. Sizes and crops are ignored, because the method has its own sizes.

    Args:
        config: The config to complete.
        folder: The folder of the network's files; ``None`` where there is none.

    Returns:
        The config with the folder's statistics; unchanged where none are stated.

    Raises:
        CheckpointError: The file is not JSON (``W08``), or its statistics cannot be
            used (``W06``).
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
    """The first object in a folder that describes the normalisation of photos."""
    for name, part in (
        ("processor_config.json", "image_processor"),
        ("preprocessor_config.json", None),
        ("open_clip_config.json", "preprocess_cfg"),
    ):
        path = folder / name
        if not path.is_file():
            continue
        fields = Fields(read_object(path), path)
        if part is None:
            return fields
        if fields.values.get(part) is not None:
            return fields.part(part)
    return None


def _rescale_factor(fields: Fields) -> float:
    """Factor on the pixels before the mean is subtracted."""
    if not _is_on(fields, "do_rescale"):
        raise fields.wrong(
            "do_rescale",
            "true: without it, it is unknown whether photos are in 0 ... 255 or in "
            "0 ... 1; write true, and the statistics of pixels in 0 ... 1",
        )
    return fields.number("rescale_factor", 1 / 255)


def _is_on(fields: Fields, name: str) -> bool:
    """Whether a switch is on: left out means on, null means off."""
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
