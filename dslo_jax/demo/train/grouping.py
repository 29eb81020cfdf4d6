"""The last stage of the denoiser: its attention learns to group what CLIP names alike.

A denoiser that is trained for an hour distinguishes sky from grass, but its attention
leaks from small things into what surrounds them. This stage uses the CLIP of the
bundled pair as a teacher. A photo is cut into tiles, each with a caption of its own, as
in the third stage of CLIP, and CLIP distributes the patches of a tile over the names in
its caption. The mean over tiles of two sizes and several places is the teacher's
opinion about every patch. A patch shall attend to the patches that have its name.

No place and no label of a pixel is given: whatever the attention learns comes from the
captions. Aligning a diffusion model with another network is known to help it (REPA, Yu
et al., ICLR 2025, arXiv 2410.06940); here the attention is aligned, not the features.
The denoiser goes on with its own task, so that it stays a denoiser.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float

from dslo_jax import images, prompts, scenes
from dslo_jax.demo.train.clip_batches import draw_sentences, present
from dslo_jax.demo.train.clip_losses import cut, joined
from dslo_jax.demo.train.denoiser import Denoiser
from dslo_jax.demo.train.descent import descent
from dslo_jax.demo.train.diffusion import (
    TOKENS,
    Windows,
    denoising,
    draw_captioned,
    normalised,
    save_denoiser,
)
from dslo_jax.demo.train.recipe import Batch, Metrics, OnDevice, Recipe, first_seed
from dslo_jax.models.clip import Clip, load_clip
from dslo_jax.models.clip_text import TextModel
from dslo_jax.models.query_key import QueryKey
from dslo_jax.models.unet_config import UNetConfig
from dslo_jax.models.vae import VAE, load_vae
from dslo_jax.weights import load_module, open_weights, read_config


# A patch of the teacher is a patch of the affinity: 8 pixels for CLIP, 4 for the UNet.
_GRID, _CLIP_PATCH, _UNET_PATCH = 32, 8, 4
# Side of the tiles, and where the two grids of them begin and end, in patches.
_TILE, _MARGINS = 4, (0, 2)
_PHOTOS, _FIRST_PHOTO = 4, 32
_DENOISED = Windows(64, 2)
_FIRST_STEP = 300_000  # for the seeds of scenes, after the stages of CLIP

# The attentions that Stable Diffusion is read at, and how they are read.
_TAPS = tuple(
    f"up_blocks.1.attentions.{layer}.transformer_blocks.0.attn1" for layer in (0, 1)
)
_TIMESTEP = 150
# Small things count more than their area, but less than a sky.
_BALANCE = 0.75
_SHARPNESS = 2.0  # power of the teacher's probabilities
_GROUPING_WEIGHT = 0.2
_LEAST = 1e-6
_WARM_UP, _FALLING, _WEIGHT_DECAY = 50, 0.3, 0.01


def grouping_recipe(
    folder: Path,
    *,
    steps: int,
    seed: int = 0,
    rate: float = 1e-3,
    clip: Path | None = None,
) -> Recipe:
    """The stage that continues from ``denoiser_recipe``.

    Args:
        folder: Folder of the pipeline; the weights of ``unet`` are replaced.
        steps: Number of steps.
        seed: Seed of photos and noise.
        rate: Highest learning rate.
        clip: Folder of the CLIP; default: ``clip`` next to ``folder``.
    """
    settings = read_config(folder / "unet")
    config = UNetConfig.from_dict(settings)
    clip = clip or folder.parent / "clip"
    teacher, tokenizer = load_clip(clip), prompts.load_tokenizer(clip)
    empty = prompts.tokenize(tokenizer, [""], length=TOKENS)

    def build() -> Denoiser:
        return Denoiser(config, rngs=nnx.Rngs(seed))

    def initial() -> nnx.State:
        weights = open_weights(folder / "unet")
        return nnx.state(load_module(partial(Denoiser, config), weights))

    objective = partial(
        grouping,
        vae=load_vae(folder / "vae"),
        clip=teacher,
        empty=teacher.text_model(jnp.asarray(empty)),
    )
    optimizer = optax.adamw(rates(rate, steps), weight_decay=_WEIGHT_DECAY)
    begin, update = descent(build, objective, optimizer, initial=initial, seed=seed)
    return Recipe(
        "grouping",
        steps,
        begin,
        partial(_batch, tokenizer, seed=seed),
        update,
        partial(save_denoiser, build, folder, settings, teacher.text_model, empty),
    )


def rates(highest: float, steps: int) -> optax.Schedule:
    """A learning rate that rises, stays, and falls to 0 at the end.

    The part before the fall is the same for every number of steps, so that a run can be
    made longer.
    """
    falling = round(_FALLING * steps)
    return optax.join_schedules(
        [
            optax.linear_schedule(0.0, highest, _WARM_UP),
            optax.linear_schedule(highest, 0.0, falling),
        ],
        [steps - falling],
    )


def _batch(tokenizer: Any, step: int, *, seed: int) -> Batch:
    """Windows for the denoiser, and whole photos with the names in their tiles."""
    step += _FIRST_STEP
    rng = np.random.default_rng((seed, step))
    first = first_seed(step) + _FIRST_PHOTO
    shown = [scenes.draw_scene(first + index) for index in range(_PHOTOS)]

    def squares(patch: int) -> np.ndarray:
        size = (patch * _GRID, patch * _GRID)
        return np.stack([images.resize_photo(each.pixels, size) for each in shown])

    batch = draw_captioned(tokenizer, _DENOISED, step, seed)
    batch |= {"photos": squares(_UNET_PATCH), "large": squares(_CLIP_PATCH)}
    batch["sentences"] = draw_sentences(tokenizer, rng)
    for margin in _MARGINS:
        tiles = [tile for each in shown for tile in _cut_labels(each.labels, margin)]
        batch[f"present{margin}"] = np.stack([present(tile) for tile in tiles])
    return batch


def _cut_labels(labels: np.ndarray, margin: int) -> Iterator[np.ndarray]:
    """What the tiles of a scene show; only the captions are made from it."""
    height, width = labels.shape
    starts = range(margin, _GRID - margin, _TILE)
    for row in starts:
        for column in starts:
            yield labels[_part(row, height), _part(column, width)]


def _part(start: int, length: int) -> slice:
    """Pixels under the patches of a tile."""
    return slice(start * length // _GRID, -(-(start + _TILE) * length // _GRID))


def grouping(
    denoiser: Denoiser,
    batch: OnDevice,
    key: Array,
    *,
    vae: VAE,
    clip: Clip,
    empty: Float[Array, "1 tokens channels"],
) -> tuple[Float[Array, ""], Metrics]:
    """The loss of the denoiser, and the loss of its attention.

    The attention is that of segmentation: without noise, with the empty prompt.
    """
    text: TextModel = clip.text_model
    error, metrics = denoising(denoiser, batch, key, vae=vae, text=text)
    names = jax.lax.stop_gradient(teach(clip, batch))
    found = denoiser(
        vae(normalised(batch["photos"])),
        denoiser.keys_values(empty),
        timestep=_TIMESTEP,
        taps=_TAPS,
    )
    losses = [grouped(names, _attention(tap)) for tap in found.values()]
    spread, leak, kept = (
        jnp.mean(jnp.stack(part)) for part in zip(*losses, strict=True)
    )
    metrics |= {"spread": spread, "leak": leak, "kept": kept}
    return error + _GROUPING_WEIGHT * (spread + leak), metrics


def teach(clip: Clip, batch: OnDevice) -> Float[Array, "photos patches classes"]:
    """The share of every name in every patch, the mean over the tiles around it."""
    sentences = clip.encode_text(batch["sentences"])
    scale = jnp.exp(jnp.minimum(clip.logit_scale[...], np.log(100.0)))
    total = jnp.zeros(())
    for margin in _MARGINS:
        edge = margin * _CLIP_PATCH
        inner = batch["large"][:, edge : -edge or None, edge : -edge or None]
        per_side = (_GRID - 2 * margin) // _TILE
        tiles = cut(inner, per_side).astype(jnp.float32) / 255.0
        features = clip.dense_features(tiles, attention="vanilla")
        logits = (
            scale * features.reshape(len(tiles), -1, features.shape[3]) @ sentences.T
        )
        named = batch[f"present{margin}"][:, None]
        share = jax.nn.softmax(jnp.where(named, logits, -jnp.inf), axis=2)
        side = per_side * _TILE
        share = joined(share, per_side).reshape(-1, side, side, len(sentences))
        outside = (margin, margin)
        total += jnp.pad(share, ((0, 0), outside, outside, (0, 0)))
    sharp = (total / total.sum(axis=3, keepdims=True)) ** _SHARPNESS
    sharp = sharp / sharp.sum(axis=3, keepdims=True)
    return sharp.reshape(len(sharp), _GRID**2, -1)


def _attention(tap: QueryKey) -> Float[Array, "photos patches patches"]:
    """The mean of the heads."""
    scores = jnp.einsum("bihd,bjhd->bhij", tap.query, tap.key)
    return jax.nn.softmax(scores * tap.query.shape[3] ** -0.5, axis=3).mean(axis=1)


def grouped(
    names: Float[Array, "photos patches classes"],
    attention: Float[Array, "photos patches patches"],
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """The losses of an attention, and the share that stays in its own group.

    Args:
        names: From ``teach``.
        attention: Rows sum to 1.

    Returns:
        The cross-entropy with the attention that is equal over the group of a patch;
        the negative log-share that stays in the group; and the mean of this share.
    """
    same = jnp.einsum("bic,bjc->bij", names, names)
    size = same.sum(axis=2)
    weight = size**-_BALANCE
    weight = weight / weight.sum()
    stays = (same * attention).sum(axis=2)
    fit = (same * jnp.log(attention + _LEAST)).sum(axis=2) / size
    leak = -jnp.log(stays + _LEAST)
    return -(weight * fit).sum(), (weight * leak).sum(), (weight * stays).sum()
