"""Training of CLIP with captions: names of what a picture shows, without places.

The pictures are windows of scenes at many scales, each with the names of what it shows.
There are three losses, all between pictures and sentences:

- The class token must match whole captions, as in the training of CLIP.
- Every patch must be nearer to the sentences about its picture than to other sentences.
  It is not given which of these sentences belongs to the patch.
- Every sentence about a picture must have a patch in this picture that is near to it.

Small windows show few things, so the second loss contains more information about them.
This is how patches learn to distinguish places.

The second loss is also small if every patch of a picture with sky is called sky, and
training ends there: frequent names take the patches of the names that they often occur
with. A second stage therefore distributes the patches of the windows over their names.
A name gets about an equal part of every window that it is in, and the patches must
match this distribution.

Small windows contain most information about places, but photos are large, and with
global attention patches take names from other places. A third stage therefore cuts
large windows into small tiles with names of their own and distributes the patches of
the tiles. The patches of the whole window must match this distribution, too. The tiles
act as a teacher with a closer view, as in CLIPSelf (Wu et al., ICLR 2024).

Until then only the patches of the unchanged last block are trained. A fourth stage goes
on with the third, and the patches of the k-k mean (``models/clip_attention.py``) match
the tiles, too. Then the network can be read as the paper reads CLIP.
"""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

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


# Small windows cost little and contain most information about places, so a run begins
# with them. With larger ones patches learn from their surroundings. Steps use the
# windows of a phase in turn.
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

# Muon trains the matrices, Adam everything else. For the same loss as AdamW, Muon needs
# a third fewer steps, and each step takes a tenth longer.
_MATRIX_RATE, _RATE, _WARM_UP = 0.02, 3e-3, 50
_SHARING_RATES = 0.5  # learning rates of the later stages, relative to the first
_WEIGHT_DECAY = 0.01
# First step of a stage for the seeds of scenes, so that no two stages share a scene.
_SHARING_STEP, _TILING_STEP, _KEYS_STEP = 100_000, 200_000, 400_000


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
    """All words of captions and templates."""
    text = " ".join([*IMAGENET_TEMPLATES, *scenes.wordings()]).lower()
    return sorted(set(re.findall("[a-z]+", text)))


class _Stage(NamedTuple):
    """A stage of the training.

    Attributes:
        name: Name of the recipe.
        objective: The loss.
        windows_at: Function of a step to its windows.
        first_step: First step, for the seeds of scenes.
        relative_rate: Learning rate, relative to the first stage.
    """

    name: str
    objective: Objective
    windows_at: Callable[[int], Windows]
    first_step: int = 0
    relative_rate: float = 1.0


def clip_recipe(folder: Path, *, steps: int, seed: int = 0) -> Recipe:
    """The first stage of the training of CLIP.

    Args:
        folder: Folder for the tokenizer, which is written now, and for the weights.
        steps: Number of steps.
        seed: Seed of weights, windows and sentences.
    """
    settings = configuration(write_tokenizer(folder, words()))

    @jax.jit
    def initial() -> nnx.State:
        return nnx.state(_build(settings, seed))

    def windows_at(step: int) -> Windows:
        phase = SMALL if step < _SMALL_SHARE * steps else MIXED
        return phase[step % len(phase)]

    stage = _Stage("clip", partial(loss, patch_loss=explained), windows_at)
    return _recipe(stage, folder, settings, initial, steps, seed)


def sharing_recipe(folder: Path, *, steps: int, seed: int = 0) -> Recipe:
    """The second stage, which continues from the first.

    Args:
        folder: The CLIP of ``clip_recipe``; its weights are replaced.
        steps: Number of steps.
        seed: Seed of windows and sentences.
    """
    objective = partial(loss, patch_loss=shared_out)
    stage = _later_stage("sharing", objective, SHARED, _SHARING_STEP)
    return _continued(stage, folder, steps, seed)


def tiling_recipe(folder: Path, *, steps: int, seed: int = 0) -> Recipe:
    """The third stage, which continues from the second.

    Args:
        folder: The CLIP of ``sharing_recipe``; its weights are replaced.
        steps: Number of steps.
        seed: Seed of windows and sentences.
    """
    stage = _later_stage("tiling", tiled_loss, TILED, _TILING_STEP)
    return _continued(stage, folder, steps, seed)


def keys_recipe(folder: Path, *, steps: int, seed: int = 0) -> Recipe:
    """The fourth stage, which continues from the third.

    Args:
        folder: The CLIP of ``tiling_recipe``; its weights are replaced.
        steps: Number of steps.
        seed: Seed of windows and sentences.
    """
    objective = partial(tiled_loss, also=("kk_mean",))
    stage = _later_stage("keys", objective, TILED, _KEYS_STEP)
    return _continued(stage, folder, steps, seed)


def _later_stage(
    name: str, objective: Objective, phase: tuple[Windows, ...], first_step: int
) -> _Stage:
    def windows_at(step: int) -> Windows:
        return phase[step % len(phase)]

    return _Stage(name, objective, windows_at, first_step, _SHARING_RATES)


def _continued(stage: _Stage, folder: Path, steps: int, seed: int) -> Recipe:
    """The recipe of a stage that starts with the weights in the folder."""

    def initial() -> nnx.State:
        return nnx.state(load_clip(folder))

    return _recipe(stage, folder, read_config(folder), initial, steps, seed)


def _recipe(
    stage: _Stage,
    folder: Path,
    settings: dict[str, Any],
    initial: Callable[[], nnx.State],
    steps: int,
    seed: int,
) -> Recipe:
    tokenizer = prompts.load_tokenizer(folder)
    build = partial(_build, settings, seed)
    scale = stage.relative_rate
    optimizer = optax.contrib.muon(
        rates(scale * _MATRIX_RATE, steps, warm_up=_WARM_UP),
        adam_learning_rate=rates(scale * _RATE, steps, warm_up=_WARM_UP),
        weight_decay=_WEIGHT_DECAY,
    )

    def save(progress: Progress) -> None:
        module = module_of(build, progress.average)
        save_module(module, folder, settings, dtype=jnp.float16)

    def batch(step: int) -> Batch:
        windows = stage.windows_at(step)
        return draw_batch(tokenizer, windows, stage.first_step + step, seed)

    begin, update = descent(
        build, stage.objective, optimizer, initial=initial, seed=seed
    )
    return Recipe(stage.name, steps, begin, batch, update, save)


def _build(settings: dict[str, Any], seed: int) -> Clip:
    return Clip(ClipConfig.from_dict(settings), rngs=nnx.Rngs(seed))
