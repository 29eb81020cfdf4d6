"""Checkpoints on disk: complete ones, ones of another kind, and missing files."""

import json
import shutil
from pathlib import Path

import pytest
from checkpoints.repositories import files_of, write_files
from checkpoints.vit import save_vit

from dslo_jax import hub
from dslo_jax.attention import AffinityOptions, load_affinity
from dslo_jax.errors import CheckpointError
from dslo_jax.hub.folders import in_half


def write_clip(folder: Path) -> Path:
    return write_files(folder, files_of("clip", "", extra=("model.safetensors",)))


def write_diffusion(folder: Path) -> Path:
    return write_files(folder, files_of("diffusion", ""))


def write_vit(folder: Path, kind: str = "dinov2") -> Path:
    write_files(folder, files_of("vit", ""))
    (folder / "config.json").write_text(json.dumps({"model_type": kind}))
    return folder


def refusal(place, kind) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        hub.resolve(place, kind, offline=True)
    return caught.value


def test_a_folder_is_used_as_it_is(tmp_path):
    clip = write_clip(tmp_path / "clip")
    assert hub.resolve(clip, "clip") == clip
    assert hub.resolve(str(clip), "clip", offline=True) == clip
    pipeline = write_diffusion(tmp_path / "sd")
    assert hub.resolve(pipeline, "diffusion") == pipeline


def test_a_single_file_is_a_checkpoint_too(tmp_path):
    file = write_clip(tmp_path / "clip") / "model.safetensors"
    assert hub.resolve(str(file), "clip") == file
    assert hub.attention_of(file) == "clip"
    (file.parent / "config.json").unlink()
    assert refusal(file, "clip").code == "W01"


def test_a_dinov2_giant_is_a_folder_a_file_or_a_repository(tmp_path, local_hub):
    folder = tmp_path / "giant"
    save_vit(folder, "dinov2", seed=1, use_swiglu_ffn=True)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    local_hub.add("facebook/dinov2-giant", files)
    names = (folder, folder / "model.safetensors", "facebook/dinov2-giant")
    for name in names:
        place = hub.resolve(name, "attention")
        source = load_affinity(place, options=AffinityOptions(size=64))
        assert source.grid == (8, 8)


def test_a_single_file_is_no_pipeline(tmp_path):
    file = tmp_path / "v1-5.safetensors"
    file.write_bytes(b"")
    error = refusal(file, "diffusion")
    assert error.code == "W01"
    assert "is a single file; expected the folder of a diffusers" in str(error)


def test_a_stored_empty_prompt_replaces_the_text_encoder(tmp_path):
    folder = write_diffusion(tmp_path / "sd")
    shutil.rmtree(folder / "text_encoder")
    shutil.rmtree(folder / "tokenizer")
    assert "text_encoder/config.json" in str(refusal(folder, "diffusion"))
    (folder / "empty_prompt.safetensors").write_bytes(b"")
    assert hub.resolve(folder, "diffusion") == folder


def test_a_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    clip = write_clip(tmp_path / "clip")
    assert hub.resolve("~/clip", "clip") == clip


def test_a_folder_of_the_other_kind_is_told(tmp_path):
    clip = write_clip(tmp_path / "clip")
    error = refusal(clip, "diffusion")
    assert error.code == "W01"
    for part in ("unet/config.json", "vae/", "text_encoder/", "tokenizer/tokenizer"):
        assert part in str(error)
    assert "this is a CLIP folder, pass it with --clip" in str(error)
    error = refusal(write_diffusion(tmp_path / "sd"), "clip")
    assert "this is a diffusion pipeline, pass it with --attention" in str(error)


def test_attention_may_come_from_any_kind(tmp_path):
    folders = {
        "clip": write_clip(tmp_path / "clip"),
        "diffusion": write_diffusion(tmp_path / "sd"),
        "vit": write_vit(tmp_path / "dino", "vit"),
    }
    for kind, folder in folders.items():
        assert hub.resolve(folder, "attention") == folder
        assert hub.resolve(folder, kind) == folder
        assert hub.attention_of(folder) == kind
    error = refusal(folders["vit"], "clip")
    assert "this is a vision transformer, pass it with --attention" in str(error)
    error = refusal(write_vit(tmp_path / "other", "siglip"), "attention")
    assert error.code == "W06"
    assert "'siglip'; expected a diffusers pipeline" in str(error)
    (folders["diffusion"] / "unet" / "config.json").unlink()
    assert "lacks unet/config.json" in str(refusal(folders["diffusion"], "attention"))
    assert "is not a folder" in str(refusal(tmp_path / "absent", "attention"))
    (tmp_path / "empty").mkdir()
    assert "is empty; expected" in str(refusal(tmp_path / "empty", "attention"))


def test_only_what_is_missing_is_named(tmp_path):
    folder = write_diffusion(tmp_path / "sd")
    (folder / "vae" / "config.json").unlink()
    (folder / "tokenizer" / "merges.txt").unlink()
    text = str(refusal(folder, "diffusion"))
    assert "lacks vae/config.json, tokenizer/tokenizer.json" in text
    assert "unet" not in text


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("unet", "_class_name", "SD3Transformer2DModel"),
        ("vae", "_class_name", "VQModel"),
        ("text_encoder", "model_type", "t5"),
    ],
)
def test_a_network_of_another_kind_is_refused(tmp_path, part, field, value):
    folder = write_diffusion(tmp_path / "sd")
    (folder / part / "config.json").write_text(json.dumps({field: value}))
    error = refusal(folder, "diffusion")
    assert error.code == "W06"
    assert field in str(error)
    assert value in str(error)


def test_unusable_weights_are_found_early(tmp_path):
    folder = write_clip(tmp_path / "clip")
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec")
    assert refusal(folder, "clip").code == "W03"
    (folder / "config.json").write_text("{")
    assert refusal(folder, "clip").code == "W08"


def test_a_clip_needs_no_tokenizer_of_its_own(tmp_path):
    folder = write_clip(tmp_path / "clip")
    for name in ("tokenizer.json", "vocab.json", "merges.txt"):
        (folder / name).unlink()
    assert hub.resolve(folder, "clip") == folder


def test_weights_in_half_precision_are_told_from_their_names(tmp_path):
    folder = write_diffusion(tmp_path / "sd")
    assert not in_half(folder, "diffusion")
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    assert in_half(folder, "diffusion")


def test_a_path_is_never_a_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    error = refusal(Path("me/clip"), "clip")
    assert error.code == "W01"
    assert "is not a folder" in str(error)
