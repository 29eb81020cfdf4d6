"""``open_clip_config.json`` in the spelling of transformers.

A field has the meaning and the default of open_clip's own classes. Options that change
the network into another than ours are refused by name; so is an option that is unknown
here and switched on.
"""

import textwrap
from collections.abc import Mapping
from typing import Any

from dslo_jax.errors import CheckpointError


# Fields that are translated.
_MODEL = ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu")
_SHARED = ("layers", "width", "mlp_ratio", "norm_kwargs", "act_kwargs", "pool_type")
_VISION = (*_SHARED, "head_width", "patch_size", "image_size")
_TEXT = (*_SHARED, "heads", "context_length", "vocab_size")
# Fields that change no number of the network, or none unless another field that is
# refused is set: of training, of timm's and transformers' towers, of pools.
_WITHOUT_EFFECT = frozenset(
    "custom_text init_logit_scale nonscalar_logit_scale output_dict output_tokens "  # noqa: SIM905
    "patch_dropout pad_id eos_id attn_pooler_queries attn_pooler_heads "
    "timm_model_pretrained timm_pool timm_proj timm_proj_bias timm_drop timm_drop_path "
    "hf_model_pretrained hf_proj_type hf_pooler_type".split()
)
# Fields whose only admitted value is not "unset".
_FIXED = {
    "pos_embed_type": "learnable",
    "proj_type": "linear",
    "block_type": "default",
}


def translate_config(content: Mapping[str, Any]) -> dict[str, Any]:
    """Say what ``config.json`` would say.

    Args:
        content: An ``open_clip_config.json``, or only its ``model_cfg``.

    Returns:
        The configuration in the spelling of transformers' ``CLIPConfig``.

    Raises:
        CheckpointError: A field asks for another network than ours (``W06``): the
            field, what was found, what was wanted.
    """
    model = _part(content, "model_cfg", content)
    _refuse_others(model, "", _MODEL)
    act = "quick_gelu" if model.get("quick_gelu") else "gelu"
    return {
        "model_type": "clip",
        "projection_dim": _count(model, "", "embed_dim", None),
        "text_config": _text(_part(model, "text_cfg", {}), act),
        "vision_config": _vision(_part(model, "vision_cfg", {}), act),
    }


def _vision(values: Mapping[str, Any], act: str) -> dict[str, Any]:
    name = "vision_cfg."
    if values.get("timm_model_name"):
        raise _mismatch(f"{name}timm_model_name", values["timm_model_name"], "none")
    if isinstance(values.get("layers"), list | tuple):
        raise _mismatch(f"{name}layers", values["layers"], "a number (no ResNet)")
    _refuse_others(values, name, _VISION)
    width = _count(values, name, "width", 768)
    head_width = _count(values, name, "head_width", 64)
    if width % head_width:
        raise _mismatch(f"{name}head_width", head_width, f"a divisor of width {width}")
    return {
        **_transformer(values, name, width, act, pool="tok"),
        "num_attention_heads": width // head_width,
        "patch_size": _count(values, name, "patch_size", 16),
        "image_size": _count(values, name, "image_size", 224),
    }


def _text(values: Mapping[str, Any], act: str) -> dict[str, Any]:
    name = "text_cfg."
    for field in ("hf_model_name", "hf_tokenizer_name"):
        if values.get(field):
            raise _mismatch(f"{name}{field}", values[field], "none")
    _refuse_others(values, name, _TEXT)
    width = _count(values, name, "width", 512)
    return {
        **_transformer(values, name, width, act, pool="argmax"),
        "num_attention_heads": _count(values, name, "heads", 8),
        "vocab_size": _count(values, name, "vocab_size", 49408),
        "max_position_embeddings": _count(values, name, "context_length", 77),
        "eos_token_id": 2,  # pooled at the highest id of the prompt
    }


def _transformer(
    values: Mapping[str, Any], name: str, width: int, act: str, *, pool: str
) -> dict[str, Any]:
    """What both transformers have."""
    ratio = values.get("mlp_ratio", 4.0)
    if type(ratio) not in (int, float) or not 0 < ratio < 1e3:
        raise _mismatch(f"{name}mlp_ratio", ratio, "a positive number")
    if values.get("pool_type", pool) != pool:
        raise _mismatch(f"{name}pool_type", values["pool_type"], repr(pool))
    if values.get("act_kwargs"):
        if act != "gelu" or values["act_kwargs"] != {"approximate": "tanh"}:
            raise _mismatch(f"{name}act_kwargs", values["act_kwargs"], "none")
        act = "gelu_pytorch_tanh"
    norm = values.get("norm_kwargs") or {}
    if not isinstance(norm, Mapping) or set(norm) - {"eps"}:
        raise _mismatch(f"{name}norm_kwargs", norm, "nothing but eps")
    return {
        "hidden_size": width,
        "intermediate_size": int(width * ratio),
        "num_hidden_layers": _count(values, name, "layers", 12),
        "hidden_act": act,
        "layer_norm_eps": norm.get("eps", 1e-5),
    }


def _refuse_others(
    values: Mapping[str, Any], prefix: str, known: tuple[str, ...]
) -> None:
    """Refuse every field that is not translated, unless it changes nothing."""
    for field, found in values.items():
        if field in known or field in _WITHOUT_EFFECT:
            continue
        if field in _FIXED and found not in (None, _FIXED[field]):
            raise _mismatch(f"{prefix}{field}", found, repr(_FIXED[field]))
        if field not in _FIXED and found not in (None, False, "", {}, []):
            raise _mismatch(f"{prefix}{field}", found, "none")


def _count(values: Mapping[str, Any], prefix: str, field: str, default: Any) -> int:
    """A positive whole number, or two that are equal: the sides of a square."""
    found = values.get(field, default)
    if isinstance(found, list | tuple) and len(found) == 2 and found[0] == found[1]:
        found = found[0]
    if type(found) is not int or found < 1:
        raise _mismatch(f"{prefix}{field}", found, "a positive integer")
    return found


def _part(values: Mapping[str, Any], field: str, default: Any) -> Mapping[str, Any]:
    found = values.get(field, default)
    if not isinstance(found, Mapping):
        raise _mismatch(field, found, "an object")
    return found


def _mismatch(name: str, found: object, wanted: str) -> CheckpointError:
    shown = textwrap.shorten(repr(found), 60, placeholder=" ...")
    return CheckpointError(
        "W06",
        f"open_clip_config.json has {name} = {shown}, this network wants {wanted}",
    )
