"""The text transformer of CLIP, which is also Stable Diffusion 2's text encoder."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from dslo_jax.models.clip_config import ClipTextConfig
from dslo_jax.models.clip_layers import Encoder
from dslo_jax.models.layer_norm import LayerNorm
from dslo_jax.weights import (
    config_source,
    load_module,
    open_weights,
    read_config,
)


# The wrong end-of-text token in the configurations of OpenAI's checkpoints.
_LEGACY_EOS = 2

# Tensors of a CLIP, or of a text model with its projection, that are not part of this
# network.
_NOT_TEXT = (
    r"embeddings\.position_ids",
    r"vision_model\..*",
    r"(text|visual)_projection\.weight",
    r"logit_scale",
)


class TextEmbeddings(nnx.Module):
    """Token and position embedding.

    Args:
        config: Sizes.
        rngs: Streams that initialise the parameters.
    """

    def __init__(self, config: ClipTextConfig, *, rngs: nnx.Rngs):
        size, positions = config.hidden_size, config.max_position_embeddings
        self.token_embedding = nnx.Embed(config.vocab_size, size, rngs=rngs)
        self.position_embedding = nnx.Embed(positions, size, rngs=rngs)

    def __call__(
        self, ids: Int[Array, "batch tokens"]
    ) -> Float[Array, "batch tokens channels"]:
        """Embed token ids at positions 0, 1, ..."""
        # ``nnx.Embed`` is not called, because it casts to the type it was built with.
        tokens = jnp.take(self.token_embedding.embedding[...], ids, axis=0)
        positions = self.position_embedding.embedding[: ids.shape[1]]
        return tokens + positions[None]


class TextModel(nnx.Module):
    """Causal text transformer.

    Args:
        config: Sizes.
        rngs: Streams that initialise the parameters.
    """

    def __init__(self, config: ClipTextConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.embeddings = TextEmbeddings(config, rngs=rngs)
        self.encoder = Encoder(config, rngs=rngs)
        self.final_layer_norm = LayerNorm(
            config.hidden_size, epsilon=config.layer_norm_eps
        )

    def __call__(
        self, ids: Int[Array, "batch tokens"]
    ) -> Float[Array, "batch tokens channels"]:
        """The last hidden state, after the final layer norm.

        A token sees only the tokens before it: cutting the end of ``ids`` leaves the
        states of the other tokens as they are.

        Args:
            ids: Token ids in [0, vocab_size), at most ``max_position_embeddings`` in a
                row. An id outside that range gives NaN.

        Returns:
            One state per token, in the type of the parameters.

        Raises:
            ValueError: There are more tokens than positions.
        """
        tokens, positions = ids.shape[1], self.config.max_position_embeddings
        if tokens > positions:
            raise ValueError(
                f"`ids` has {tokens} tokens a row, expected at most {positions}; "
                "tokenize with that length"
            )
        causal = jnp.tri(tokens, dtype=bool)[None]
        return self.final_layer_norm(self.encoder(self.embeddings(ids), causal))

    def pool(
        self,
        ids: Int[Array, "batch tokens"],
        hidden: Float[Array, "batch tokens channels"],
    ) -> Float[Array, "batch channels"]:
        """Pick the state of each prompt's end-of-text token.

        Configurations from before transformers 4.31 state ``eos_token_id`` 2, which is
        wrong for CLIP. With them, the end is the highest id of the prompt, and its
        first place when it repeats.

        Args:
            ids: Token ids; each row holds the end-of-text token.
            hidden: What ``self(ids)`` returned.

        Returns:
            One state per prompt.
        """
        eos = self.config.eos_token_id
        marks = ids if eos == _LEGACY_EOS else ids == eos
        ends = jnp.argmax(marks, axis=1)
        return jnp.take_along_axis(hidden, ends[:, None, None], axis=1)[:, 0]


def load_text_encoder(
    folder: Path, *, dtype: jax.typing.DTypeLike = jnp.float32
) -> TextModel:
    """Load a standalone text model, such as Stable Diffusion 2's ``text_encoder``.

    Args:
        folder: A folder in the layout of transformers' ``CLIPTextModel``, or of a whole
            CLIP, of which the text half is read; the keys of the text model may start
            with ``text_model.`` (transformers 4) or not (transformers 5).
        dtype: Type of the parameters and of the computation.

    Returns:
        The text model; calling it gives the last hidden state.

    Raises:
        CheckpointError: The folder is missing, damaged, or not of this kind.
    """
    config = ClipTextConfig.from_dict(read_config(folder), source=config_source(folder))
    return load_module(
        partial(TextModel, config),
        open_weights(folder),
        dtype=dtype,
        rename=lambda key: key.removeprefix("text_model."),
        ignored=_NOT_TEXT,
    )
