"""CLIP on captions alone: which words go with which picture, never where.

The pictures are windows of scenes at many scales, each with the names of what it shows.
Three losses, all of them between pictures and sentences:

- the class token against whole captions, as CLIP was trained;
- every patch must be nearer to sentences about its picture than to sentences about
  something else (which of them belongs to it, nobody says);
- every sentence about a picture must have a patch there that is near to it.

Small windows show few things, so the second loss says more there; this is what makes
the patches tell places apart.

The second loss is content if all is called sky where there is sky, and so it ends: what
is often there takes what it is often seen with. A second stage therefore shares the
patches out among the names of their windows, to each name about as much as an equal
part of every window that it is in, and asks for that.

Small windows say most about places, but a photo is not seen through them, and patches
that may look far take the names of what is elsewhere. A third stage therefore cuts
large windows into small tiles, each with its own names, shares out the patches of the
tiles, and asks for the same of the patches of the whole window: a teacher that looks
closer, as in CLIPSelf (Wu et al., ICLR 2024).
"""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from dslo_jax import prompts, scenes
from dslo_jax.demo.tokenizer import write_tokenizer
from dslo_jax.demo.train.clip_batches import Windows, draw_batch
from dslo_jax.demo.train.clip_losses import explained, loss, shared_out, tiled_loss
from dslo_jax.demo.train.descent import Objective, descent, module_of, rates
from dslo_jax.demo.train.recipe import Batch, Progress, Recipe
from dslo_jax.models.clip import Clip, load_clip
from dslo_jax.models.clip_config import ClipConfig
from dslo_jax.templates import IMAGENET_TEMPLATES
from dslo_jax.weights import read_config, save_module


# Small windows cost little and say most about places, so a run begins with them; larger
# ones teach patches to look around. Steps take the windows of a phase in turn.
SMALL = (Windows(side=32, count=320, per_scene=32, names=4, tokens=40),)
MIXED = (
    *SMALL,
    *3 * (Windows(side=64, count=96, per_scene=32, names=8, tokens=56),),
    Windows(side=128, count=24, per_scene=24, names=13, tokens=77),
)
_SMALL_SHARE = 0.15
# The equal parts of the second stage are nearest to the truth in small windows.
SHARED = (*2 * SMALL, MIXED[1])
# The third stage: up to the size at which photos are segmented.
TILED = (
    Windows(side=64, count=96, per_scene=8, names=8, tokens=56, tiles=2),
    Windows(side=128, count=24, per_scene=2, names=13, tokens=77, tiles=4),
    Windows(side=192, count=10, per_scene=1, names=13, tokens=77, tiles=6),
)

# Matrices are moved by Muon at a rate of their own, everything else by Adam. Muon
# needs a third fewer steps to the same loss than AdamW, each a tenth longer.
_MATRIX_RATE, _RATE, _WARM_UP = 0.02, 3e-3, 50
_SHARING_RATES = 0.5  # relative to those
_WEIGHT_DECAY = 0.01
# The step that a stage counts its windows from: no scene is seen in two of them.
_SHARING_STEP, _TILING_STEP = 100_000, 200_000


def configuration(vocabulary: int) -> dict[str, Any]:
    """The Hugging Face configuration of the bundled CLIP."""
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": 128,
        "text_config": {
            "model_type": "clip_text_model",
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "vocab_size": vocabulary,
            "bos_token_id": vocabulary - 2,
            "eos_token_id": vocabulary - 1,
            "projection_dim": 128,
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_hidden_layers": 6,
            "num_attention_heads": 4,
            "image_size": 128,
            "patch_size": 8,
            "projection_dim": 128,
        },
    }


def words() -> list[str]:
    """Every word of every caption and template."""
    text = " ".join([*IMAGENET_TEMPLATES, *scenes.wordings()]).lower()
    return sorted(set(re.findall("[a-z]+", text)))


def clip_recipe(folder: Path, *, steps: int, seed: int = 0) -> Recipe:
    """How the bundled CLIP is trained.

    Args:
        folder: Where the tokenizer is written now, and the weights in the end.
        steps: Of the optimiser.
        seed: Of weights, windows and sentences.

    Returns:
        The recipe.
    """
    settings = configuration(write_tokenizer(folder, words()))

    @jax.jit
    def initial() -> nnx.State:
        return nnx.state(_build(settings, seed))

    def windows_at(step: int) -> Windows:
        phase = SMALL if step < _SMALL_SHARE * steps else MIXED
        return phase[step % len(phase)]

    return _recipe(
        "clip",
        folder,
        settings,
        objective=partial(loss, patch_loss=explained),
        initial=initial,
        windows_at=windows_at,
        first_step=0,
        steps=steps,
        relative_rate=1.0,
        seed=seed,
    )


def sharing_recipe(folder: Path, *, steps: int, seed: int = 0) -> Recipe:
    """The second stage, on what the first has saved.

    Args:
        folder: The CLIP of ``clip_recipe``; its weights are replaced.
        steps: Of the optimiser.
        seed: Of windows and sentences.

    Returns:
        The recipe.
    """
    objective = partial(loss, patch_loss=shared_out)
    return _later_stage(
        "sharing", folder, SHARED, objective, _SHARING_STEP, steps, seed
    )


def tiling_recipe(folder: Path, *, steps: int, seed: int = 0) -> Recipe:
    """The third stage, on what the second has saved.

    Args:
        folder: The CLIP of ``sharing_recipe``; its weights are replaced.
        steps: Of the optimiser.
        seed: Of windows and sentences.

    Returns:
        The recipe.
    """
    return _later_stage("tiling", folder, TILED, tiled_loss, _TILING_STEP, steps, seed)


def _later_stage(
    name: str,
    folder: Path,
    phase: tuple[Windows, ...],
    objective: Objective,
    first_step: int,
    steps: int,
    seed: int,
) -> Recipe:
    """Patches shared out, from the weights in the folder."""

    def initial() -> nnx.State:
        return nnx.state(load_clip(folder))

    return _recipe(
        name,
        folder,
        read_config(folder),
        objective=objective,
        initial=initial,
        windows_at=lambda step: phase[step % len(phase)],
        first_step=first_step,
        steps=steps,
        relative_rate=_SHARING_RATES,
        seed=seed,
    )


def _recipe(
    name: str,
    folder: Path,
    settings: dict[str, Any],
    *,
    objective: Objective,
    initial: Callable[[], nnx.State],
    windows_at: Callable[[int], Windows],
    first_step: int,
    steps: int,
    relative_rate: float,
    seed: int,
) -> Recipe:
    """What all stages share."""
    tokenizer = prompts.load_tokenizer(folder)
    build = partial(_build, settings, seed)
    optimizer = optax.contrib.muon(
        rates(relative_rate * _MATRIX_RATE, steps, warm_up=_WARM_UP),
        adam_learning_rate=rates(relative_rate * _RATE, steps, warm_up=_WARM_UP),
        weight_decay=_WEIGHT_DECAY,
    )

    def save(progress: Progress) -> None:
        module = module_of(build, progress.average)
        save_module(module, folder, settings, dtype=jnp.float16)

    def batch(step: int) -> Batch:
        return draw_batch(tokenizer, windows_at(step), first_step + step, seed)

    begin, update = descent(build, objective, optimizer, initial=initial, seed=seed)
    return Recipe(name, steps, begin, batch, update, save)


def _build(settings: dict[str, Any], seed: int) -> Clip:
    return Clip(ClipConfig.from_dict(settings), rngs=nnx.Rngs(seed))
