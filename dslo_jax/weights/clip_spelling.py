"""Translation of the tensor names of OpenAI and open_clip to those of transformers.

No numbers are read. Queries, keys and values become the three thirds of one tensor, and
projections that are stored transposed become tensors with exchanged axes.
"""

import re
from collections.abc import Iterable, Iterator, Mapping

from dslo_jax.errors import CheckpointError
from dslo_jax.weights.stored import StoredTensor, Table


OPENAI_MARKS = frozenset(("input_resolution", "context_length", "vocab_size"))
"""Numbers that only OpenAI's own checkpoints hold among their tensors."""

_NAMES = {
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "logit_scale": "logit_scale",
}
_TRANSPOSED = {
    "text_projection": "text_projection.weight",
    "visual.proj": "visual_projection.weight",
}
_BLOCK = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+)\.(weight|bias)")
_IN_PROJECTION = re.compile(
    r"(visual\.)?transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)"
)
_PARTS = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def is_openai(names: Iterable[str]) -> bool:
    """Whether these are the tensor names of an OpenAI file, without configuration."""
    return set(names) >= OPENAI_MARKS


def is_open_clip(names: Iterable[str]) -> bool:
    """Whether these are tensor names of OpenAI or open_clip."""
    return any(
        name.startswith(("visual.", "transformer.resblocks.", "text.transformer."))
        for name in names
    )


def respell_clip(table: Table) -> Table:
    """Translate the names of a CLIP of OpenAI or open_clip to those of transformers.

    Args:
        table: Tensors with the names of OpenAI or open_clip. Unknown names are kept;
            the network refuses them.

    Raises:
        CheckpointError: Two tensors would have the same name, or the tensor of queries,
            keys and values cannot be divided by three (``W04``).
    """
    respelt: Table = {}
    for name, tensor in _pairs(table):
        if name in respelt:
            raise CheckpointError("W04", f"{tensor.path} holds {name!r} twice")
        respelt[name] = tensor
    return respelt


def _pairs(table: Mapping[str, StoredTensor]) -> Iterator[tuple[str, StoredTensor]]:
    for full_name, tensor in table.items():
        name = full_name.removeprefix("text.")  # open_clip's CustomTextCLIP
        if name in OPENAI_MARKS or name.rpartition(".")[2] == "attn_mask":
            continue  # a setting, and a constant of the code
        if name in _TRANSPOSED and len(tensor.shape) == 2:
            yield _TRANSPOSED[name], tensor.transposed(1, 0)
        elif match := _IN_PROJECTION.fullmatch(name):
            block, kind = _block(match), match[3]
            for part, third in zip("qkv", _thirds(full_name, tensor), strict=True):
                yield f"{block}.self_attn.{part}_proj.{kind}", third
        elif (match := _BLOCK.fullmatch(name)) and match[3] in _PARTS:
            yield f"{_block(match)}.{_PARTS[match[3]]}.{match[4]}", tensor
        elif name == "logit_scale" and tensor.shape == (1,):
            yield name, tensor._replace(shape=(), strides=())
        else:
            yield _NAMES.get(name, full_name), tensor


def _block(match: re.Match[str]) -> str:
    tower = "vision_model" if match[1] else "text_model"
    return f"{tower}.encoder.layers.{match[2]}"


def _thirds(name: str, tensor: StoredTensor) -> list[StoredTensor]:
    size, rest = divmod(tensor.shape[0], 3) if tensor.shape else (0, 1)
    if rest:
        raise CheckpointError(
            "W04",
            f"{tensor.path}: {name} of shape {tensor.shape} cannot be divided by three",
        )
    return [tensor.rows(i * size, (i + 1) * size) for i in range(3)]
