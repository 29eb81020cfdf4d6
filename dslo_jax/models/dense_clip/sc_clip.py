"""SC-CLIP: CLIP calibrated by the similarity of its own patches in early blocks.

Bai, Liu, Han, Zhang, Tang: Self-Calibrated CLIP for Training-Free Open-Vocabulary
Segmentation, IEEE Transactions on Image Processing 2025 (arXiv 2411.15869);
SuleBai/SC-CLIP, clip/model.py. Its constants are published for 12 blocks (ViT-B/16).
With another number of blocks we take those at the same share of the depth.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dslo_jax.models.clip_config import ClipVisionConfig
from dslo_jax.models.clip_layers import (
    EncoderLayer,
    attention_weights,
    unit,
    weighted_mean,
)
from dslo_jax.models.dense_clip.outliers import find_outliers, repair
from dslo_jax.models.dense_clip.variant import (
    DenseInput,
    Layers,
    PatchTokens,
    Tokens,
    Variant,
)
from dslo_jax.work import Work, product


# Blocks of twelve, counted from 1; clip/model.py counts from 0.
_OF = 12
_MIDDLE = 9  # its output is compared before the last block: ``pre_adjust_idx=8``
_EARLY = 4  # its output is compared after the last block: ``post_adjust_idx=3``
_FIRST, _LAST = 4, 10  # summed: ``multi_start_idx=3`` up to ``multi_end_idx=10``
_LEAST = 0.4  # cosines below it are ignored: ``beta``
_SHARPNESS = 3.0  # of the attention of cosines, in ``custom_attn``
_CLASS = 0.3  # share of the class token: ``res_cls``

Cosines = Float[Array, "batch patches patches"]
IsReal = Bool[Array, "#batch patches"]


def _run(layers: Layers, photos: DenseInput) -> PatchTokens:
    """Repair outliers, calibrate the patches, and add a second pass.

    1. Outliers before the last block are replaced by the mean of their neighbours.
    2. Patches are averaged with their cosines in a middle block.
    3. The last block is reduced to its attention (see ``_attend``).
    4. The same attention is applied to the sum of the tokens of several blocks.
    5. The sum of both is averaged with the cosines of the patches in an early block.
    """
    states = [photos.tokens]
    for layer in layers[:-1]:
        states.append(layer(states[-1], photos.mask))
    is_real = _is_real(photos)
    middle, early, first, last = (
        _same_share(number, len(layers)) for number in (_MIDDLE, _EARLY, _FIRST, _LAST)
    )
    is_outlier = find_outliers(states[-1][:, 1:], is_real)
    cosines = _cosines(repair(states[middle][:, 1:], is_outlier, photos))
    repaired = repair(states[-1][:, 1:], is_outlier, photos)
    calibrated = _average(repaired, cosines, is_real)
    deep = jnp.concatenate([states[-1][:, :1], calibrated], axis=1)
    several = sum(states[first + 1 : last + 1], start=states[first])
    weights = _weights_of(cosines, is_real)

    def add(total: Array, tokens: Array) -> tuple[Array, None]:
        return total + _attend(layers[-1], tokens, weights, is_real), None

    # A scan holds the weights of all heads for one pass only.
    patches = jnp.zeros_like(calibrated)
    patches, _ = jax.lax.scan(add, patches, jnp.stack([deep, several]))
    return _average(patches, _cosines(states[early][:, 1:]), is_real)


def _is_real(photos: DenseInput) -> IsReal:
    if photos.mask is None:
        return jnp.ones((1, photos.tokens.shape[1] - 1), bool)
    return photos.mask[:, 0, 1:]


def _same_share(number: int, depth: int) -> int:
    """A block at the same share of the depth, but never the last one."""
    return min((number * depth + _OF // 2) // _OF, depth - 1)


def _cosines(patches: PatchTokens) -> Cosines:
    """Float32 cosines of all pairs of patches."""
    patches = unit(patches).astype(patches.dtype)
    return jnp.einsum(
        "bic,bjc->bij", patches, patches, preferred_element_type=jnp.float32
    )


def _average(patches: PatchTokens, cosines: Cosines, is_real: IsReal) -> PatchTokens:
    """Average the patches with their cosines; small cosines count as 0."""
    weights = jnp.where(is_real[:, None] & (cosines >= _LEAST), cosines, 0)
    mixed = jnp.einsum(
        "bij,bjc->bic",
        weights.astype(patches.dtype),
        patches,
        preferred_element_type=jnp.float32,
    )
    total = weights.sum(axis=2, keepdims=True) + 1e-6
    return (mixed / total).astype(patches.dtype)


def _weights_of(cosines: Cosines, is_real: IsReal) -> Cosines:
    """Attention of cosines: softmax(3 (c - mean)), for cosines of the mean and above.

    The mean is that over all pairs of patches of the photo.
    """
    is_pair = is_real[:, :, None] & is_real[:, None]
    mean = cosines.mean(axis=(1, 2), keepdims=True, where=is_pair)
    scores = _SHARPNESS * (cosines - mean)
    scores = jnp.where(scores < 0, jnp.finfo(jnp.float32).min, scores)
    return jax.nn.softmax(jnp.where(is_real[:, None], scores, -jnp.inf), axis=2)


def _attend(
    last: EncoderLayer, tokens: Tokens, weights: Cosines, is_real: IsReal
) -> PatchTokens:
    """Reduce the last block to its attention, and add a share of the class token.

    The weights are the mean of softmax(k k.T) with the scale of CLIP, and of the
    attention of cosines. They are over patches only. There is no residual and no MLP.
    """
    heads = last.heads(tokens[:, 1:])
    own = attention_weights(heads.key, heads.key, is_real[:, None])
    mixed = weighted_mean((own + weights[:, None]) / 2, heads.value)
    return last.self_attn.join(mixed) + _CLASS * tokens[:, :1]


def _work(config: ClipVisionConfig, patches: int) -> Work:
    """Computation: 2 N^2 C for distances, and for each of two kinds of cosines.

    2 N^2 C for each of two averages; 2 N 3 C^2 + 4 N^2 C for each of two attentions in
    a loop.
    """
    size = config.hidden_size
    pairs = product(patches, size, patches)
    attention = product(patches, size, 3 * size) + pairs.times(2)
    return pairs.times(5) + attention.looped(2)


SC_CLIP = Variant(_run, _work)
