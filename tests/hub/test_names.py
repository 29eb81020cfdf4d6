"""Presets, repositories and missing paths, and the files that are downloaded."""

import hashlib
import json
import os
import socket
import subprocess
import sys

import pytest
from checkpoints.repositories import files_of

from dslo_jax import hub
from dslo_jax.errors import CheckpointError
from dslo_jax.hub import repositories


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def refusal(*arguments, **options) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        hub.resolve(*arguments, **options)
    return caught.value


CLIP = files_of("clip", "", extra=("model.safetensors",))


# ---- names ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["./sd2", "/no/where", "~/sd2", "a/b/c", r"C:\sd2", "ViT-B-16.pt"]
)
def test_a_path_that_does_not_exist(name, local_hub):
    error = refusal(name, "diffusion")
    assert error.code == "W01"
    assert "looks like a folder or a file, and does not exist in" in str(error)
    assert local_hub.asked == []


def test_a_folder_that_is_missing_beside_others_is_no_repository(local_hub, tmp_path):
    (tmp_path / "models" / "clip-b16").mkdir(parents=True)
    error = refusal("models/clip", "clip")
    assert error.code == "W01"
    assert "models holds clip-b16" in str(error)
    assert "for the repository of that name write models/clip@main" in str(error)
    assert local_hub.asked == []
    local_hub.add("models/clip", CLIP)
    assert hub.resolve("models/clip@main", "clip")


def test_the_repository_of_a_preset_is_one_whatever_folders_there_are(
    local_hub, tmp_path
):
    (tmp_path / "openai").mkdir()
    local_hub.add("openai/clip-vit-large-patch14", CLIP)
    assert hub.resolve("openai/clip-vit-large-patch14", "clip")


def test_what_is_neither_a_folder_nor_a_repository(local_hub, tmp_path):
    error = refusal("models/clip", "clip")
    assert str(error).startswith(
        f"[W09] there is no folder 'models/clip' in {tmp_path}"
    )
    assert "models/clip@main is gone, private or misspelt" in str(error)


def test_a_typo_gets_the_nearest_preset(local_hub):
    error = refusal("sd2-bsae", "diffusion")
    assert error.code == "W01"
    assert "did you mean 'sd2-base'?" in str(error)
    assert "clip-b16" not in str(error)
    assert "did you mean" not in str(refusal("zzz", "clip"))
    assert "did you mean 'dinov2-b14'" in str(refusal("dinov2b14", "attention"))
    assert local_hub.asked == []


def test_a_preset_of_the_other_kind(local_hub):
    assert refusal("clip-b16", "diffusion").code == "W06"
    assert local_hub.asked == []


def test_a_repository_may_name_its_revision(local_hub):
    local_hub.add("me/clip", CLIP, revision="refs/pr/3", commit="c" * 40)
    assert hub.resolve("me/clip@refs/pr/3", "clip").name == "c" * 40
    assert hub.resolve("me/clip@refs/pr/3", "clip", offline=True).name == "c" * 40
    assert hub.resolve("me/clip@" + "c" * 40, "clip", offline=True).name == "c" * 40
    assert refusal("me/clip@v2", "clip").code == "W01"


def test_the_source_of_a_download_is_known_without_reading_it(local_hub, tmp_path):
    local_hub.add("me/clip-b", CLIP, commit="c" * 40)
    folder = hub.resolve("me/clip-b", "clip")
    source = hub.source_of(folder)
    assert source is not None
    assert (source.repository, source.revision) == ("me/clip-b", "c" * 40)
    weights = {name: each for name, each in source.hashes if name.endswith("tensors")}
    found = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert weights == {"model.safetensors": found}
    assert hub.source_of(tmp_path) is None
    assert hub.source_of(folder / "model.safetensors") is None


# ---- what is fetched -----------------------------------------------------------------


def test_only_what_a_pipeline_needs_is_fetched(local_hub):
    local_hub.add("me/sd", files_of("diffusion", ""))
    folder = hub.resolve("me/sd", "attention")
    found = {path.name for path in folder.rglob("*") if path.is_file()}
    assert found == {
        *("model_index.json", "config.json", "merges.txt", "vocab.json"),
        *("special_tokens_map.json", "tokenizer_config.json", "scheduler_config.json"),
        *("model.safetensors", "diffusion_pytorch_model.safetensors"),
    }


def test_half_precision_where_nothing_else_is_offered(local_hub):
    files = files_of("diffusion", "")
    for name in list(files):
        if name.endswith((".bin", "model.safetensors", "non_ema.safetensors")):
            del files[name]
    local_hub.add("me/sd", files)
    folder = hub.resolve("me/sd", "diffusion")
    assert (folder / "unet" / "diffusion_pytorch_model.fp16.safetensors").is_file()
    local_hub.asked.clear()
    assert hub.resolve("me/sd", "diffusion") == folder
    assert local_hub.asked == []


def test_attention_may_come_from_a_repository_of_any_kind(local_hub):
    local_hub.add("me/dino", files_of("vit", ""))
    local_hub.add("me/clip", CLIP)
    for name in ("me/dino", "me/clip"):
        folder = hub.resolve(name, "attention")
        assert (folder / "model.safetensors").is_file()


def test_a_repository_that_lacks_a_network(local_hub):
    files = files_of("diffusion", "")
    for name in list(files):
        if name.startswith("vae/") and not name.endswith(".json"):
            del files[name]
    local_hub.add("me/sd", files)
    error = refusal("me/sd", "diffusion")
    assert error.code == "W01"
    assert "me/sd@main offers no vae" in str(error)
    local_hub.add("me/other", files_of("diffusion", "") | {"vae/config.json": b"{"})
    assert refusal("me/other", "diffusion").code == "W08"


def test_a_repository_without_weights(local_hub):
    files = {"config.json": CLIP["config.json"], "tf_model.h5": bytes(2_000_000)}
    local_hub.add("me/clip", files)
    error = refusal("me/clip", "clip")
    assert error.code == "W01"
    assert "its large files are: tf_model.h5" in str(error)
    assert local_hub.downloads() == ["clip"]


# ---- what is cached, and the network turned off --------------------------------------


@pytest.fixture
def no_socket(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def cached(tmp_path, repository, files, commit="c" * 40):
    """A snapshot in the layout of the download cache."""
    from checkpoints.repositories import write_files

    folder = tmp_path / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    return write_files(folder / "snapshots" / commit, files)


def test_what_is_cached_opens_no_socket(tmp_path, no_socket):
    mirror = hub.PRESETS["sd2-base"].mirrors[0]
    files = files_of("diffusion", "")
    folder = cached(tmp_path, mirror.repository, files, str(mirror.revision))
    assert hub.resolve("sd2-base", "diffusion", cache=tmp_path) == folder
    folder = cached(tmp_path, "me/clip", CLIP)
    assert hub.resolve("me/clip", "clip", cache=tmp_path, offline=True) == folder


def test_offline_and_not_cached(tmp_path, no_socket):
    error = refusal("clip-b16", "clip", offline=True, cache=tmp_path)
    assert error.code == "W10"
    for words in (
        str(tmp_path),
        "clip-vit-base-patch16",
        "dslo weights clip-b16",
        "--clip models/clip-b16",
        "--model demo",
    ):
        assert words in str(error)
    assert len(str(error).splitlines()) == 5


def test_offline_and_half_cached(tmp_path, no_socket):
    files = {"config.json": CLIP["config.json"]}
    folder = cached(tmp_path, "me/clip", files)
    error = refusal("me/clip", "clip", offline=True, cache=tmp_path)
    assert error.code == "W10"
    assert str(folder) in str(error)
    assert "dslo weights --kind clip me/clip" in str(error)
    assert "demo" not in str(error)


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


# ---- what is told and kept -----------------------------------------------------------


def test_a_download_is_announced_with_its_size_and_place(local_hub, caplog, tmp_path):
    files = CLIP | {"model.safetensors": bytes(3_000_000)}
    local_hub.add("me/clip", files)
    with caplog.at_level("INFO", logger="dslo_jax.hub"):
        refusal("me/clip", "clip")  # these bytes are no weights
    told = [record.getMessage() for record in caplog.records]
    assert told == [f"downloading me/clip@main (3 MB) to {tmp_path / 'cache'}"]


def test_a_file_that_was_cut_off_is_continued(local_hub, monkeypatch):
    """The connection breaks, the program is interrupted, and the next run goes on."""
    content = CLIP["model.safetensors"]
    local_hub.add("me/clip", CLIP)
    local_hub.cut["model.safetensors"] = 1000

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 100)
    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.file_download.time.sleep", interrupted)
        with pytest.raises(KeyboardInterrupt):
            hub.resolve("me/clip", "clip")
    folder = hub.resolve("me/clip", "clip")
    assert (folder / "model.safetensors").read_bytes() == content
    assert local_hub.sent["model.safetensors"] == len(content)
    store = folder.parent.parent / "blobs"
    assert not [path for path in store.iterdir() if "part" in path.name]


def test_a_download_of_other_bytes_is_refused_and_thrown_away(local_hub, tmp_path):
    local_hub.add("me/clip", CLIP)
    local_hub.lies["model.safetensors"] = "0" * 64
    error = refusal("me/clip", "clip")
    assert error.code == "W02"
    assert "0" * 64 in str(error)
    left = [p for p in (tmp_path / "cache").rglob("*") if p.suffix == ".dslo-part"]
    assert left == []


def test_too_little_room_is_told_before_anything_is_fetched(local_hub, monkeypatch):
    local_hub.add("me/clip", CLIP)
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    error = refusal("me/clip", "clip")
    assert error.code == "W11"
    assert "only 1 kB are free" in str(error)
    assert "HF_HOME" in str(error)
    assert local_hub.downloads() == ["clip"]


def test_a_hub_that_never_answers_is_given_up(local_hub, monkeypatch):
    monkeypatch.setattr(repositories, "_PATIENCE", 0.2)
    monkeypatch.setattr(
        "huggingface_hub.HfApi.model_info", lambda *_, **__: __import__("time").sleep(2)
    )
    error = refusal("clip-b16", "clip")
    assert error.code == "W11"
    assert "cannot be reached" in str(error)


def test_a_configuration_of_another_network_is_refused_before_its_weights_load(
    local_hub,
):
    config = json.dumps({"model_type": "siglip"}).encode()
    local_hub.add("me/clip", CLIP | {"config.json": config})
    assert refusal("me/clip", "clip").code == "W06"
