"""Tiny CLIP folders as transformers writes them, with seeded random weights."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
)


_MERGES = (
    *("p h", "o t", "ph ot", "phot o</w>", "o f</w>", "t h", "th e</w>"),
    *("c a", "ca t</w>", "d o", "do g</w>", "w a", "l l</w>", "wa ll</w>"),
)
_SPECIAL = {
    "bos_token": "<|startoftext|>",
    "eos_token": "<|endoftext|>",
    "unk_token": "<|endoftext|>",
}
VOCAB_SIZE = 512 + len(_MERGES) + 2
EOS = VOCAB_SIZE - 1


def save_clip(
    folder: Path,
    *,
    seed: int,
    patch_size: int = 16,
    image_size: int = 64,
    vision: tuple[int, int, int] = (3, 48, 3),
    text: tuple[int, int, int] = (2, 32, 4),
    projection_dim: int = 24,
    hidden_act: str = "quick_gelu",
    layer_norm_eps: float = 1e-5,
    eos_token_id: int = EOS,
    max_position_embeddings: int = 77,
) -> CLIPModel:
    """Write a CLIP folder and return its network; text, vision: depth, width, heads."""
    config = CLIPConfig(
        projection_dim=projection_dim,
        vision_config={
            **_transformer(*vision, hidden_act, layer_norm_eps),
            "patch_size": patch_size,
            "image_size": image_size,
        },
        text_config={
            **_transformer(*text, hidden_act, layer_norm_eps),
            "vocab_size": VOCAB_SIZE,
            "max_position_embeddings": max_position_embeddings,
            "eos_token_id": eos_token_id,
            "bos_token_id": VOCAB_SIZE - 2,
        },
    )
    network = CLIPModel(config).eval()
    randomise(network, seed)
    network.save_pretrained(folder)
    CLIPImageProcessorPil().save_pretrained(folder)
    save_tokenizer(folder)
    return network


def save_text_encoder(
    folder: Path, *, seed: int, prefix: str = "", activation: str = "gelu"
) -> CLIPTextModel:
    """Write a standalone text model, its keys with a prefix as old files have it."""
    config = CLIPTextConfig(
        **_transformer(2, 32, 4, activation, 1e-5),
        vocab_size=VOCAB_SIZE,
        eos_token_id=2,
        bos_token_id=0,
    )
    network = CLIPTextModel(config).eval()
    randomise(network, seed)
    network.save_pretrained(folder)
    if prefix:
        path = folder / "model.safetensors"
        tensors = {prefix + key: value for key, value in load_file(path).items()}
        tensors[f"{prefix}embeddings.position_ids"] = torch.arange(77)[None]
        save_file(tensors, path, metadata={"format": "pt"})
    return network


def save_tokenizer(folder: Path, *, pad_token: str = "<|endoftext|>") -> None:
    """Write a byte-level BPE tokenizer in the files that CLIP's folders have."""
    folder.mkdir(parents=True, exist_ok=True)
    symbols = _byte_symbols()
    tokens = [*symbols, *(symbol + "</w>" for symbol in symbols)]
    tokens += ["".join(merge.split()) for merge in _MERGES]
    tokens += [_SPECIAL["bos_token"], _SPECIAL["eos_token"]]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    special = {**_SPECIAL, "pad_token": pad_token}
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, **special}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *_MERGES, ""]))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "special_tokens_map.json").write_text(json.dumps(special))


@torch.no_grad()
def randomise(network: torch.nn.Module, seed: int) -> None:
    """Give every parameter a size at which its absence or misuse shows.

    The initial weights of transformers leave attention close to uniform and all
    biases at zero.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, value in sorted(network.named_parameters()):
        noise = torch.randn(value.shape, generator=generator)
        if "norm" in name or "layrnorm" in name:
            value.copy_(0.2 * noise + (1.0 if name.endswith("weight") else 0.0))
        elif "embedding" in name:
            value.copy_(
                0.5 * noise / (value[0].numel() ** 0.5 if value.ndim == 4 else 1)
            )
        elif value.ndim < 2:
            value.copy_(0.3 * noise)
        else:
            gain = 2.0 if "q_proj" in name or "k_proj" in name else 1.0
            value.copy_(gain * noise / value.shape[1] ** 0.5)


def _transformer(
    depth: int, width: int, heads: int, hidden_act: str, layer_norm_eps: float
) -> dict[str, object]:
    return {
        "num_hidden_layers": depth,
        "hidden_size": width,
        "intermediate_size": 3 * width,
        "num_attention_heads": heads,
        "hidden_act": hidden_act,
        "layer_norm_eps": layer_norm_eps,
    }


def _byte_symbols() -> list[str]:
    """One printable symbol per byte, in the order of CLIP's vocabulary."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(len(others))]
