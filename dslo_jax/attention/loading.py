"""Loading a source of affinities from a folder."""

import os
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp

from dslo_jax.attention.diffusion import DiffusionAffinity
from dslo_jax.attention.options import AffinityOptions
from dslo_jax.attention.source import AffinitySource
from dslo_jax.attention.transformer import TransformerAffinity
from dslo_jax.errors import CheckpointError
from dslo_jax.hub import attention_of
from dslo_jax.hub.presets import PRESETS, Kind
from dslo_jax.models.clip_config import ClipVisionConfig
from dslo_jax.models.config_fields import model_type_of
from dslo_jax.models.dinov3_config import DINOV3_TYPE, Dinov3Config
from dslo_jax.models.vae import VAEConfig
from dslo_jax.models.vit_config import VIT_TYPES, VitConfig
from dslo_jax.weights import read_config


# The class that reads the attention of each kind of checkpoint.
_SOURCES: Mapping[Kind, type[AffinitySource]] = {
    "diffusion": DiffusionAffinity,
    "vit": TransformerAffinity,
    "clip": TransformerAffinity,
}


# The configurations of vision transformers that are not CLIP, by their ``model_type``.
_CONFIGS: Mapping[str, type[ClipVisionConfig]] = {
    **dict.fromkeys(VIT_TYPES, VitConfig),
    DINOV3_TYPE: Dinov3Config,
}


def load_affinity(
    place: Path,
    *,
    dtype: jax.typing.DTypeLike = jnp.float32,
    options: AffinityOptions = AffinityOptions(),
) -> AffinitySource:
    """Load the network of a folder or file as a source of affinities.

    Args:
        place: A diffusers pipeline (``unet/`` and ``vae/``), or a DINO, DINOv2, DINOv2
            with registers, DINOv3 or CLIP.
        dtype: Type of the parameters and of the computation.
        options: The attention that is read, and how it is averaged.

    Returns:
        The source. For full float32, trace it under
        ``jax.default_matmul_precision("highest")``.

    Raises:
        CheckpointError: The network is missing, damaged, or not of these kinds.
        OptionError: The network cannot use an option.
    """
    source = _SOURCES[attention_of(place)]
    return source.load(place, dtype=dtype, options=options)


def downscaling_of(name_or_path: str | Path) -> int:
    """Pixels per patch along each side, without loading or downloading anything.

    Args:
        name_or_path: A folder or file as for ``load_affinity``, a preset, or any name.

    Returns:
        The value of the configuration or of the preset; where there is neither, 8, as
        in every Stable Diffusion.
    """
    place = Path(os.path.expanduser(name_or_path))
    if not place.exists():
        preset = PRESETS.get(str(name_or_path))
        return 8 if preset is None else preset.downscaling
    try:
        kind = attention_of(place)
    except CheckpointError:  # reported when the affinity is needed and loaded
        return 8
    if kind == "diffusion":
        vae = place / "vae"
        if not vae.is_dir():
            return 8
        source = vae / "config.json"
        return VAEConfig.from_dict(read_config(vae), source=source).downscaling
    values = read_config(place)
    network = _CONFIGS.get(model_type_of(values), ClipVisionConfig)
    return network.from_dict(values, source=place).patch_size
