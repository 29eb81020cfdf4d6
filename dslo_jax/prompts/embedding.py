"""Text features of names: the mean over many prompts."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from dslo_jax.templates import IMAGENET_TEMPLATES, check_templates
from dslo_jax.tokens import tokenize


if TYPE_CHECKING:
    from transformers import CLIPTokenizer


_CHUNK_SIZE = 80  # prompts encoded at once: one name in the 80 templates of CLIP
_LENGTH_STEP = 16  # prompts are cut to a multiple of this, so that few shapes compile


def embed_names(
    encode: Callable[[Int[np.ndarray, "batch tokens"]], Float[Array, "batch dim"]],
    tokenizer: "CLIPTokenizer",
    names: Sequence[str],
    templates: Sequence[str] = IMAGENET_TEMPLATES,
    *,
    length: int = 77,
) -> Float[np.ndarray, "names dim"]:
    """Embed names: the mean over all templates of the features of their prompts.

    The feature of every prompt is scaled to length 1; the mean over the templates is
    scaled to length 1 again. Prompts are encoded in chunks of one shape, which are cut
    after the longest prompt. This changes no feature, because a token of the text
    network attends only to the tokens before it.

    Args:
        encode: Function from token ids to features, such as ``Clip.encode_text``.
        tokenizer: From ``load_tokenizer``.
        names: Class names.
        templates: Texts with one ``{}`` each.
        length: Greatest number of tokens of a prompt.

    Returns:
        float32 features of length 1.

    Raises:
        ClassListError: A prompt is too long (``C03``) or a template is bad (``C05``).
    """
    templates = check_templates(templates)
    prompts = [template.format(name) for name in names for template in templates]
    ids = _without_padding(tokenizer, tokenize(tokenizer, prompts, length=length))
    count = len(prompts)
    chunk = min(_CHUNK_SIZE, 1 << (count - 1).bit_length())
    ids = np.pad(ids, ((0, -count % chunk), (0, 0)), mode="edge")
    chunks = [encode(part) for part in np.split(ids, len(ids) // chunk)]
    features = np.concatenate(jax.device_get(chunks)).astype(np.float32)[:count]
    means = _unit(features).reshape(len(names), len(templates), -1).mean(axis=1)
    return _unit(means)


def _without_padding(
    tokenizer: "CLIPTokenizer", ids: Int[np.ndarray, "batch length"]
) -> Int[np.ndarray, "batch tokens"]:
    """Cut the ids after the longest prompt, at a multiple of ``_LENGTH_STEP``."""
    ends = (ids == tokenizer.eos_token_id).argmax(axis=1)
    longest = int(ends.max()) + 1
    return ids[:, : -(-longest // _LENGTH_STEP) * _LENGTH_STEP]


def _unit(features: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(features, axis=-1, keepdims=True)
    return features / np.maximum(norm, np.finfo(np.float32).tiny)
