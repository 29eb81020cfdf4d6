"""Errors about checkpoints that are not available: one message for each cause."""

import errno
import os
import subprocess
import sys
import time

import httpx2
import pytest
from checkpoints.repositories import files_of
from huggingface_hub import errors

from dslo_jax import cli, hub
from dslo_jax.errors import CheckpointError
from dslo_jax.hub import messages


SECRET = "hf_averysecrettoken"
MIRROR = hub.Mirror("me/clip")


def http_error(kind: type[Exception], status: int) -> Exception:
    request = httpx2.Request("GET", f"https://{SECRET}@huggingface.co/api/models/a/b")
    return kind(
        f"Authorization: Bearer {SECRET}",
        response=httpx2.Response(status, request=request),
    )


def not_found_locally(cause: Exception) -> Exception:
    error = errors.LocalEntryNotFoundError(f"no folder for {SECRET}")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (http_error(errors.RepositoryNotFoundError, 404), "W01", "gone, or never was"),
        (http_error(errors.RepositoryNotFoundError, 401), "W09", "401 to all three"),
        (http_error(errors.HfHubHTTPError, 401), "W09", "401 to all three"),
        (http_error(errors.GatedRepoError, 403), "W09", "is gated: accept"),
        (http_error(errors.GatedRepoError, 401), "W09", "is gated: accept"),
        (http_error(errors.DisabledRepoError, 403), "W01", "disabled"),
        (http_error(errors.RevisionNotFoundError, 404), "W01", "no such revision"),
        (http_error(errors.HfHubHTTPError, 403), "W09", "closed to this"),
        (http_error(errors.HfHubHTTPError, 503), "W11", "HTTP 503"),
        (not_found_locally(httpx2.ConnectError(SECRET)), "W11", "cannot be reached"),
        (httpx2.ConnectTimeout(SECRET), "W11", "cannot be reached"),
        (httpx2.ReadError(SECRET), "W11", "broke (ReadError)"),
        (TimeoutError(), "W11", "cannot be reached"),
        (OSError(errno.ENOSPC, SECRET), "W11", os.strerror(errno.ENOSPC)),
        (errors.HFValidationError(SECRET), "W01", "no valid name"),
        (CheckpointError("W04", "damaged"), "W04", "damaged"),
    ],
)
def test_each_cause_has_its_message(error, code, words):
    assert messages.is_about_download(error)
    told = messages.explain(error, MIRROR)
    assert told.code == code
    assert words in str(told)
    assert SECRET not in str(told)
    assert "me/clip@main" in str(told) or code == "W04"


def test_a_mistake_of_a_program_is_not_taken_for_a_broken_network():
    assert not messages.is_about_download(TypeError("no such argument"))


@pytest.mark.parametrize(
    "error", [httpx2.ProxyError(SECRET), http_error(errors.HfHubHTTPError, 407)]
)
def test_a_proxy_is_named_without_its_password(error, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:{SECRET}@proxy.example:3128")
    told = str(messages.explain(error, MIRROR))
    assert "the proxy proxy.example:3128 (HTTPS_PROXY) refused" in told
    assert SECRET not in told


@pytest.mark.parametrize("status", [401, 404, 403, 503])
@pytest.mark.parametrize("name", list(hub.PRESETS))
def test_a_preset_that_cannot_be_had_shows_every_way_on(local_hub, name, status):
    """At most five lines: the reason, the download, by hand, the option, the pair."""
    preset = hub.PRESETS[name]
    for mirror in preset.mirrors:
        local_hub.status[mirror.repository] = status
    with pytest.raises(CheckpointError) as caught:
        hub.resolve(name, preset.kind)
    lines = str(caught.value).splitlines()
    assert len(lines) == 5
    assert lines[0].startswith(f"[{caught.value.code}] {name} cannot be used: ")
    first = preset.mirrors[0].repository
    assert f"about {preset.megabytes / 1000:.1f} GB" in lines[1] or " MB, " in lines[1]
    assert f"{local_hub.address}/{first}" in lines[1]
    assert f"models/{name}" in lines[2]
    option = "--clip" if preset.kind == "clip" else "--attention"
    assert lines[3].endswith(f"{option} models/{name}")
    assert "--model demo" in lines[4]


def test_one_reason_for_all_mirrors_is_said_once_where_it_is_the_same_place(local_hub):
    local_hub.status["openai/clip-vit-base-patch16"] = 503
    with pytest.raises(CheckpointError) as caught:
        hub.resolve("clip-b16", "clip")
    assert caught.value.code == "W11"
    assert str(caught.value).count("HTTP 503") == 1


def test_mirrors_that_fail_for_reasons_of_their_own(local_hub):
    first, second = (mirror.repository for mirror in hub.PRESETS["sd2-base"].mirrors)
    local_hub.status |= {first: 404, second: 401}
    with pytest.raises(CheckpointError) as caught:
        hub.resolve("sd2-base", "diffusion")
    assert caught.value.code == "W12"
    assert f"{first}@f5bc1bd97485577aa0b946fa8a9004e2ec147402 is gone" in str(
        caught.value
    )
    assert f"{second}@main is gone, private or misspelt" in str(caught.value)


def test_what_a_person_names_is_not_replaced_by_an_offer(local_hub, tmp_path):
    lacking = tmp_path / "clip"
    lacking.mkdir()
    for name, kind in (
        ("me/clip", "clip"),  # a repository of somebody's own
        ("clip-b17", "clip"),
        ("sd2-base", "clip"),
        (str(lacking), "clip"),
        (lacking, "clip"),
        (tmp_path / "absent", "diffusion"),
    ):
        with pytest.raises(CheckpointError) as caught:
            hub.resolve(name, kind)
        assert "demo" not in str(caught.value)


def test_a_renamed_repository_is_followed(local_hub, caplog):
    files = files_of("clip", "", extra=("model.safetensors",))
    local_hub.add("new/clip", files)
    local_hub.renamed["old/clip"] = "new/clip"
    with caplog.at_level("INFO", logger="dslo_jax.hub"):
        folder = hub.resolve("old/clip", "clip")
    assert (folder / "model.safetensors").is_file()
    assert "old/clip is called new/clip now" in caplog.text


# ---- the command line ----------------------------------------------------------------


def test_all_checkpoints_are_listed_with_their_state(local_hub, capsys):
    assert cli.main(["weights"]) == 0
    rows = capsys.readouterr().out.splitlines()[1:]
    assert [row.split()[0] for row in rows] == list(hub.PRESETS)
    assert all(row.rstrip().endswith("not here") for row in rows)
    assert local_hub.asked == []


def test_a_checkpoint_is_fetched_told_and_listed(local_hub, capsys, tmp_path):
    mirror = hub.PRESETS["dino-b8"].mirrors[0]
    local_hub.add(mirror.repository, files_of("vit", ""))
    assert cli.main(["weights", "dino-b8"]) == 4  # not the file of the real hash
    assert "name it in place of the preset" in capsys.readouterr().err
    name = f"{mirror.repository}@main"
    assert cli.main(["weights", "--kind", "vit", name]) == 0
    assert capsys.readouterr().out.startswith(f"{name} {tmp_path / 'cache'}")
    assert cli.main(["weights"]) == 0
    assert (
        "dino-b8         vit        about 343 MB  unusable (W02)"
        in capsys.readouterr().out
    )


def test_a_pair_is_fetched_as_its_checkpoints(local_hub, capsys):
    assert cli.main(["weights", "sd2+clip-b16"]) == 4
    assert "clip-b16 cannot be used" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("answer", ["refused", "silent"])
def test_without_a_network_the_first_command_ends_within_ten_seconds(answer, tmp_path):
    """Nobody listens, or somebody who never answers; both on this machine."""
    import socket

    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    if answer == "refused":
        listener.close()
    environment = os.environ | {
        "HF_ENDPOINT": f"http://127.0.0.1:{port}",
        "HF_HOME": str(tmp_path),
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, "-m", "dslo_jax", "segment", "photo.jpg"]
    (tmp_path / "photo.jpg").write_bytes(b"")
    start = time.monotonic()
    done = subprocess.run(
        [*command, "--classes", "cat, sofa"],
        env=environment,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    seconds = time.monotonic() - start
    listener.close()
    assert done.returncode == 4
    lines = done.stderr.splitlines()
    assert len(lines[lines.index(next(x for x in lines if "error" in x)) :]) == 5
    assert "cannot be reached" in done.stderr
    assert seconds < 10
