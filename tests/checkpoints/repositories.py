"""The repositories of the presets on a local hub: their file names, with small files.

The lists contain the files that matter for the choice. Every file of weights holds one
small tensor that differs from all others.
"""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
from flax.serialization import msgpack_serialize
from safetensors.numpy import save

from checkpoints.local_hub import LocalHub
from dslo_jax.hub import PRESETS, Mirror, Preset


_CONFIGS = {
    "": {"model_type": "clip"},
    "unet": {"_class_name": "UNet2DConditionModel"},
    "vae": {"_class_name": "AutoencoderKL"},
    "text_encoder": {"model_type": "clip_text_model"},
}
_CLIP = (
    *(".gitattributes", "README.md", "config.json", "flax_model.msgpack"),
    *("merges.txt", "preprocessor_config.json", "pytorch_model.bin"),
    *("special_tokens_map.json", "tf_model.h5", "tokenizer.json"),
    *("tokenizer_config.json", "vocab.json"),
)
_DIFFUSERS = "diffusion_pytorch_model"
PIPELINE = (
    *("README.md", "model_index.json", "512-base-ema.ckpt"),
    *("512-base-ema.safetensors", "feature_extractor/preprocessor_config.json"),
    *("scheduler/scheduler_config.json", "tokenizer/merges.txt"),
    *("tokenizer/special_tokens_map.json", "tokenizer/tokenizer_config.json"),
    *("tokenizer/vocab.json", "text_encoder/config.json"),
    *("text_encoder/model.safetensors", "text_encoder/model.fp16.safetensors"),
    *("text_encoder/pytorch_model.bin", "unet/config.json"),
    *(f"unet/{_DIFFUSERS}.safetensors", f"unet/{_DIFFUSERS}.fp16.safetensors"),
    *(f"unet/{_DIFFUSERS}.non_ema.safetensors", f"unet/{_DIFFUSERS}.bin"),
    *("vae/config.json", f"vae/{_DIFFUSERS}.safetensors"),
    *(f"vae/{_DIFFUSERS}.fp16.safetensors", f"vae/{_DIFFUSERS}.bin"),
)
_VIT = ("README.md", "config.json", "model.safetensors", "preprocessor_config.json")


def files_of(kind: str, seed: str, *, extra: tuple[str, ...] = ()) -> dict[str, bytes]:
    """The files of a repository of this kind; the seed makes their content its own."""
    names = {"clip": _CLIP, "diffusion": PIPELINE, "vit": _VIT}[kind] + extra
    return {name: _content(name, kind, f"{seed} {name}") for name in names}


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    """The same files in a folder on disk."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def offer(hub: LocalHub, name: str, mirror: Mirror, kind: str) -> dict[str, bytes]:
    """Offer the repository of a mirror of a preset, at its revision."""
    proposed = str(mirror.revision).startswith("refs/pr/")
    files = files_of(kind, name, extra=("model.safetensors",) if proposed else ())
    if name == "clip-l14":
        files |= files_of(kind, name, extra=("model.safetensors",))
    revision = mirror.revision or "main"
    is_commit = len(revision) == 40
    commit = revision if is_commit else ""
    hub.add(mirror.repository, files, revision=revision, commit=commit)
    return files


def pinned(mirror: Mirror, files: dict[str, bytes]) -> Mirror:
    """The mirror with the hashes of these files in place of those of the real ones."""
    hashes = {
        name: hashlib.sha256(files[name]).hexdigest()
        for name, _ in mirror.hashes
        if name in files
    }
    return mirror._replace(hashes=tuple(hashes.items()))


def offer_presets(hub: LocalHub) -> dict[str, Preset]:
    """Offer the repositories of all presets; the presets, pinned to what they hold."""
    presets = {}
    for name, preset in PRESETS.items():
        mirrors = tuple(
            pinned(mirror, offer(hub, name, mirror, preset.kind))
            for mirror in preset.mirrors
        )
        presets[name] = dataclasses.replace(preset, mirrors=mirrors)
    return presets


def _content(name: str, kind: str, seed: str) -> bytes:
    folder, _, file = name.rpartition("/")
    if file == "config.json":
        config = {"model_type": "vit"} if kind == "vit" else _CONFIGS[folder]
        return json.dumps(config).encode()
    if file.endswith((".json", ".txt")):
        return b"{}"
    key = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:4], "little")
    values = np.random.default_rng(key).random(1000, np.float32)
    if file.endswith(".safetensors"):
        return save({"a": values})
    if file.endswith(".msgpack"):
        return msgpack_serialize({"a": values})
    return values.tobytes()
