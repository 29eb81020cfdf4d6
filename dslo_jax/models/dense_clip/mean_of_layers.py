"""The mean over all layers of one kind of attention (the paper's "k-k mean")."""

import itertools
from functools import partial

from jaxtyping import Array

from dslo_jax.models.clip_config import ClipVisionConfig
from dslo_jax.models.clip_layers import Heads
from dslo_jax.models.dense_clip.mixing import sum_of_averages
from dslo_jax.models.dense_clip.variant import (
    DenseInput,
    Layers,
    PatchTokens,
    Variant,
)
from dslo_jax.work import Work, product


def mean_of_layers(first: str, second: str) -> Variant:
    """Average the values of the last block with the mean weights of all layers.

    The weights of a layer are softmax(first @ second.T / sqrt(size)). ``"key"`` twice
    is the choice of the paper (Table 3).

    Args:
        first: ``"query"`` or ``"key"``.
        second: ``"query"`` or ``"key"``.
    """
    return Variant(
        partial(_run, first=first, second=second),
        partial(_work, first=first, second=second),
    )


def _run(layers: Layers, photos: DenseInput, *, first: str, second: str) -> PatchTokens:
    """Average the values, for each head, without class token, residual and MLP.

    Averaging is linear, so the mean of the weights is the mean of the averages.
    """

    def compared(heads: Heads) -> tuple[Array, Array]:
        return getattr(heads, first), getattr(heads, second)

    hidden, mask = photos.tokens, photos.mask
    heads = layers[0].heads(hidden)
    pairs = [compared(heads)]
    for layer, following in itertools.pairwise(layers):
        hidden = layer.update(hidden, heads, mask)
        heads = following.heads(hidden)
        pairs.append(compared(heads))
    # The class token takes part in every softmax, but has no value to add.
    value = heads.value.at[:, :, 0].set(0)

    mixed = sum_of_averages(pairs, value, mask)
    return layers[-1].self_attn.join(mixed[:, :, 1:] / len(layers))


def _work(config: ClipVisionConfig, patches: int, *, first: str, second: str) -> Work:
    """Computation: projections of N + 1 tokens, and the output, 2 N C^2 each.

    There are two projections for products of keys (or queries) with themselves, else
    three. Weights and means of all layers, L 4 N^2 C, are computed in a loop.
    """
    size, tokens = config.hidden_size, patches + 1
    projected = len({first, second, "value"})
    work = product(tokens, size, projected * size) + product(patches, size, size)
    mean = product(tokens, size, tokens).times(2)
    return work + mean.looped(config.num_hidden_layers)
