"""Time and memory to load a full-size CLIP from every layout of its files.

Each layout is written, loaded by processes of its own that know no torch, and deleted.
The memory is the most that such a process held, above what it held after its imports
(Linux only).

    python benchmarks/make_checkpoint.py CHECKPOINT --clip b16 --clip-only
    python benchmarks/load_formats.py CHECKPOINT/clip --save load-formats
"""

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from flax import serialization, traverse_util
from harness import Record, parse
from safetensors.torch import load_file, save_file


State = Mapping[str, torch.Tensor]
LOAD = """
import json, re, sys, time
sys.modules["torch"] = None
from pathlib import Path
import jax
from flax import nnx
from dslo_jax.models.clip import load_clip
def held():  # not ru_maxrss: a process inherits that of the one that started it
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\\s*(\\d+) kB", status)[1])
before, start = held(), time.perf_counter()
clip = load_clip(Path(sys.argv[1]))
seconds, peak = time.perf_counter() - start, held() - before
parameters = sum(leaf.nbytes for leaf in jax.tree.leaves(nnx.state(clip)))
print(json.dumps({"seconds": seconds, "peak": peak, "parameters": parameters}))
"""
# From transformers to OpenAI; queries, keys and values are joined afterwards.
SPELLINGS = (
    (r"text_model\.embeddings\.position_embedding\.weight", "positional_embedding"),
    (r"text_model\.embeddings\.token_embedding", "token_embedding"),
    (r"text_model\.final_layer_norm", "ln_final"),
    (r"text_model\.encoder\.layers", "transformer.resblocks"),
    (r"text_projection\.weight", "text_projection"),
    (r"vision_model\.embeddings\.position_embedding\.weight", "visual.{positional}"),
    (r"vision_model\.embeddings\.class_embedding", "visual.class_embedding"),
    (r"vision_model\.embeddings\.patch_embedding", "visual.conv1"),
    (r"vision_model\.pre_layrnorm", "visual.ln_pre"),
    (r"vision_model\.post_layernorm", "visual.ln_post"),
    (r"vision_model\.encoder\.layers", "visual.transformer.resblocks"),
    (r"visual_projection\.weight", "visual.proj"),
    (r"\{positional\}", "positional_embedding"),
    (r"self_attn\.out_proj", "attn.out_proj"),
    (r"layer_norm(\d)", r"ln_\1"),
    (r"mlp\.fc1", "mlp.c_fc"),
    (r"mlp\.fc2", "mlp.c_proj"),
)


def as_openai(state: State) -> dict[str, torch.Tensor]:
    """The spelling of OpenAI, with the three numbers that mark its files."""
    sizes = {"input_resolution": 224, "context_length": 77, "vocab_size": 49408}
    spelt = {name: torch.tensor(size) for name, size in sizes.items()}
    for key, value in state.items():
        name = key
        for theirs, ours in SPELLINGS:
            name = re.sub(theirs, ours, name)
        if match := re.fullmatch(r"(.*)self_attn\.q_proj\.(.*)", name):
            parts = [state[key.replace("q_proj", f"{p}_proj")] for p in "qkv"]
            spelt[f"{match[1]}attn.in_proj_{match[2]}"] = torch.cat(parts)
        elif name in ("text_projection", "visual.proj"):
            spelt[name] = value.T.contiguous()
        elif "self_attn" not in name:
            spelt[name] = value
    return spelt


class Holder(torch.nn.Module):
    """Modules that hold these tensors under these names, and compute nothing."""

    def __init__(self, state: State):
        super().__init__()
        parts: dict[str, dict[str, torch.Tensor]] = {}
        for name, value in state.items():
            head, _, rest = name.partition(".")
            if rest:
                parts.setdefault(head, {})[rest] = value
            else:
                self.register_buffer(head, value)
        for head, part in parts.items():
            self.add_module(head, Holder(part))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Nothing."""
        return x


def save_archive(state: State, path: Path) -> None:
    """Write a TorchScript archive of half precision, as OpenAI publishes them."""
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(Holder(half)).save(path)


def save_flax(state: State, path: Path) -> None:
    """Write the tree of a Flax model, after the rules that transformers published."""
    flat = {}
    for key, value in state.items():
        *parts, leaf = key.split(".")
        array = value.numpy()
        if leaf == "weight" and parts[-1] in ("token_embedding", "position_embedding"):
            leaf = "embedding"
        elif leaf == "weight" and array.ndim > 1:
            leaf = "kernel"
            array = array.T if array.ndim == 2 else array.transpose(2, 3, 1, 0)
        elif leaf == "weight":
            leaf = "scale"
        flat[(*parts, leaf)] = array
    path.write_bytes(
        serialization.msgpack_serialize(traverse_util.unflatten_dict(flat))
    )


def save_shards(state: State, folder: Path) -> None:
    """Write two shards and their index."""
    keys, places = list(state), {}
    for number, part in enumerate((keys[::2], keys[1::2]), start=1):
        name = f"pytorch_model-{number:05}-of-00002.bin"
        torch.save({key: state[key] for key in part}, folder / name)
        places |= dict.fromkeys(part, name)
    index = folder / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": places}))


def half(state: State) -> dict[str, torch.Tensor]:
    """The same in 16 bits."""
    return {key: value.half() for key, value in state.items()}


def old(state: State, path: Path) -> None:
    """Write as before PyTorch 1.6."""
    torch.save(dict(state), path, _use_new_zipfile_serialization=False)


LAYOUTS: Mapping[str, Callable[[State, Path], object]] = {
    "safetensors": lambda s, f: save_file(dict(s), f / "model.safetensors"),
    "safetensors, fp16": lambda s, f: save_file(half(s), f / "model.safetensors"),
    "Flax msgpack": lambda s, f: save_flax(s, f / "flax_model.msgpack"),
    "PyTorch .bin": lambda s, f: torch.save(dict(s), f / "pytorch_model.bin"),
    "PyTorch .bin, fp16": lambda s, f: torch.save(half(s), f / "pytorch_model.bin"),
    "PyTorch .bin, before 1.6": lambda s, f: old(s, f / "pytorch_model.bin"),
    "PyTorch .bin, two shards": save_shards,
    "OpenAI archive, fp16": lambda s, f: save_archive(as_openai(s), f / "ViT-B-16.pt"),
    "OpenAI state dict": lambda s, f: torch.save(as_openai(s), f / "a.pt"),
}


def measure(place: Path, repeats: int) -> tuple[list[float], int, int]:
    """Seconds of each load, the greatest peak, and the parameters, both in bytes."""
    runs = []
    for _ in range(repeats):
        command = [sys.executable, "-c", LOAD, str(place)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        runs.append(json.loads(done.stdout))
    peak = max(run["peak"] for run in runs)
    return [run["seconds"] for run in runs], peak, runs[0]["parameters"]


def main() -> None:
    """Write, load and delete each layout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="a CLIP of make_checkpoint.py")
    options = parse(parser, repeats=3)
    record = Record("dslo.bench.load_formats.v1", options)
    state = load_file(Path(options.folder, "model.safetensors"))
    for name, write in LAYOUTS.items():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            shutil.copy(Path(options.folder, "config.json"), folder)
            write(state, folder)
            size = sum(path.stat().st_size for path in folder.iterdir())
            seconds, peak, parameters = measure(folder, options.repeats)
        row = {
            "name": name,
            "file_bytes": size,
            "parameter_bytes": parameters,
            "peak_bytes": peak,
            "samples_s": seconds,
            "median_s": statistics.median(seconds),
        }
        words = (
            f"{row['median_s']:.2f} s, {peak / 1e6:.0f} MB, file {size / 1e6:.0f} MB"
        )
        record.add(row, f"{name}: {words}")
    record.end()


if __name__ == "__main__":
    main()
