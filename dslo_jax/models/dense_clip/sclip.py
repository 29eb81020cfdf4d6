"""SCLIP: queries attend to queries, and keys to keys.

Wang, Mei, Yuille: SCLIP: Rethinking Self-Attention for Dense Vision-Language Inference,
ECCV 2024 (arXiv 2312.01597); wangf3014/SCLIP, clip/model.py.
"""

from dslo_jax.models.clip_config import ClipVisionConfig
from dslo_jax.models.dense_clip.mixing import sum_of_averages
from dslo_jax.models.dense_clip.vanilla import before_last
from dslo_jax.models.dense_clip.variant import (
    DenseInput,
    Layers,
    PatchTokens,
    Variant,
)
from dslo_jax.work import Work, product


def _run(layers: Layers, photos: DenseInput) -> PatchTokens:
    """Replace the weights of the last block by softmax(q q.T) + softmax(k k.T).

    The sum is not halved. Both have the scale of CLIP and the class token; the residual
    and the MLP stay.
    """
    last = layers[-1]
    hidden = before_last(layers, photos)
    heads = last.heads(hidden)
    pairs = [(heads.query, heads.query), (heads.key, heads.key)]
    mixed = sum_of_averages(pairs, heads.value, photos.mask)
    patches = hidden[:, 1:] + last.self_attn.join(mixed[:, :, 1:])
    return patches + last.mlp(last.layer_norm2(patches))


def _work(config: ClipVisionConfig, patches: int) -> Work:
    """Computation: a block with two attentions in a loop.

    2 (N + 1) 3 C^2 for queries, keys and values, 2 * 4 (N + 1)^2 C for the attentions,
    2 N (C^2 + 2 C I) for output and MLP.
    """
    size, tokens = config.hidden_size, patches + 1
    work = product(tokens, size, 3 * size)
    work += product(tokens, size, tokens).times(2).looped(2)
    return work + product(patches, size, size + 2 * config.intermediate_size)


SCLIP = Variant(_run, _work)
