"""ClearCLIP: queries attend to queries, without residual and MLP.

Lan, Chen, Ke, Wang, Feng, Zhang: ClearCLIP: Decomposing CLIP Representations for Dense
Vision-Language Inference, ECCV 2024 (arXiv 2407.12442); mc-lan/ClearCLIP,
open_clip/transformer.py.
"""

from dslo_jax.models.clip_config import ClipVisionConfig
from dslo_jax.models.clip_layers import attention_weights, weighted_mean
from dslo_jax.models.dense_clip.vanilla import before_last
from dslo_jax.models.dense_clip.variant import (
    DenseInput,
    Layers,
    PatchTokens,
    Variant,
)
from dslo_jax.work import Work, product


def _run(layers: Layers, photos: DenseInput) -> PatchTokens:
    """Reduce the last block to its attention with the weights softmax(q q.T).

    The weights have the scale of CLIP, and the class token is one of the columns.
    """
    last = layers[-1]
    heads = last.heads(before_last(layers, photos))
    weights = attention_weights(heads.query[:, :, 1:], heads.query, photos.mask)
    return last.self_attn.join(weighted_mean(weights, heads.value))


def work_of_attention(config: ClipVisionConfig, patches: int) -> Work:
    """Computation of an attention that compares one kind of vectors with themselves.

    2 (N + 1) 2 C^2 for these vectors and the values, 4 N (N + 1) C for the weights of
    the patches and the means, 2 N C^2 for the output.
    """
    size, tokens = config.hidden_size, patches + 1
    work = product(tokens, size, 2 * size) + product(patches, size, size)
    return work + product(patches, size, tokens).times(2)


CLEARCLIP = Variant(_run, work_of_attention)
