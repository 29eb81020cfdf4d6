"""Conversion of checkpoints of other formats to safetensors, without torch."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from checkpoints.openai_clip import OpenAiClip, save_archive

from dslo_jax.errors import CheckpointError
from dslo_jax.weights import open_weights, read_config
from torch_bridge.convert import convert, main


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
        ("pytorch_model.fp16.bin", {}, "model"),
        ("diffusion_pytorch_model.bin", {}, "diffusion_pytorch_model"),
        ("dino_vitbase8.pt", {"model_type": "vit"}, "model"),
        ("weights.pt", {"_class_name": "AutoencoderKL"}, "diffusion_pytorch_model"),
    ],
)
def test_each_file_becomes_what_every_program_looks_for(
    tmp_path, tensors, name, config, target
):
    torch.save(tensors, tmp_path / name)
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.save({"lr": 0.1}, tmp_path / "optimizer.bin")
    (line,) = convert(tmp_path)
    assert line.startswith(f"wrote {tmp_path / target}.safetensors (4 tensors")
    assert same(tmp_path / f"{target}.safetensors", tensors)
    assert (tmp_path / name).is_file()
    assert not list(tmp_path.glob(".*.part"))


def test_a_second_run_keeps_what_is_there(tmp_path, tensors):
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    list(convert(tmp_path))
    before = (tmp_path / "model.safetensors").stat()
    for place in (tmp_path, tmp_path / "pytorch_model.bin"):
        (line,) = convert(place)
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
    assert len(list(convert(tmp_path))) == 2
    assert same(tmp_path / "unet", tensors)
    assert same(tmp_path / "text", tensors)


def test_shards_become_one_file(tmp_path, tensors):
    keys = sorted(tensors)
    places = {}
    for number, part in enumerate((keys[:2], keys[2:]), start=1):
        name = f"pytorch_model-{number:05}-of-00002.bin"
        torch.save({key: tensors[key] for key in part}, tmp_path / name)
        places |= dict.fromkeys(part, name)
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"metadata": {"total": 1}, "weight_map": places}))
    (line,) = convert(tmp_path)
    assert line.startswith(f"wrote {tmp_path / 'model.safetensors'} (4 tensors")
    assert same(tmp_path / "model.safetensors", tensors)


def test_openai_is_respelt_and_described(tmp_path):
    source = tmp_path / "ViT-B-16.pt"
    save_archive(OpenAiClip(seed=0), source)
    wrote, described = convert(source)
    assert wrote.startswith(f"wrote {tmp_path / 'model.safetensors'}")
    assert described == f"wrote {tmp_path / 'config.json'}"
    assert read_config(tmp_path) == read_config(source)
    assert {*open_weights(tmp_path)} == {*open_weights(source)}
    assert "vision_model.embeddings.class_embedding" in open_weights(tmp_path)


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def test_code_is_never_run(tmp_path, monkeypatch, tensors):
    monkeypatch.chdir(tmp_path)
    content = {"state_dict": tensors, "callback": Bomb()}
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"W05.*posix.mkdir.*not run"):
        list(convert(tmp_path))
    assert not (tmp_path / "exploded").exists()
    assert not list(tmp_path.glob("*.safetensors"))


def test_a_failed_write_leaves_nothing_behind(tmp_path, tensors, monkeypatch):
    def full(tensors, path, **_):
        with open(path, "wb") as file:
            file.write(b"half")
        raise OSError(28, "No space left on device")

    torch.save(tensors, tmp_path / "pytorch_model.bin")
    monkeypatch.setattr("torch_bridge.convert.save_file", full)
    with pytest.raises(OSError, match="No space"):
        list(convert(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["pytorch_model.bin"]


def test_nothing_to_convert_is_an_error(tmp_path, capsys):
    assert main([str(tmp_path)]) == CheckpointError.exit_code
    assert "[W01]" in capsys.readouterr().err
    assert main([str(tmp_path / "absent")]) == CheckpointError.exit_code
    assert "there is no model folder" in capsys.readouterr().err


def test_a_git_lfs_pointer_is_told_so(tmp_path, capsys):
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\n"
    (tmp_path / "pytorch_model.bin").write_text(pointer)
    assert main([str(tmp_path)]) == CheckpointError.exit_code
    error = capsys.readouterr().err
    assert "[W03]" in error
    assert "git lfs pull" in error


def test_the_command_needs_no_torch(tmp_path, tensors):
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    (tmp_path / "torch.py").write_text("raise ImportError('torch is not installed')")
    command = [sys.executable, "-m", "torch_bridge.convert", str(tmp_path)]
    paths = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": paths},
    )
    assert done.stdout.startswith("wrote ")
    assert same(tmp_path / "model.safetensors", tensors)
