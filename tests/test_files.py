"""Files are written whole or not at all, and survive a power cut."""

import errno
import json
import math
import os
import stat
from contextlib import nullcontext

import pytest

from dslo_jax import SegmenterConfig
from dslo_jax.bench import results
from dslo_jax.files import atomic_file, read_text, write_json
from dslo_jax.weights import read_object


def test_bytes_then_name_reach_the_disk(tmp_path, monkeypatch):
    """The file before it is renamed, and its folder after."""
    path, flushed, fsync = tmp_path / "a.txt", [], os.fsync

    def noted(file):
        names = sorted(path.name for path in tmp_path.iterdir())
        flushed.append((stat.S_ISDIR(os.fstat(file).st_mode), names))
        fsync(file)

    monkeypatch.setattr(os, "fsync", noted)
    with atomic_file(path) as file:
        file.write(b"new")
    (is_folder, (hidden,)), last = flushed
    assert not is_folder
    assert hidden.endswith(".part")
    assert last == (True, ["a.txt"])


@pytest.mark.parametrize(
    ("code", "told"), [(errno.EINVAL, False), (errno.ENOTSUP, False), (errno.EIO, True)]
)
def test_only_a_folder_that_can_be_flushed_may_fail(tmp_path, monkeypatch, code, told):
    path, fsync = tmp_path / "a.txt", os.fsync

    def files_only(file):
        if stat.S_ISDIR(os.fstat(file).st_mode):
            raise OSError(code, os.strerror(code))
        fsync(file)

    monkeypatch.setattr(os, "fsync", files_only)
    expected = pytest.raises(OSError, match="error") if told else nullcontext()
    with expected, atomic_file(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"


def test_a_folder_that_cannot_be_opened_is_no_failure(tmp_path, monkeypatch):
    """As on Windows, or where it may be written and not read."""

    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with atomic_file(tmp_path / "a.txt") as file:
        file.write(b"new")
    assert (tmp_path / "a.txt").read_bytes() == b"new"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_of_any_editor(tmp_path, encoding):
    path = tmp_path / "a.txt"
    path.write_bytes("é = 1\r\n".encode(encoding))
    assert read_text(path) == "é = 1\r\n"


def test_what_is_no_text(tmp_path):
    for content in (b"\xff\xfea", b"caf\xe9"):
        (tmp_path / "a.txt").write_bytes(content)
        with pytest.raises(UnicodeDecodeError):
            read_text(tmp_path / "a.txt")


def test_json_is_strict_and_replaces_no_file_in_vain(tmp_path):
    path = tmp_path / "result.json"
    write_json(path, {"rows": [1.5]})
    assert json.loads(path.read_text()) == {"rows": [1.5]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"rows": [math.nan]})
    assert json.loads(path.read_text()) == {"rows": [1.5]}


@pytest.mark.parametrize("read", [read_object, results._load])
def test_json_of_any_editor(tmp_path, read):
    (tmp_path / "a.json").write_bytes('{"é": 1}\r\n'.encode("utf-8-sig"))
    assert read(tmp_path / "a.json") == {"é": 1}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_options_of_any_editor(tmp_path, encoding):
    (tmp_path / "a.toml").write_bytes('mode = "path"\r\n'.encode(encoding))
    config = SegmenterConfig.from_toml(tmp_path / "a.toml")
    assert config.flat["mode"] == "path"
