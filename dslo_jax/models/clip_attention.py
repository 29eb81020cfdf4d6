"""A registry of attentions for the last block of CLIP's vision network.

CLIP was trained to summarise a photo in its class token. Its last block mixes patches
so strongly that their features contain little about where objects are. Each entry of
``ATTENTIONS`` runs all blocks with another last block, and has a formula for its
computation. A new entry needs a function, a formula and a line in this file only.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dslo_jax.models.clip_config import ClipVisionConfig
from dslo_jax.models.clip_layers import (
    EncoderLayer,
    Heads,
    Mask,
    attention_weights,
    weighted_mean,
)
from dslo_jax.work import Work, block, product


Tokens = Float[Array, "batch tokens channels"]
PatchTokens = Float[Array, "batch patches channels"]


class LastBlock(NamedTuple):
    """A variant of the last block of CLIP's vision network.

    Attributes:
        run: Function of all blocks, of the tokens before the first block (class token
            first), and of a mask that returns the patches after the last block, before
            the last layer norm. Every attention between tokens must obey the mask: it
            is False for the padding of a sequence.
        work: Function of the sizes and of the number of patches that returns the
            computation of the last block, and its further computation in the others.
    """

    run: Callable[[Sequence[EncoderLayer], Tokens, Mask | None], PatchTokens]
    work: Callable[[ClipVisionConfig, int], Work]


def _as_trained(
    layers: Sequence[EncoderLayer], hidden: Tokens, mask: Mask | None
) -> PatchTokens:
    """Run all blocks as in CLIP: attention of queries to keys, residual, MLP."""
    for layer in layers:
        hidden = layer(hidden, mask)
    return hidden[:, 1:]


def _work_as_trained(config: ClipVisionConfig, patches: int) -> Work:
    """Computation of a block on N + 1 tokens."""
    return block(patches + 1, config.hidden_size, config.intermediate_size)


def _mean_of_layers(
    layers: Sequence[EncoderLayer],
    hidden: Tokens,
    mask: Mask | None,
    *,
    first: str,
    second: str,
) -> PatchTokens:
    """Average the values of the last block with the mean weights of all layers.

    This is done for each head, without class token, residual and MLP. Averaging is
    linear, so the values are averaged with the weights of each layer in turn, and the
    results are added up. Only the weights of one layer are held at a time. The loop
    over layers is a ``scan``, because an unrolled loop would hold the weights of all
    layers until its end.
    """

    def compared(heads: Heads) -> tuple[Array, Array]:
        return getattr(heads, first), getattr(heads, second)

    heads = layers[0].heads(hidden)
    pairs = [compared(heads)]
    for layer, following in itertools.pairwise(layers):
        hidden = layer.update(hidden, heads, mask)
        heads = following.heads(hidden)
        pairs.append(compared(heads))
    # The class token takes part in every softmax, but has no value to add.
    value = heads.value.at[:, :, 0].set(0)

    def add(mixed: Array, pair: tuple[Array, Array]) -> tuple[Array, None]:
        return mixed + weighted_mean(attention_weights(*pair, mask), value), None

    rows, columns = (jnp.stack(part) for part in zip(*pairs, strict=True))
    mixed = jnp.zeros(value.shape, jnp.float32)
    mixed, _ = jax.lax.scan(add, mixed, (rows, columns))
    return layers[-1].self_attn.join(mixed[:, :, 1:] / len(layers))


def _work_mean_of_layers(
    config: ClipVisionConfig, patches: int, *, first: str, second: str
) -> Work:
    """Computation: projections of N + 1 tokens, and the output, 2 N C^2 each.

    There are two projections for products of keys (or queries) with themselves, else
    three. Weights and means of all layers, L 4 N^2 C, are computed in a loop.
    """
    size, tokens = config.hidden_size, patches + 1
    projected = len({first, second, "value"})
    work = product(tokens, size, projected * size) + product(patches, size, size)
    mean = product(tokens, size, tokens).times(2)
    return work + mean.looped(config.num_hidden_layers)


def _mean(first: str, second: str) -> LastBlock:
    return LastBlock(
        partial(_mean_of_layers, first=first, second=second),
        partial(_work_mean_of_layers, first=first, second=second),
    )


def _each_by_itself(
    layers: Sequence[EncoderLayer], hidden: Tokens, mask: Mask | None
) -> PatchTokens:
    """Run MaskCLIP: in the last block every patch attends only to itself.

    The attention of a patch is then its value. The output projection, the residual and
    the MLP are those of CLIP. Zhou, Loy, Dai: Extract Free Dense Labels from CLIP, ECCV
    2022 (arXiv 2112.01071), as in its code for vision transformers.
    """
    *before, last = layers
    for layer in before:
        hidden = layer(hidden, mask)
    patches = hidden[:, 1:]
    values = last.self_attn.v_proj(last.layer_norm1(patches))
    patches = patches + last.self_attn.out_proj(values)
    return patches + last.mlp(last.layer_norm2(patches))


def _work_each_by_itself(config: ClipVisionConfig, patches: int) -> Work:
    """Computation of values, output and MLP: 2 N (2 C^2 + 2 C I)."""
    size = config.hidden_size
    return product(patches, size, 2 * size + 2 * config.intermediate_size)


ATTENTIONS: Mapping[str, LastBlock] = MappingProxyType(
    {
        "vanilla": LastBlock(_as_trained, _work_as_trained),
        "qk_mean": _mean("query", "key"),
        "qq_mean": _mean("query", "query"),
        "kk_mean": _mean("key", "key"),
        "maskclip": LastBlock(_each_by_itself, _work_each_by_itself),
    }
)
"""All variants by name. ``"vanilla"``: the block of CLIP. ``"qk_mean"``, ``"qq_mean"``
and ``"kk_mean"`` (the paper's choice): values averaged with the mean over all layers of
softmax(q k.T), softmax(q q.T) or softmax(k k.T). ``"maskclip"``: the value of each
patch."""
