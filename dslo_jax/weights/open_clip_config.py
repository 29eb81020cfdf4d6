"""Translation of ``open_clip_config.json`` to a configuration of transformers.

A field has the meaning and the default of open_clip's own classes. Options of networks
that are not supported are refused by name, and so are unknown options that are not off.
"""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dslo_jax.errors import CheckpointError


# Fields that are translated.
_MODEL = ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu")
_SHARED = ("layers", "width", "mlp_ratio", "norm_kwargs", "act_kwargs", "pool_type")
_VISION = (*_SHARED, "head_width", "patch_size", "image_size")
_TEXT = (*_SHARED, "heads", "context_length", "vocab_size")
# Fields that have no effect, or only together with a field that is refused: fields of
# training, of the towers of timm and transformers, and of pooling.
_WITHOUT_EFFECT = frozenset(
    "custom_text init_logit_scale nonscalar_logit_scale output_dict output_tokens "  # noqa: SIM905
    "patch_dropout pad_id eos_id attn_pooler_queries attn_pooler_heads "
    "timm_model_pretrained timm_pool timm_proj timm_proj_bias timm_drop timm_drop_path "
    "hf_model_pretrained hf_proj_type hf_pooler_type".split()
)
# Fields with one allowed value, beside "unset".
_FIXED = {
    "pos_embed_type": "learnable",
    "proj_type": "linear",
    "block_type": "default",
}


class _Fields(NamedTuple):
    """An object of the file.

    Attributes:
        values: The fields of the object.
        name: Prefix of the names of fields in errors.
    """

    values: Mapping[str, Any]
    name: str

    def get(self, field: str, default: Any = None) -> Any:
        return self.values.get(field, default)

    def count(self, field: str, default: int | None = None) -> int:
        """A positive whole number, or a pair of equal ones: the sides of a square."""
        found = self.get(field, default)
        if isinstance(found, list | tuple) and len(found) == 2 and found[0] == found[1]:
            found = found[0]
        if type(found) is not int or found < 1:
            raise self.wrong(field, "a positive integer")
        return found

    def part(self, field: str) -> "_Fields":
        found = self.get(field, {})
        if not isinstance(found, Mapping):
            raise self.wrong(field, "an object")
        return _Fields(found, f"{self.name}{field}.")

    def refuse_others(self, known: tuple[str, ...]) -> None:
        """Refuse every field that is not translated, unless it has no effect."""
        for field, found in self.values.items():
            if field in known or field in _WITHOUT_EFFECT:
                continue
            if field in _FIXED and found not in (None, _FIXED[field]):
                raise self.wrong(field, repr(_FIXED[field]))
            if field not in _FIXED and found not in (None, False, "", {}, []):
                raise self.wrong(field, "it unset")

    def wrong(self, field: str, wanted: str) -> CheckpointError:
        shown = textwrap.shorten(repr(self.get(field)), 60, placeholder=" ...")
        return CheckpointError(
            "W06", f"{self.name}{field} = {shown}, this network wants {wanted}"
        )


def translate_config(
    content: Mapping[str, Any], source: str | Path = "open_clip_config.json"
) -> dict[str, Any]:
    """Translate the configuration to the content of a ``config.json``.

    Args:
        content: An ``open_clip_config.json``, or only its ``model_cfg``.
        source: The file, to be named in errors.

    Returns:
        The configuration in the spelling of transformers' ``CLIPConfig``.

    Raises:
        CheckpointError: A field describes a network that is not supported (``W06``).
            The message names the field, its value, and the expected value.
    """
    model = _Fields(content, f"{source} has ")
    if "model_cfg" in content:
        model = model.part("model_cfg")
    if model.get("init_logit_bias") is not None:
        raise model.wrong("init_logit_bias", "it unset (SigLIP is not supported)")
    model.refuse_others(_MODEL)
    act = "quick_gelu" if model.get("quick_gelu") else "gelu"
    return {
        "model_type": "clip",
        "projection_dim": model.count("embed_dim"),
        "text_config": _text(model.part("text_cfg"), act),
        "vision_config": _vision(model.part("vision_cfg"), act),
    }


def _vision(fields: _Fields, act: str) -> dict[str, Any]:
    if fields.get("timm_model_name"):
        raise fields.wrong("timm_model_name", "it unset")
    if isinstance(fields.get("layers"), list | tuple):
        raise fields.wrong("layers", "a number (no ResNet)")
    fields.refuse_others(_VISION)
    width, head_width = fields.count("width", 768), fields.count("head_width", 64)
    if width % head_width:
        raise fields.wrong("head_width", f"a divisor of width {width}")
    return {
        **_transformer(fields, width, act, pool="tok"),
        "num_attention_heads": width // head_width,
        "patch_size": fields.count("patch_size", 16),
        "image_size": fields.count("image_size", 224),
    }


def _text(fields: _Fields, act: str) -> dict[str, Any]:
    for field in ("hf_model_name", "hf_tokenizer_name"):
        if fields.get(field):
            raise fields.wrong(field, "it unset")
    fields.refuse_others(_TEXT)
    return {
        **_transformer(fields, fields.count("width", 512), act, pool="argmax"),
        "num_attention_heads": fields.count("heads", 8),
        "vocab_size": fields.count("vocab_size", 49408),
        "max_position_embeddings": fields.count("context_length", 77),
        "eos_token_id": 2,  # pooled at the highest id of the prompt
    }


def _transformer(fields: _Fields, width: int, act: str, *, pool: str) -> dict[str, Any]:
    """The fields that both transformers have."""
    ratio = fields.get("mlp_ratio", 4.0)
    if type(ratio) not in (int, float) or not 0 < ratio < 1e3:
        raise fields.wrong("mlp_ratio", "a positive number")
    if fields.get("pool_type", pool) != pool:
        raise fields.wrong("pool_type", repr(pool))
    if fields.get("act_kwargs"):
        if act != "gelu" or fields.get("act_kwargs") != {"approximate": "tanh"}:
            raise fields.wrong("act_kwargs", "it unset")
        act = "gelu_pytorch_tanh"
    norm = fields.get("norm_kwargs") or {}
    if not isinstance(norm, Mapping) or set(norm) - {"eps"}:
        raise fields.wrong("norm_kwargs", "nothing but eps")
    return {
        "hidden_size": width,
        "intermediate_size": int(width * ratio),
        "num_hidden_layers": fields.count("layers", 12),
        "hidden_act": act,
        "layer_norm_eps": norm.get("eps", 1e-5),
    }
