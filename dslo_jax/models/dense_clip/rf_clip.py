"""RF-CLIP: patches are denoised in every block, and then averaged with like patches.

As in ``clip/model.py`` of liblacklucy/RF-CLIP (AAAI 2026). Its attention of the early
blocks is that of CLIP, because the step that changes it (``strategy="refocus"``) is not
switched on there. The following parts of its pipeline are not steps of a network and
are left out: class names adapted to the photo, the logit of the class token that is
added to all patches, sliding windows and PAMR. Its weights for them were chosen for
each benchmark.
"""

import itertools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dslo_jax.models.clip_config import ClipVisionConfig
from dslo_jax.models.clip_layers import (
    EncoderLayer,
    Heads,
    Mask,
    attention_weights,
    unit,
    weighted_mean,
)
from dslo_jax.models.dense_clip.mixing import sum_of_averages
from dslo_jax.models.dense_clip.neighbours import neighbour
from dslo_jax.models.dense_clip.variant import (
    DenseInput,
    Layers,
    PatchTokens,
    Tokens,
    Variant,
)
from dslo_jax.work import Work, block, product


# Channels in which some patches store what belongs to the whole photo, by width and
# number of blocks: of OpenAI's ViT-B/16 and ViT-L/14. They belong to these weights; for
# CLIPs of other shapes there are none, and nothing is denoised.
_CHANNELS = {
    (768, 12): (4, 162, 189, 326, 429, 474, 633, 713),
    (1024, 24): (250, 261, 437, 650, 720, 779, 936, 1005),
}
_LEAST_SHARE = 5.0  # of such a channel, relative to the mean of all: ``sigma``
_STRENGTH = 0.4  # of the denoising: ``alpha``
_LEAST_COSINE = 0.4  # of patches that are averaged: ``beta`` of ``feat_enhancing``
_SQUARE = tuple(itertools.product((-1, 0, 1), (-1, 0, 1)))


def _run(layers: Layers, photos: DenseInput) -> PatchTokens:
    """Denoise every block, and read the last one for two averages of like patches.

    1. Patches with a strong channel of ``_CHANNELS`` move towards the mean of the 3 x 3
       patches around them, after every block.
    2. The cosines of the mean of the patches over all blocks, where they are 0.4 or
       more, are weights for two sums: of the patches before the last block, and of that
       mean itself.
    3. Both are read by the last block as with "kk_mean": no residual, no MLP, and the
       weights softmax(k k.T) are averaged over all blocks, without the class token.
    4. The features are the mean of both.
    """
    hidden, mask, pairs = photos.tokens, photos.mask, []
    total = jnp.zeros(hidden.shape, jnp.float32)
    before = hidden
    for layer in layers:
        before, heads = hidden, layer.heads(hidden)
        pairs.append((heads.key, heads.key))
        hidden = _denoised(layer.update(hidden, heads, mask), photos, len(layers))
        total += hidden.astype(jnp.float32)
    guide = (total / len(layers)).astype(hidden.dtype)
    weights = _like(guide[:, 1:], mask)
    read = [layers[-1].heads(_enhanced(tokens, weights)) for tokens in (before, guide)]
    return _decoded(layers[-1], pairs[:-1], read, mask)


def _denoised(tokens: Tokens, photos: DenseInput, depth: int) -> Tokens:
    """Move the patches that store something else towards the patches around them."""
    channels = _CHANNELS.get((tokens.shape[-1], depth))
    if channels is None:
        return tokens
    patches = tokens[:, 1:].astype(jnp.float32)
    above = patches - patches.min(axis=-1, keepdims=True)
    share = above / jnp.maximum(above.sum(axis=-1, keepdims=True), 1e-8)
    strongest = share[..., np.array(channels)].max(axis=-1, keepdims=True)
    is_noisy = strongest > _LEAST_SHARE / patches.shape[-1]
    around = jnp.zeros_like(patches)
    for step in _SQUARE:
        is_inside, number = neighbour(photos, step)
        values = jnp.take_along_axis(patches, number[..., None], axis=1)
        around += jnp.where(is_inside[..., None], values, 0)  # outside counts as 0
    moved = patches + _STRENGTH * (around / len(_SQUARE) - patches)
    patches = jnp.where(is_noisy, moved, patches).astype(tokens.dtype)
    return jnp.concatenate([tokens[:, :1], patches], axis=1)


def _like(
    patches: PatchTokens, mask: Mask | None
) -> Float[Array, "batch patches patches"]:
    """Cosines of all pairs of patches; those below 0.4 and of the padding are 0."""
    features = unit(patches)
    cosines = jnp.einsum("bic,bjc->bij", features, features)
    kept = cosines >= _LEAST_COSINE
    if mask is not None:
        kept &= mask[:, :, 1:]
    return jnp.where(kept, cosines, 0)


def _enhanced(tokens: Tokens, weights: Float[Array, "batch patches patches"]) -> Tokens:
    """Replace every patch by the weighted sum of the patches that are like it."""
    patches = jnp.einsum(
        "bij,bjc->bic",
        weights.astype(tokens.dtype),
        tokens[:, 1:],
        preferred_element_type=jnp.float32,
    )
    return jnp.concatenate([tokens[:, :1], patches.astype(tokens.dtype)], axis=1)


def _decoded(
    last: EncoderLayer,
    pairs: list[tuple[Array, Array]],
    read: list[Heads],
    mask: Mask | None,
) -> PatchTokens:
    """The mean of two readings of the last block; see ``mean_of_layers``."""
    values = [heads.value.at[:, :, 0].set(0) for heads in read]
    size = values[0].shape[-1]
    own = [
        weighted_mean(attention_weights(heads.key, heads.key, mask), value)
        for heads, value in zip(read, values, strict=True)
    ]
    mixed = own[0] + own[1]
    if pairs:  # the weights of the other blocks serve both readings
        both = sum_of_averages(pairs, jnp.concatenate(values, axis=-1), mask)
        mixed += both[..., :size] + both[..., size:]
    # The output projection is linear: that of the mean is the mean of both.
    return last.self_attn.join(mixed[:, :, 1:] / (2 * (len(pairs) + 1)))


def _work(config: ClipVisionConfig, patches: int) -> Work:
    """Computation: the last block, and two readings of it, on T = N + 1 tokens.

    2 N^2 C for cosines and for each of two sums. Each reading: keys and values,
    4 T C^2, and 4 T^2 C. The other blocks, in a loop: 6 T^2 C each. The output:
    2 N C^2.
    """
    size, tokens = config.hidden_size, patches + 1
    pairs = product(tokens, size, tokens)
    work = block(tokens, size, config.intermediate_size)
    work += product(patches, size, patches).times(3)
    work += (product(tokens, size, 2 * size) + pairs.times(2)).times(2)
    work += pairs.times(3).looped(config.num_hidden_layers - 1)
    return work + product(patches, size, size)


RF_CLIP = Variant(_run, _work)
