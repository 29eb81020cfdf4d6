"""Every layout of public checkpoints, read without torch and compared with torch."""

import copy
import json
import os
import shutil
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from checkpoints.clip import EOS, VOCAB_SIZE, save_clip
from checkpoints.openai_clip import (
    MEAN,
    STD,
    OpenAiClip,
    features,
    in_half,
    save_archive,
    with_marks,
    with_text_prefix,
    write_open_clip_config,
)
from flax import serialization, traverse_util
from safetensors.torch import save_file


TOLERANCE = 2e-5
# Most of the time is LLVM's, and tiny networks need no fast code.
QUICK_COMPILE = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)
# Loads every place named on the command line, in a process where torch does not exist.
WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
from pathlib import Path
import jax, numpy as np
from dslo_jax.models.clip import load_clip
inputs = dict(np.load(sys.argv[1]))
dense = jax.jit(lambda clip, photo: clip.dense_features(photo, attention="vanilla"))
encode = jax.jit(lambda clip, ids: clip.encode_text(ids))
found = {}
for place in sys.argv[3:]:
    clip = load_clip(Path(place))
    found[f"{place} dense"] = dense(clip, inputs["photo"])
    found[f"{place} text"] = encode(clip, inputs["ids"])
np.savez(sys.argv[2], **found)
"""


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    """A photo in [0, 1] and two prompts, padded with zeros as open_clip pads them."""
    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(3, VOCAB_SIZE - 2, (2, 77), generator=generator)
    ids[0, 5:], ids[1, 30:] = 0, 0
    ids[:, 0], ids[0, 5], ids[1, 30] = VOCAB_SIZE - 2, EOS, EOS
    return torch.rand(1, 64, 64, 3, generator=generator), ids


def flax_tree(state: dict[str, torch.Tensor], dtype: type = np.float32) -> dict:
    """The tree of a Flax model, by the rules that transformers published."""
    flat = {}
    for key, value in state.items():
        *path, leaf = key.split(".")
        array = value.numpy().astype(dtype)
        if leaf == "weight" and array.ndim == 4:
            leaf, array = "kernel", array.transpose(2, 3, 1, 0)
        elif leaf == "weight" and path[-1] in ("token_embedding", "position_embedding"):
            leaf = "embedding"
        elif leaf == "weight" and array.ndim == 2:
            leaf, array = "kernel", array.T
        elif leaf == "weight":
            leaf = "scale"
        flat[(*path, leaf)] = array
    return traverse_util.unflatten_dict(flat)


def save_flax(state: dict[str, torch.Tensor], path: Path, dtype: type = np.float32):
    path.write_bytes(serialization.msgpack_serialize(flax_tree(state, dtype)))


def save_shards(state: dict[str, torch.Tensor], folder: Path) -> None:
    """Two shards in both formats of torch.save, and their index."""
    keys = sorted(state)
    places = {}
    for number, part in enumerate((keys[::2], keys[1::2]), start=1):
        name = f"pytorch_model-{number:05}-of-00002.bin"
        torch.save(
            {key: state[key] for key in part},
            folder / name,
            _use_new_zipfile_serialization=number == 1,
        )
        places |= dict.fromkeys(part, name)
    index = {"metadata": {}, "weight_map": places}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def training_checkpoint(network: torch.nn.Module) -> dict:
    """A file of a training run of open_clip, with its optimizer and other entries."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    for value in network.parameters():
        value.grad = torch.zeros_like(value)
    optimizer.step()  # by zero, but for the decay: hence before the state dict is taken
    state = network.state_dict()
    return {
        "epoch": 32,
        "name": "a run",
        "args": Namespace(lr=0.1, names=["a", None], sizes=(1, 2, 3, 4), flag=True),
        "best": np.float64(0.5),
        "device": torch.device("cpu"),
        "state_dict": {f"module.{key}": value for key, value in state.items()},
        "optimizer": optimizer.state_dict(),
        "scaler": {"scale": 65536.0, "_growth_tracker": 10**12},
    }


def write_hugging_face(root: Path) -> tuple[torch.nn.Module, dict[str, str]]:
    """A ``CLIPModel``, and in which place it lies as what."""
    network = save_clip(root / "safetensors", seed=3)
    state = network.state_dict()
    half = {key: value.half() for key, value in state.items()}
    writers = {
        "fp16": lambda f: save_file(half, f / "model.fp16.safetensors"),
        "zip": lambda f: torch.save(state, f / "pytorch_model.bin"),
        "old": lambda f: torch.save(
            state, f / "pytorch_model.bin", _use_new_zipfile_serialization=False
        ),
        "fp16-bin": lambda f: torch.save(half, f / "pytorch_model.fp16.bin"),
        "bf16-bin": lambda f: torch.save(
            {key: value.bfloat16() for key, value in state.items()},
            f / "pytorch_model.bin",
        ),
        "shards": lambda f: save_shards(state, f),
        "flax": lambda f: save_flax(state, f / "flax_model.msgpack"),
        "flax-bf16": lambda f: save_flax(state, f / "flax_model.msgpack", jnp.bfloat16),
    }
    rounding = dict.fromkeys(["safetensors", *writers], "float32")
    for name, write in writers.items():
        (root / name).mkdir()
        shutil.copy(root / "safetensors/config.json", root / name)
        write(root / name)
        rounding[name] = "half" if "fp16" in name else "bf16" if "bf16" in name else ""
    shutil.copytree(root / "zip", root / "file")  # a file inside its folder
    rounding |= {"file/pytorch_model.bin": "", "safetensors": ""}
    return network, rounding


def write_open_ai(root: Path) -> dict[str, OpenAiClip]:
    """CLIP in the other spelling, by place; each with the network it must equal."""
    quick, exact = OpenAiClip(seed=4), OpenAiClip(seed=5, quick=False)
    root.mkdir()
    save_archive(quick, root / "ViT-B-16.pt")
    torch.save(with_marks(quick).state_dict(), root / "state.pt")
    (root / "folder").mkdir()
    shutil.copy(root / "ViT-B-16.pt", root / "folder/ViT-B-16.pt")
    folders = {
        name: (root / name)
        for name in ("open_clip", "open_clip_quick", "custom_text", "training")
    }
    write_open_clip_config(folders["open_clip"], quick=False)
    save_file(exact.state_dict(), folders["open_clip"] / "open_clip_model.safetensors")
    write_open_clip_config(folders["open_clip_quick"], quick=True)
    torch.save(
        quick.state_dict(), folders["open_clip_quick"] / "open_clip_pytorch_model.bin"
    )
    write_open_clip_config(folders["custom_text"], quick=False, custom_text=True)
    custom = with_text_prefix(exact.state_dict())
    torch.save(custom, folders["custom_text"] / "open_clip_pytorch_model.bin")
    write_open_clip_config(folders["training"], quick=False, init_logit_bias=None)
    trained = OpenAiClip(seed=6, quick=False)
    torch.save(training_checkpoint(trained), folders["training"] / "epoch_32.pt")
    return {
        "ViT-B-16.pt": in_half(quick).float(),
        "folder": in_half(quick).float(),
        "state.pt": quick,
        "open_clip": exact,
        "open_clip_quick": quick,
        "custom_text": exact,
        "training": trained,
        "training/epoch_32.pt": trained,
    }


def transformers_features(
    network: torch.nn.Module, photo: torch.Tensor, ids: torch.Tensor, rounding: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of a ``CLIPModel`` with rounded weights, for a photo and prompts."""
    if rounding:
        network = copy.deepcopy(network)
        network = (network.half() if rounding == "half" else network.bfloat16()).float()
    pixels = ((photo - torch.tensor(MEAN)) / torch.tensor(STD)).permute(0, 3, 1, 2)
    with torch.no_grad():
        vision = network.vision_model
        hidden = vision(pixel_values=pixels).last_hidden_state[:, 1:]
        dense = network.visual_projection(vision.post_layernorm(hidden))
        pooled = network.text_model(input_ids=ids).pooler_output
        text = network.text_projection(pooled)
    dense = torch.nn.functional.normalize(dense, dim=-1).unflatten(1, (4, 4))
    return dense, torch.nn.functional.normalize(text, dim=-1)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Place to the dense and text features that it must give, and those it gives."""
    root = tmp_path_factory.mktemp("places")
    photo, ids = inputs()
    network, rounding = write_hugging_face(root)
    wanted = {
        name: transformers_features(network, photo, ids, kind)
        for name, kind in rounding.items()
    }
    other = write_open_ai(root / "other")
    wanted |= {f"other/{k}": features(each, photo, ids) for k, each in other.items()}
    given, found = root / "inputs.npz", root / "found.npz"
    np.savez(given, photo=photo.numpy(), ids=ids.numpy().astype(np.int32))
    places = [str(root / name) for name in wanted]
    subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(given), str(found), *places],
        check=True,
        env=os.environ | {"XLA_FLAGS": QUICK_COMPILE},
    )
    return root, wanted, dict(np.load(found))


PLACES = (
    *("safetensors", "fp16", "zip", "old", "fp16-bin", "bf16-bin", "shards"),
    *("flax", "flax-bf16", "file/pytorch_model.bin"),
    *("other/ViT-B-16.pt", "other/folder", "other/state.pt", "other/open_clip"),
    *("other/open_clip_quick", "other/custom_text", "other/training"),
    "other/training/epoch_32.pt",
)


def test_every_place_is_tested(loaded):
    assert set(loaded[1]) == set(PLACES)


@pytest.mark.parametrize("place", PLACES)
def test_features_equal_those_of_torch(loaded, place):
    root, wanted, found = loaded
    for kind, expected in zip(("dense", "text"), wanted[place], strict=True):
        got = found[f"{root / place} {kind}"]
        np.testing.assert_allclose(got, expected.numpy(), atol=TOLERANCE, rtol=0)
