"""Pickled checkpoints: converted without running them, or refused with a reason."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dslo_jax.errors import CheckpointError
from dslo_jax.weights import open_weights
from torch_bridge.convert import convert_folder, main, read_pickle


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(4, 3, generator=generator)
    return {"a.weight": first, "tied": first, "b": first.mT, "half": first.half()}


def same(folder, tensors):
    written = open_weights(folder)
    return set(written) == set(tensors) and all(
        np.array_equal(written[key], value.numpy()) for key, value in tensors.items()
    )


@pytest.mark.parametrize(
    ("name", "config", "target"),
    [
        ("pytorch_model.bin", {}, "model"),
        ("pytorch_model.fp16.bin", {}, "model.fp16"),
        ("diffusion_pytorch_model.bin", {}, "diffusion_pytorch_model"),
        ("dino_vitbase8_pretrain.pth", {"model_type": "vit"}, "model"),
        ("weights.pt", {"_class_name": "AutoencoderKL"}, "diffusion_pytorch_model"),
    ],
)
def test_each_pickle_becomes_what_dslo_jax_looks_for(
    tmp_path, tensors, name, config, target
):
    torch.save(tensors, tmp_path / name)
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.save({"lr": 0.1}, tmp_path / "optimizer.bin")
    (line,) = convert_folder(tmp_path)
    assert line.startswith(f"wrote {tmp_path / target}.safetensors (4 tensors")
    assert same(tmp_path, tensors)
    assert (tmp_path / name).is_file()
    assert not list(tmp_path.glob(".*.part"))


def test_a_second_run_keeps_what_is_there(tmp_path, tensors):
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    list(convert_folder(tmp_path))
    before = (tmp_path / "model.safetensors").stat()
    (line,) = convert_folder(tmp_path)
    assert line.startswith("kept")
    assert (tmp_path / "model.safetensors").stat().st_mtime_ns == before.st_mtime_ns


def test_a_pipeline_folder_is_converted_part_by_part(tmp_path, tensors):
    for name, file in {
        "unet": "diffusion_pytorch_model",
        "text": "pytorch_model",
    }.items():
        (tmp_path / name).mkdir()
        torch.save(tensors, tmp_path / name / f"{file}.bin")
    (tmp_path / "model_index.json").write_text("{}")
    assert len(list(convert_folder(tmp_path))) == 2
    assert same(tmp_path / "unet", tensors)
    assert same(tmp_path / "text", tensors)


@pytest.mark.parametrize("variant", ["", ".fp16"])
def test_shards_stay_shards(tmp_path, tensors, variant):
    keys = sorted(tensors)
    places = {}
    for number, part in enumerate((keys[:2], keys[2:]), start=1):
        name = f"pytorch_model-{number:05}-of-00002.bin"
        torch.save({key: tensors[key] for key in part}, tmp_path / name)
        places |= dict.fromkeys(part, name)
    index = tmp_path / f"pytorch_model.bin.index{variant}.json"
    index.write_text(json.dumps({"metadata": {"total": 1}, "weight_map": places}))
    lines = list(convert_folder(tmp_path))
    assert lines[-1].endswith("(4 tensors in 2 shards)")
    assert same(tmp_path, tensors)


def test_an_index_with_a_missing_shard_is_refused(tmp_path, tensors):
    torch.save(tensors, tmp_path / "pytorch_model-00001-of-00002.bin")
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text('{"weight_map": {"a": "pytorch_model-00002-of-00002.bin"}}')
    with pytest.raises(CheckpointError, match=r"W08.*model-00002-of-00002"):
        list(convert_folder(tmp_path))
    assert not (tmp_path / "model.safetensors.index.json").exists()
    index.write_text("[]")
    with pytest.raises(CheckpointError, match=r"W08.*weight_map"):
        list(convert_folder(tmp_path))


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.ckpt"])
def test_code_is_never_run(tmp_path, monkeypatch, tensors, name):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": tensors, "callback": Bomb()}, tmp_path / name)
    with pytest.raises(CheckpointError, match=r"W05.*more than tensors"):
        list(convert_folder(tmp_path))
    (tmp_path / name).write_bytes(pickle.dumps(Bomb(), protocol=2))
    with pytest.raises(CheckpointError, match="W05"):
        list(convert_folder(tmp_path))
    assert not (tmp_path / "exploded").exists()
    assert not list(tmp_path.glob("*.safetensors"))


def test_wrapped_state_dicts_are_unwrapped(tmp_path, tensors):
    path = tmp_path / "model.ckpt"
    torch.save({"epoch": 3, "state_dict": tensors}, path)
    assert set(read_pickle(path)) == set(tensors)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([torch.ones(2)], "holds list"),
        ({}, "holds dict"),
        ({"a": torch.ones(2), "epoch": 3}, "'epoch' is int"),
    ],
    ids=["list", "empty", "number"],
)
def test_what_is_no_state_dict_is_refused(tmp_path, content, reason):
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=rf"W05.*{reason}"):
        read_pickle(tmp_path / "model.pt")


@pytest.mark.parametrize("cut", [0, 10, 400])
def test_damaged_files_are_told_apart(tmp_path, tensors, cut):
    path = tmp_path / "pytorch_model.bin"
    torch.save(tensors, path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(CheckpointError, match=r"W0[45].*pytorch_model.bin"):
        read_pickle(path)


def test_a_failed_write_leaves_nothing_behind(tmp_path, tensors, monkeypatch):
    def full(tensors, path, **_):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    torch.save(tensors, tmp_path / "pytorch_model.bin")
    monkeypatch.setattr("torch_bridge.weights.save_file", full)
    with pytest.raises(OSError, match="No space"):
        list(convert_folder(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["pytorch_model.bin"]


def test_foreign_files_are_named(tmp_path, capsys):
    (tmp_path / "flax_model.msgpack").write_bytes(b"")
    assert main([str(tmp_path)]) == 0
    assert "flax_model.msgpack (Flax file, not PyTorch)" in capsys.readouterr().out


def test_nothing_to_convert_is_an_error(tmp_path, capsys):
    assert main([str(tmp_path)]) == CheckpointError.exit_code
    assert "[W01]" in capsys.readouterr().err
    assert main([str(tmp_path / "absent")]) == CheckpointError.exit_code
    assert "there is no model folder" in capsys.readouterr().err


def test_old_torch_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.5.1+cu121")
    with pytest.raises(CheckpointError, match=r"W05.*CVE-2025-32434"):
        list(convert_folder(tmp_path))


def test_the_command_of_the_w05_message_works(tmp_path, tensors):
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="W05") as refused:
        open_weights(tmp_path)
    command = str(refused.value).split("python ")[1].split()
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("wrote ")
    assert same(tmp_path, tensors)
