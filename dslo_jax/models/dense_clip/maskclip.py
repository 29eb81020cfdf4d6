"""MaskCLIP: in the last block every patch attends only to itself.

Zhou, Loy, Dai: Extract Free Dense Labels from CLIP, ECCV 2022 (arXiv 2112.01071).
"""

from dslo_jax.models.clip_config import ClipVisionConfig
from dslo_jax.models.dense_clip.vanilla import before_last
from dslo_jax.models.dense_clip.variant import (
    DenseInput,
    Layers,
    PatchTokens,
    Variant,
)
from dslo_jax.work import Work, product


def _run(layers: Layers, photos: DenseInput) -> PatchTokens:
    """Take the value of each patch as its attention.

    The output projection, the residual and the MLP are those of CLIP, as in the code of
    MaskCLIP for vision transformers.
    """
    last = layers[-1]
    patches = before_last(layers, photos)[:, 1:]
    values = last.self_attn.v_proj(last.layer_norm1(patches))
    patches = patches + last.self_attn.out_proj(values)
    return patches + last.mlp(last.layer_norm2(patches))


def _work(config: ClipVisionConfig, patches: int) -> Work:
    """Computation of values, output and MLP: 2 N (2 C^2 + 2 C I)."""
    size = config.hidden_size
    return product(patches, size, 2 * size + 2 * config.intermediate_size)


MASKCLIP = Variant(_run, _work)
