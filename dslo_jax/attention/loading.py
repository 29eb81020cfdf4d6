"""From a folder or a name to a source of affinities."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp

from dslo_jax.attention.diffusion import load_diffusion
from dslo_jax.attention.source import AffinitySource, Layers
from dslo_jax.attention.transformer import load_transformer
from dslo_jax.errors import CheckpointError
from dslo_jax.hub import attention_of
from dslo_jax.hub.presets import PRESETS
from dslo_jax.models.clip_config import ClipVisionConfig
from dslo_jax.models.config_fields import model_type_of
from dslo_jax.models.vae import VAEConfig
from dslo_jax.models.vit_config import VIT_TYPES, VitConfig
from dslo_jax.weights import read_config


def load_affinity(
    folder: Path,
    *,
    dtype: jax.typing.DTypeLike = jnp.float32,
    size: int = 512,
    timestep: int = 0,
    layers: Layers = (),
    temperature: float = 1.0,
) -> AffinitySource:
    """Load whatever network lies in a folder as a source of affinities.

    Args:
        folder: A diffusers pipeline (``unet/`` and ``vae/``), or the folder of a DINO,
            DINOv2, DINOv2 with registers or CLIP in the layout of transformers.
        dtype: Type of the parameters and of the computation.
        size: Side of the square photo, in pixels.
        timestep: Noise of a diffusion model, 0 ... 999.
        layers: Names and weights; see ``DiffusionAffinity``, ``TransformerAffinity``.
        temperature: Softens (> 1) or sharpens (< 1) the affinity.

    Returns:
        The source. True float32 needs the caller to trace it under
        ``jax.default_matmul_precision("highest")``.

    Raises:
        CheckpointError: There is no such network, or it is foreign or damaged.
        OptionError: The network has no use for a choice.
        ValueError: A choice is out of range.
    """
    load = load_diffusion if attention_of(folder) == "diffusion" else load_transformer
    return load(
        folder,
        dtype=dtype,
        size=size,
        timestep=timestep,
        layers=layers,
        temperature=temperature,
    )


def downscaling_of(name_or_path: str | Path) -> int:
    """Pixels per patch along each side, told without loading or downloading anything.

    Args:
        name_or_path: A folder or file as for ``load_affinity``, a preset, or any name.

    Returns:
        What the configuration or the preset says; 8, as in every Stable Diffusion,
        where there is neither.
    """
    place = Path(os.path.expanduser(name_or_path))
    if not place.exists():
        preset = PRESETS.get(str(name_or_path))
        return 8 if preset is None else preset.downscaling
    try:
        kind = attention_of(place)
    except CheckpointError:  # nothing there that anybody asked for
        return 8
    if kind == "diffusion":
        vae = place / "vae"
        if not vae.is_dir():
            return 8
        source = vae / "config.json"
        return VAEConfig.from_dict(read_config(vae), source=source).downscaling
    values = read_config(place)
    network = VitConfig if model_type_of(values) in VIT_TYPES else ClipVisionConfig
    return network.from_dict(values, source=place).patch_size
