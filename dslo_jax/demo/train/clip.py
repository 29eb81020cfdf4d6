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

import math
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Shaped

from dslo_jax import images, prompts, scenes
from dslo_jax.demo.tokenizer import write_tokenizer
from dslo_jax.demo.train.descent import Objective, descent, module_of, rates
from dslo_jax.demo.train.recipe import (
    Batch,
    Metrics,
    OnDevice,
    Progress,
    Recipe,
    first_seed,
)
from dslo_jax.models.clip import Clip, load_clip, unit
from dslo_jax.models.clip_config import ClipConfig
from dslo_jax.templates import IMAGENET_TEMPLATES
from dslo_jax.weights import read_config, save_module


class Windows(NamedTuple):
    """The pictures of one step.

    Attributes:
        side: Pixels.
        count: How many.
        per_scene: How many of them show the same scene.
        names: The most that a caption mentions.
        tokens: Enough for such a caption.
        tiles: Into how many a side is cut; each tile has names of its own.
    """

    side: int
    count: int
    per_scene: int
    names: int
    tokens: int
    tiles: int = 1


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
# Scenes are enlarged like small photos before a network sees them.
_ZOOM = (1.0, 1.8)
# Share of the pixels from which on a caption mentions a class.
_VISIBLE = 0.01
_CAPTIONS, _SENTENCE_TOKENS = 24, 24
_THINGS = frozenset(scenes.FOREGROUND)

# Matrices are moved by Muon at a rate of their own, everything else by Adam. Muon
# needs a third fewer steps to the same loss than AdamW, each a tenth longer.
_MATRIX_RATE, _RATE, _WARM_UP = 0.02, 3e-3, 50
_SHARING_RATES = 0.5  # relative to those
# Rounds of sharing out, and how far a round goes to meet the parts: to the full (1),
# a cloud would take as much of the sky as the sky.
_SHARING_ROUNDS, _SHARING_FORCE = 8, 0.5
_WEIGHT_DECAY = 0.01
# Sharpness of the softmax that picks the patches of a sentence.
_SHARPNESS = 30.0
_LEAST = 1e-5  # what no share falls below
# The step that a stage counts its windows from: no scene is seen in two of them.
_SHARING_STEP, _TILING_STEP = 100_000, 200_000

PatchLoss = Callable[[Array, Array], Float[Array, ""]]
"""From logits [windows, patches, classes] and present [windows, classes] to a loss."""


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
    """What both stages share."""
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


def draw_batch(
    tokenizer: Any, windows: Windows, step: int, seed: int
) -> dict[str, np.ndarray]:
    """The pictures and sentences of a step.

    Returns:
        ``pixels`` uint8 [windows, side, side, 3]; ``present`` bool [tiles, classes],
        the tiles of each window row by row; ``sentences`` int32 [classes, tokens], one
        about each class; ``captions`` int32 [captions, tokens] of the first windows;
        ``same`` bool [captions, captions], whether the caption of a column is true of
        the window of a row.
    """
    rng = np.random.default_rng((seed, step))
    shown = list(_windows(rng, windows, step))
    names = [scenes.scene_names(each.labels, min_share=_VISIBLE) for each in shown]
    captions = [
        scenes.caption(rng.permutation(some)[: windows.names].tolist(), rng)
        for some in names[:_CAPTIONS]
    ]
    sentences = [_sentence(name, rng) for name in scenes.NAMES]
    first = names[:_CAPTIONS]
    tiles = [tile for each in shown for tile in _tiles(each.labels, windows.tiles)]
    return {
        "pixels": np.stack([each.pixels for each in shown]),
        "present": np.stack([_present(tile) for tile in tiles]),
        "sentences": prompts.tokenize(tokenizer, sentences, length=_SENTENCE_TOKENS),
        "captions": prompts.tokenize(tokenizer, captions, length=windows.tokens),
        "same": np.array([[one == other for other in first] for one in first]),
    }


def _tiles(labels: np.ndarray, count: int) -> list[np.ndarray]:
    """A square cut into ``count`` x ``count``, row by row."""
    rows = np.array_split(labels, count, axis=0)
    return [tile for row in rows for tile in np.array_split(row, count, axis=1)]


def _present(labels: np.ndarray) -> np.ndarray:
    """Which classes a caption of a picture mentions."""
    return np.isin(scenes.NAMES, scenes.scene_names(labels, min_share=_VISIBLE))


def _windows(
    rng: np.random.Generator, windows: Windows, step: int
) -> Iterator[scenes.Scene]:
    """Square windows, several of each scene; no scene is drawn for two steps."""
    first = first_seed(step)
    for index in range(windows.count):
        if index % windows.per_scene == 0:
            scene = scenes.draw_scene(first + index // windows.per_scene)
        zoom = np.exp(rng.uniform(*np.log(_ZOOM)))
        side = min(round(windows.side / zoom), *scene.labels.shape)
        # Every other window is the one of four that shows most things: left to chance,
        # small windows show little but sky and ground.
        places = [_square(rng, scene, side) for _ in range(1 + index % 2 * 3)]
        rows, columns = max(places, key=partial(_count_things, scene))
        cut, size = scene.pixels[rows, columns], (windows.side, windows.side)
        yield scene._replace(
            pixels=images.resize_photo(cut, size), labels=scene.labels[rows, columns]
        )


def _square(
    rng: np.random.Generator, scene: scenes.Scene, side: int
) -> tuple[slice, slice]:
    """A random place for a window."""
    top, left = (int(rng.integers(n - side + 1)) for n in scene.labels.shape)
    return slice(top, top + side), slice(left, left + side)


def _count_things(scene: scenes.Scene, place: tuple[slice, slice]) -> int:
    shown = scenes.scene_names(scene.labels[place], min_share=0.05)
    return len(_THINGS.intersection(shown))


def _sentence(name: str, rng: np.random.Generator) -> str:
    """A class in a caption of its own or, half of the time, in a template."""
    if rng.random() < 0.5:
        return scenes.caption([name], rng)
    known = scenes.CLASSES[scenes.NAMES.index(name)]
    word = rng.choice([name, *known.synonyms])
    return str(rng.choice(IMAGENET_TEMPLATES)).format(word)


def loss(
    clip: Clip, batch: OnDevice, key: Array, *, patch_loss: PatchLoss
) -> tuple[Float[Array, ""], Metrics]:
    """The sum of the three losses, and each of them; ``key`` is not needed."""
    del key
    token, patches = _embed_pictures(clip, batch["pixels"])
    sentences = clip.encode_text(batch["sentences"])
    logits = _patch_logits(clip, patches, sentences)
    parts = {
        "caption": _caption_loss(clip, token, batch),
        "patch": patch_loss(logits, batch["present"]),
        "sentence": found(logits, batch["present"]),
    }
    return _sum_of(parts), parts


def tiled_loss(
    clip: Clip, batch: OnDevice, key: Array
) -> tuple[Float[Array, ""], Metrics]:
    """The same for the tiles of windows, whose shares the whole windows must match."""
    del key
    token, patches = _embed_pictures(clip, batch["pixels"])
    per_side = math.isqrt(len(batch["present"]) // len(patches))
    _, near = _embed_pictures(clip, _cut(batch["pixels"], per_side))
    sentences = clip.encode_text(batch["sentences"])
    logits = _patch_logits(clip, near, sentences)
    goal = shares(logits, batch["present"])
    parts = {
        "caption": _caption_loss(clip, token, batch),
        "patch": _cross_entropy(goal, logits),
        "sentence": found(logits, batch["present"]),
        "window": _cross_entropy(
            _joined(goal, per_side), _patch_logits(clip, patches, sentences)
        ),
    }
    return _sum_of(parts), parts


def _sum_of(parts: Metrics) -> Float[Array, ""]:
    """The loss of its parts."""
    return jnp.stack(list(parts.values())).sum()


def _caption_loss(
    clip: Clip, token: Float[Array, "windows dim"], batch: OnDevice
) -> Float[Array, ""]:
    captions = clip.encode_text(batch["captions"])
    logits = _scale(clip) * token[: len(captions)] @ captions.T
    return _match(logits, batch["same"])


def _patch_logits(
    clip: Clip,
    patches: Float[Array, "windows patches dim"],
    sentences: Float[Array, "classes dim"],
) -> Float[Array, "windows patches classes"]:
    return _scale(clip) * patches @ sentences.T


def _scale(clip: Clip) -> Float[Array, ""]:
    return jnp.exp(jnp.minimum(clip.logit_scale[...], np.log(100.0)))


def _cut(
    pixels: Array, per_side: int
) -> Shaped[Array, "tiles tile_height tile_width 3"]:
    """Windows cut into tiles, row by row."""
    count, side, _, channels = pixels.shape
    split = pixels.reshape(count, per_side, side // per_side, per_side, -1, channels)
    return split.swapaxes(2, 3).reshape(-1, *split.shape[2::2], channels)


def _joined(
    share: Float[Array, "tiles tile_patches classes"], per_side: int
) -> Float[Array, "windows patches classes"]:
    """What is known about the patches of tiles, as of the patches of their windows."""
    side, classes = math.isqrt(share.shape[1]), share.shape[2]
    grid = share.reshape(-1, per_side, per_side, side, side, classes)
    return grid.swapaxes(2, 3).reshape(len(grid), -1, classes)


def _embed_pictures(
    clip: Clip, pixels: Array
) -> tuple[Float[Array, "batch dim"], Float[Array, "batch patches dim"]]:
    """Features of length 1 of the class token and of every patch."""
    vision = clip.vision_model
    hidden = vision.pre_layrnorm(vision.embeddings(pixels.astype(jnp.float32) / 255.0))
    hidden = vision.post_layernorm(vision.encoder(hidden))
    features = unit(clip.visual_projection(hidden))
    return features[:, 0], features[:, 1:]


def _match(
    logits: Float[Array, "pictures captions"], same: Bool[Array, "pictures captions"]
) -> Float[Array, ""]:
    """CLIP's symmetric loss, where several captions may be true of a picture."""
    target = same.astype(jnp.float32)
    target = target / target.sum(axis=1, keepdims=True)
    rows = optax.softmax_cross_entropy(logits, target).mean()
    return (rows + optax.softmax_cross_entropy(logits.T, target).mean()) / 2


def explained(
    logits: Float[Array, "windows patches classes"],
    present: Bool[Array, "windows classes"],
) -> Float[Array, ""]:
    """How badly the sentences about a window explain its patches: partial labels."""
    allowed = jnp.where(present[:, None], logits, -jnp.inf)
    log_share = jax.nn.logsumexp(allowed, axis=2) - jax.nn.logsumexp(logits, axis=2)
    return -log_share.mean()


def shared_out(
    logits: Float[Array, "windows patches classes"],
    present: Bool[Array, "windows classes"],
) -> Float[Array, ""]:
    """Cross-entropy with the shares of the names."""
    return _cross_entropy(shares(logits, present), logits)


def shares(
    logits: Float[Array, "windows patches classes"],
    present: Bool[Array, "windows classes"],
) -> Float[Array, "windows patches classes"]:
    """Patches shared out among the names of their window; no gradient goes through.

    Balanced by rounds of columns and rows, as in optimal transport with a relaxed
    marginal: towards what the names would have if each had an equal part of every
    window that mentions it.
    """
    named = present.astype(logits.dtype)
    part = (named / named.sum(axis=1, keepdims=True)).mean(axis=0)
    share = _rows_to_one(
        jnp.where(present[:, None], jax.nn.softmax(logits, axis=2) + _LEAST, 0.0)
    )
    for _ in range(_SHARING_ROUNDS):
        has = jnp.maximum(share.mean(axis=(0, 1)), _LEAST)
        pull = (part / has) ** _SHARING_FORCE
        share = _rows_to_one(share * pull[None, None])
    return jax.lax.stop_gradient(share)


def _cross_entropy(
    goal: Float[Array, "windows patches classes"],
    logits: Float[Array, "windows patches classes"],
) -> Float[Array, ""]:
    return optax.softmax_cross_entropy(logits, goal).mean()


def _rows_to_one(
    share: Float[Array, "windows patches classes"],
) -> Float[Array, "windows patches classes"]:
    return share / share.sum(axis=2, keepdims=True)


def found(
    logits: Float[Array, "windows patches classes"],
    present: Bool[Array, "windows classes"],
) -> Float[Array, ""]:
    """How badly the best patches of a window fit each sentence about it."""
    log_probability = jax.nn.log_softmax(logits, axis=2)
    picks = jax.nn.softmax(jnp.exp(log_probability) * _SHARPNESS, axis=1)
    fit = (jax.lax.stop_gradient(picks) * log_probability).sum(axis=1)
    return -jnp.where(present, fit, 0.0).sum() / present.sum(dtype=jnp.float32)
