"""The losses of CLIP, between pictures and sentences and between patches and names."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Shaped

from dslo_jax.demo.train.recipe import Metrics, OnDevice
from dslo_jax.models.clip import Clip, unit


# Rounds of the distribution, and how strongly a round moves towards equal parts. With
# 1, a cloud would get as many patches as the sky.
_SHARING_ROUNDS, _SHARING_FORCE = 8, 0.5
# Scale of the softmax that chooses the patches of a sentence.
_SHARPNESS = 30.0
_LEAST = 1e-5  # least share

PatchLoss = Callable[[Array, Array], Float[Array, ""]]
"""Function of logits [windows, patches, classes] and present [windows, classes]."""


def loss(
    clip: Clip, batch: OnDevice, key: Array, *, patch_loss: PatchLoss
) -> tuple[Float[Array, ""], Metrics]:
    """The sum of the three losses, and each loss; ``key`` is not used."""
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
    clip: Clip, batch: OnDevice, key: Array, *, also: Sequence[str] = ()
) -> tuple[Float[Array, ""], Metrics]:
    """The same losses for tiles, and a loss of the windows with the tiles' shares.

    Args:
        clip: The network.
        batch: Of ``draw_batch``.
        key: Not used.
        also: Further attentions of the last block whose patches match the tiles, too.
    """
    del key
    token, patches = _embed_pictures(clip, batch["pixels"])
    per_side = math.isqrt(len(batch["present"]) // len(patches))
    _, near = _embed_pictures(clip, cut(batch["pixels"], per_side))
    sentences = clip.encode_text(batch["sentences"])
    logits = _patch_logits(clip, near, sentences)
    goal = shares(logits, batch["present"])
    whole = joined(goal, per_side)
    parts = {
        "caption": _caption_loss(clip, token, batch),
        "patch": _cross_entropy(goal, logits),
        "sentence": found(logits, batch["present"]),
        "window": _cross_entropy(whole, _patch_logits(clip, patches, sentences)),
    }
    for attention in also:
        grid = clip.dense_features(
            batch["pixels"].astype(jnp.float32) / 255.0, attention=attention
        )
        mixed = _patch_logits(clip, grid.reshape(patches.shape), sentences)
        parts[attention] = _cross_entropy(whole, mixed)
    return _sum_of(parts), parts


def _sum_of(parts: Metrics) -> Float[Array, ""]:
    """The sum of the losses."""
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


def cut(
    pixels: Array, per_side: int
) -> Shaped[Array, "tiles tile_height tile_width 3"]:
    """Cut windows into tiles, row by row."""
    count, side, _, channels = pixels.shape
    split = pixels.reshape(count, per_side, side // per_side, per_side, -1, channels)
    return split.swapaxes(2, 3).reshape(-1, *split.shape[2::2], channels)


def joined(
    share: Float[Array, "tiles tile_patches classes"], per_side: int
) -> Float[Array, "windows patches classes"]:
    """Join the patches of tiles to the patches of their windows."""
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
    """The symmetric loss of CLIP; several captions may be true of a picture."""
    target = same.astype(jnp.float32)
    target = target / target.sum(axis=1, keepdims=True)
    rows = optax.softmax_cross_entropy(logits, target).mean()
    return (rows + optax.softmax_cross_entropy(logits.T, target).mean()) / 2


def explained(
    logits: Float[Array, "windows patches classes"],
    present: Bool[Array, "windows classes"],
) -> Float[Array, ""]:
    """Negative log-probability of the names of a window, for its patches."""
    allowed = jnp.where(present[:, None], logits, -jnp.inf)
    log_share = jax.nn.logsumexp(allowed, axis=2) - jax.nn.logsumexp(logits, axis=2)
    return -log_share.mean()


def shared_out(
    logits: Float[Array, "windows patches classes"],
    present: Bool[Array, "windows classes"],
) -> Float[Array, ""]:
    """Cross-entropy of the patches with the shares of the names."""
    return _cross_entropy(shares(logits, present), logits)


def shares(
    logits: Float[Array, "windows patches classes"],
    present: Bool[Array, "windows classes"],
) -> Float[Array, "windows patches classes"]:
    """Distribute patches over the names of their window, without gradients.

    Rounds of columns and rows balance the shares, as in optimal transport with a
    relaxed marginal. The goal is that each name has an equal part of every window that
    mentions it.
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
    """Negative log-probability of each sentence in the best patches of its window."""
    log_probability = jax.nn.log_softmax(logits, axis=2)
    picks = jax.nn.softmax(jnp.exp(log_probability) * _SHARPNESS, axis=1)
    fit = (jax.lax.stop_gradient(picks) * log_probability).sum(axis=1)
    return -jnp.where(present, fit, 0.0).sum() / present.sum(dtype=jnp.float32)
