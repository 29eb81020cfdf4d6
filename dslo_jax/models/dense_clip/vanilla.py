"""CLIP as it was trained."""

from dslo_jax.models.clip_config import ClipVisionConfig
from dslo_jax.models.dense_clip.variant import (
    DenseInput,
    Layers,
    PatchTokens,
    Tokens,
    Variant,
)
from dslo_jax.work import Work, block


def before_last(layers: Layers, photos: DenseInput) -> Tokens:
    """Tokens before the last block."""
    hidden = photos.tokens
    for layer in layers[:-1]:
        hidden = layer(hidden, photos.mask)
    return hidden


def _run(layers: Layers, photos: DenseInput) -> PatchTokens:
    """Run all blocks as in CLIP: attention of queries to keys, residual, MLP."""
    return layers[-1](before_last(layers, photos), photos.mask)[:, 1:]


def _work(config: ClipVisionConfig, patches: int) -> Work:
    """Computation of a block on N + 1 tokens."""
    return block(patches + 1, config.hidden_size, config.intermediate_size)


VANILLA = Variant(_run, _work)
"""CLIP as it was trained. Radford et al.: Learning Transferable Visual Models From
Natural Language Supervision, ICML 2021 (arXiv 2103.00020)."""
