"""The configuration of OpenAI's CLIP files, derived from the shapes of their tensors.

OpenAI's files contain no configuration, and need none: every head has 64 channels, and
the activation is quick_gelu.
"""

import math
from collections.abc import Mapping
from typing import Any

from dslo_jax.errors import CheckpointError
from dslo_jax.weights.stored import StoredTensor


_HEAD_WIDTH = 64
_FIRST = "transformer.resblocks.0.mlp.c_fc.weight"


def openai_config(table: Mapping[str, StoredTensor]) -> dict[str, Any]:
    """Derive the content of a ``config.json``.

    Args:
        table: The tensors of one of OpenAI's files, with the file's names.

    Returns:
        The configuration in the spelling of transformers' ``CLIPConfig``.

    Raises:
        CheckpointError: It is a ResNet (``W06``), or tensors are missing (``W04``).
    """
    path = next(iter(table.values())).path
    if "visual.layer1.0.conv1.weight" in table:
        raise CheckpointError(
            "W06",
            f"{path} is a ResNet, this network wants a vision transformer such as "
            "ViT-B-16.pt",
        )
    try:
        shapes = {name: tensor.shape for name, tensor in table.items()}
        return _config(shapes)
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        raise CheckpointError(
            "W04", f"{path} lacks tensors of CLIP, or they have other shapes: {error}"
        ) from error


def _config(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    vision_width, _, patch_size, _ = shapes["visual.conv1.weight"]
    positions, _ = shapes["visual.positional_embedding"]
    vocabulary, text_width = shapes["token_embedding.weight"]
    context, _ = shapes["positional_embedding"]
    _, projection = shapes["text_projection"]
    return {
        "model_type": "clip",
        "projection_dim": projection,
        "text_config": {
            **_transformer(shapes, "", text_width),
            "vocab_size": vocabulary,
            "max_position_embeddings": context,
            "eos_token_id": 2,  # pooled at the highest id of the prompt
        },
        "vision_config": {
            **_transformer(shapes, "visual.", vision_width),
            "patch_size": patch_size,
            "image_size": patch_size * math.isqrt(positions - 1),
        },
    }


def _transformer(
    shapes: Mapping[str, tuple[int, ...]], prefix: str, width: int
) -> dict[str, Any]:
    inner, _ = shapes[f"{prefix}{_FIRST}"]
    blocks = [
        name
        for name in shapes
        if name.startswith(f"{prefix}transformer.resblocks.")
        and name.endswith(".attn.in_proj_weight")
    ]
    return {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": len(blocks),
        "num_attention_heads": width // _HEAD_WIDTH,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
    }
