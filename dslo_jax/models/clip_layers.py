"""The transformer of both halves of CLIP.

Attributes are named as the tensors of the checkpoint (``self_attn.q_proj``, ...).
Parameters may be bfloat16 or float16: a block computes in their type, except that
softmax and the statistics of layer norms are float32.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from dslo_jax.models.clip_config import ClipTextConfig, ClipVisionConfig
from dslo_jax.models.layer_norm import LayerNorm


Mask = Bool[Array, "#batch #rows tokens"]
"""True where the token of a row may attend to the token of a column. An axis of length
1 stands for all photos or for all rows."""


class Heads(NamedTuple):
    """Queries, keys and values of the attention of one block, for every head.

    Args:
        query: Queries of the tokens.
        key: Keys of the tokens.
        value: Values of the tokens.
    """

    query: Float[Array, "batch heads tokens size"]
    key: Float[Array, "batch heads tokens size"]
    value: Float[Array, "batch heads tokens size"]


def attention_weights(
    first: Float[Array, "batch heads rows size"],
    second: Float[Array, "batch heads tokens size"],
    mask: Mask | None = None,
    bias: Float[Array, "#batch #heads rows tokens"] | None = None,
) -> Float[Array, "batch heads rows tokens"]:
    """Attention weights: softmax over columns of first @ second.T / sqrt(size) + bias.

    Args:
        first: Queries, or other vectors; one row of weights for each.
        second: Keys, or other vectors; one column of weights for each token.
        mask: True where a row may attend to a column; every row needs one True.
        bias: Added before the softmax.

    Returns:
        Float32 weights, rows sum to 1.

    Memory:
        4 * batch * heads * rows * tokens bytes.
    """
    products = jnp.einsum(
        "bhid,bhjd->bhij", first, second, preferred_element_type=jnp.float32
    )
    products = products * first.shape[-1] ** -0.5
    if bias is not None:
        products = products + bias
    if mask is not None:
        products = jnp.where(mask[:, None], products, -jnp.inf)
    return jax.nn.softmax(products, axis=-1)


def weighted_mean(
    weights: Float[Array, "batch heads rows tokens"],
    value: Float[Array, "batch heads tokens size"],
) -> Float[Array, "batch heads rows size"]:
    """Average the values with attention weights: weights @ value.

    Args:
        weights: From ``attention_weights``.
        value: Values of the tokens.

    Returns:
        Float32 sums, whatever the type of the values.
    """
    return jnp.einsum(
        "bhij,bhjd->bhid",
        weights.astype(value.dtype),
        value,
        preferred_element_type=jnp.float32,
    )


def unit(features: Float[Array, "*any dim"]) -> Float[Array, "*any dim"]:
    """Scale features to length 1 in float32; a zero feature stays zero."""
    features = features.astype(jnp.float32)
    norm = jnp.linalg.norm(features, axis=-1, keepdims=True)
    return features / jnp.maximum(norm, np.finfo(np.float32).tiny)


class Attention(nnx.Module):
    """Multi-head self-attention.

    Args:
        config: Sizes.
        rngs: Streams that initialise the parameters.
    """

    def __init__(self, config: ClipTextConfig | ClipVisionConfig, *, rngs: nnx.Rngs):
        self.num_heads = config.num_attention_heads
        size = config.hidden_size
        self.q_proj = nnx.Linear(size, size, rngs=rngs)
        self.k_proj = nnx.Linear(size, size, rngs=rngs)
        self.v_proj = nnx.Linear(size, size, rngs=rngs)
        self.out_proj = nnx.Linear(size, size, rngs=rngs)

    def heads(self, hidden: Float[Array, "batch tokens channels"]) -> Heads:
        """Project normalised tokens to queries, keys and values."""

        def split(x: Array) -> Array:
            batch, tokens, channels = x.shape
            x = x.reshape(batch, tokens, self.num_heads, channels // self.num_heads)
            return x.transpose(0, 2, 1, 3)

        return Heads(
            query=split(self.q_proj(hidden)),
            key=split(self.k_proj(hidden)),
            value=split(self.v_proj(hidden)),
        )

    def join(
        self, mixed: Float[Array, "batch heads tokens size"]
    ) -> Float[Array, "batch tokens channels"]:
        """Concatenate the heads and project them."""
        batch, heads, tokens, size = mixed.shape
        joined = mixed.transpose(0, 2, 1, 3).reshape(batch, tokens, heads * size)
        return self.out_proj(joined.astype(self.out_proj.kernel.dtype))


class Mlp(nnx.Module):
    """Two linear maps around a gelu.

    Args:
        config: Sizes and activation.
        rngs: Streams that initialise the parameters.
    """

    def __init__(self, config: ClipTextConfig | ClipVisionConfig, *, rngs: nnx.Rngs):
        self.hidden_act = config.hidden_act
        self.fc1 = nnx.Linear(config.hidden_size, config.intermediate_size, rngs=rngs)
        self.fc2 = nnx.Linear(config.intermediate_size, config.hidden_size, rngs=rngs)

    def __call__(self, hidden: Float[Array, "*any"]) -> Float[Array, "*any"]:
        """Transform every token on its own."""
        hidden = self.fc1(hidden)
        if self.hidden_act == "quick_gelu":
            hidden = hidden * jax.nn.sigmoid(1.702 * hidden)
        else:
            hidden = jax.nn.gelu(hidden, approximate=self.hidden_act == "gelu_tanh")
        return self.fc2(hidden)


class EncoderLayer(nnx.Module):
    """One block: attention, then MLP, each after a layer norm and with a residual.

    Args:
        config: Sizes, activation, epsilon.
        rngs: Streams that initialise the parameters.
    """

    def __init__(self, config: ClipTextConfig | ClipVisionConfig, *, rngs: nnx.Rngs):
        size, epsilon = config.hidden_size, config.layer_norm_eps
        self.self_attn = Attention(config, rngs=rngs)
        self.layer_norm1 = LayerNorm(size, epsilon=epsilon)
        self.mlp = Mlp(config, rngs=rngs)
        self.layer_norm2 = LayerNorm(size, epsilon=epsilon)

    def __call__(
        self,
        hidden: Float[Array, "batch tokens channels"],
        mask: Mask | None = None,
    ) -> Float[Array, "batch tokens channels"]:
        """Pass the tokens through the block.

        Args:
            hidden: Tokens.
            mask: True where a row may attend to a column.

        Returns:
            Tokens of the same shape and type.
        """
        return self.update(hidden, self.heads(hidden), mask)

    def heads(self, hidden: Float[Array, "batch tokens channels"]) -> Heads:
        """Queries, keys and values of this block's attention."""
        return self.self_attn.heads(self.layer_norm1(hidden))

    def update(
        self,
        hidden: Float[Array, "batch tokens channels"],
        heads: Heads,
        mask: Mask | None = None,
    ) -> Float[Array, "batch tokens channels"]:
        """Compute the rest of the block, given ``heads(hidden)``."""
        weights = attention_weights(heads.query, heads.key, mask)
        mixed = weighted_mean(weights, heads.value)
        hidden = hidden + self.self_attn.join(mixed)
        return hidden + self.mlp(self.layer_norm2(hidden))


class Encoder(nnx.Module):
    """A stack of blocks.

    Args:
        config: Sizes, activation, epsilon, number of blocks.
        rngs: Streams that initialise the parameters.
    """

    def __init__(self, config: ClipTextConfig | ClipVisionConfig, *, rngs: nnx.Rngs):
        self.layers = nnx.List(
            [EncoderLayer(config, rngs=rngs) for _ in range(config.num_hidden_layers)]
        )

    def __call__(
        self,
        hidden: Float[Array, "batch tokens channels"],
        mask: Mask | None = None,
    ) -> Float[Array, "batch tokens channels"]:
        """Pass the tokens through every block."""
        for layer in self.layers:
            hidden = layer(hidden, mask)
        return hidden
