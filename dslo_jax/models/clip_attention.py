"""What the last block of CLIP's vision network makes of the patches: a registry.

CLIP was trained to summarise a photo in its class token. Its last block mixes patches
so strongly that their own features say little about where things are. Each entry of
``ATTENTIONS`` runs the blocks with a last one of its own, and knows what that costs. A
further one is a function, a formula and a line here, and nothing anywhere else.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dslo_jax.cost.work import Work, block, product
from dslo_jax.models.clip_config import ClipVisionConfig
from dslo_jax.models.clip_layers import (
    EncoderLayer,
    Heads,
    attention_weights,
    weighted_mean,
)


Tokens = Float[Array, "batch tokens channels"]
Patches = Float[Array, "batch patches channels"]


class LastBlock(NamedTuple):
    """A way to end CLIP's vision network.

    Attributes:
        run: From all blocks and the tokens before the first one, class token first, to
            the patches after the last one, before the last layer norm.
        work: What the last block costs, and what it needs of the others beyond their
            own work; from the sizes and the number of patches.
    """

    run: Callable[[Sequence[EncoderLayer], Tokens], Patches]
    work: Callable[[ClipVisionConfig, int], Work]


def _as_trained(layers: Sequence[EncoderLayer], hidden: Tokens) -> Patches:
    """CLIP's own: attention of queries to keys, residual, MLP."""
    for layer in layers:
        hidden = layer(hidden)
    return hidden[:, 1:]


def _work_as_trained(config: ClipVisionConfig, patches: int) -> Work:
    """A block on N + 1 tokens."""
    return block(patches + 1, config.hidden_size, config.intermediate_size)


def _mean_of_layers(
    layers: Sequence[EncoderLayer], hidden: Tokens, *, first: str, second: str
) -> Patches:
    """The last block's values, averaged with the mean weights of all layers.

    Head by head, without the class token, residual and MLP. Averaging is linear. So
    what each layer's weights make of the last values is added up, and the weights of
    one layer are held at a time, not their sum. The loop over layers is one of the
    compiler's: unrolled, it would keep the weights of all layers for the end.
    """

    def compared(heads: Heads) -> tuple[Array, Array]:
        return getattr(heads, first), getattr(heads, second)

    heads = layers[0].heads(hidden)
    pairs = [compared(heads)]
    for layer, following in itertools.pairwise(layers):
        hidden = layer.update(hidden, heads)
        heads = following.heads(hidden)
        pairs.append(compared(heads))
    # The class token takes part in every softmax, and passes nothing on.
    value = heads.value.at[:, :, 0].set(0)

    def add(mixed: Array, pair: tuple[Array, Array]) -> tuple[Array, None]:
        return mixed + weighted_mean(attention_weights(*pair), value), None

    rows, columns = (jnp.stack(part) for part in zip(*pairs, strict=True))
    mixed = jnp.zeros(value.shape, jnp.float32)
    mixed, _ = jax.lax.scan(add, mixed, (rows, columns))
    return layers[-1].self_attn.join(mixed[:, :, 1:] / len(layers))


def _work_mean_of_layers(
    config: ClipVisionConfig, patches: int, *, first: str, second: str
) -> Work:
    """Projections of N + 1 tokens, 2 N C^2 each, and the output, 2 N C^2.

    Two are projected where keys (or queries) meet themselves, else three. Weights and
    means of all layers, L 4 N^2 C, are a loop.
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


def _each_by_itself(layers: Sequence[EncoderLayer], hidden: Tokens) -> Patches:
    """MaskCLIP: in the last block every patch looks at itself alone.

    So its attention passes on the value as it is; the output projection, the residual
    and the MLP stay. Zhou, Loy, Dai: Extract Free Dense Labels from CLIP, ECCV 2022
    (arXiv 2112.01071), in the form of its code for vision transformers.
    """
    *before, last = layers
    for layer in before:
        hidden = layer(hidden)
    patches = hidden[:, 1:]
    values = last.self_attn.v_proj(last.layer_norm1(patches))
    patches = patches + last.self_attn.out_proj(values)
    return patches + last.mlp(last.layer_norm2(patches))


def _work_each_by_itself(config: ClipVisionConfig, patches: int) -> Work:
    """Values, output and MLP of N patches: 2 N (2 C^2 + 2 C I)."""
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
"""Every way by name: CLIP's own (``"vanilla"``); the values averaged with the mean over
all layers of softmax(q k.T), softmax(q q.T) or softmax(k k.T) (the paper's); and the
values as they are (``"maskclip"``)."""
