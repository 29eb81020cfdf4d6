"""GEM: the grounding everything module.

Bousselham, Petersen, Ferrari, Kuehne: Grounding Everything: Emerging Localization
Properties in Vision-Language Transformers, CVPR 2024 (arXiv 2312.00878); WalBouss/GEM,
gem/gem_wrapper.py and gem/gem_utils.py.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dslo_jax.models.clip_config import ClipVisionConfig
from dslo_jax.models.clip_layers import (
    Heads,
    Mask,
    attention_weights,
    unit,
    weighted_mean,
)
from dslo_jax.models.dense_clip.dual_path import run_dual_path, work_of_dual_path
from dslo_jax.models.dense_clip.variant import Tokens, Variant
from dslo_jax.work import Work, product


# How often the vectors are replaced by their own averages before the values are
# averaged: ``ss_attn_iter`` in gem_wrapper.py.
_ROUNDS = 1


def _mix(
    normalised: Tokens, heads: Heads, mask: Mask | None
) -> Float[Array, "batch heads patches size"]:
    """Average with the mean of three attentions: q to q, k to k, and v to v.

    Vectors are scaled to length 1 before they are compared, and averaged with their own
    weights first. The inverse temperature is the mean length of the normalised tokens
    over sqrt(size), one number for each photo. The class token is one of the columns.
    The loop over the three is a ``scan``, so that it holds the weights of one only.
    """
    strength = _mean_length(normalised, mask)[:, None, None, None]
    kind = heads.value.dtype

    def weights_of(vectors: Array, first: int) -> Array:
        rows = (strength * vectors[:, :, first:]).astype(kind)
        return attention_weights(rows, vectors.astype(kind), mask)

    def add(mixed: Array, vectors: Array) -> tuple[Array, None]:
        vectors = unit(vectors)
        for _ in range(_ROUNDS):
            averages = weighted_mean(weights_of(vectors, 0), vectors.astype(kind))
            vectors = unit(averages)
        return mixed + weighted_mean(weights_of(vectors, 1), heads.value), None

    batch, count, tokens, size = heads.value.shape
    mixed = jnp.zeros((batch, count, tokens - 1, size), jnp.float32)
    mixed, _ = jax.lax.scan(add, mixed, jnp.stack(heads))
    return mixed / len(heads)


def _mean_length(tokens: Tokens, mask: Mask | None) -> Float[Array, " batch"]:
    """Mean length of the tokens of each photo, without padding."""
    lengths = jnp.linalg.norm(tokens.astype(jnp.float32), axis=-1)
    if mask is None:
        return lengths.mean(axis=1)
    is_real = jnp.broadcast_to(mask[:, 0], lengths.shape)
    return lengths.mean(axis=1, where=is_real)


def _work(config: ClipVisionConfig, patches: int) -> Work:
    """Computation: a loop over three attentions in each of six blocks.

    2 (N + 1) 3 C^2 in the last block; 3 (4 (N + 1)^2 C + 4 N (N + 1) C) + 2 N C^2 in
    each of the six.
    """
    size, tokens = config.hidden_size, patches + 1
    averages = product(tokens, size, tokens).times(2 * _ROUNDS)
    mixing = (averages + product(patches, size, tokens).times(2)).looped(3)
    return work_of_dual_path(config, patches, projected=3, mixing=mixing)


GEM = Variant(partial(run_dual_path, mix=_mix), _work)
