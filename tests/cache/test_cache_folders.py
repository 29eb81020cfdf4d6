"""Where the cache is, whose it is, and how large it grows."""

import logging
import os
from types import SimpleNamespace

import pytest

from dslo_jax.cache import folders
from dslo_jax.cache.entries import Entries
from dslo_jax.errors import OptionError


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("DSLO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(folders, "_warned", set())
    return tmp_path / "cache"


def test_the_environment_says_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("DSLO_CACHE", "~/mine")
    assert folders.root() == tmp_path / "home" / "mine"
    monkeypatch.setenv("DSLO_CACHE", "")
    assert folders.root() is None
    monkeypatch.delenv("DSLO_CACHE")
    assert folders.root() == tmp_path / "xdg" / "dslo-jax"
    monkeypatch.setattr("sys.platform", "linux")
    for ignored in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert folders.root() == tmp_path / "home" / ".cache" / "dslo-jax"


@pytest.mark.parametrize(
    ("text", "size"),
    [("", 2 * 10**9), ("0", 0), ("5000", 5000), ("1.5 kb", 1500), ("3G", 3 * 10**9)],
)
def test_sizes(monkeypatch, text, size):
    monkeypatch.setenv("DSLO_CACHE_SIZE", text)
    assert folders.size_limit() == size


@pytest.mark.parametrize("text", ["lots", "-1", "1 XB", "nan", "1 GiB"])
def test_what_is_no_size_is_refused(monkeypatch, text):
    monkeypatch.setenv("DSLO_CACHE_SIZE", text)
    with pytest.raises(OptionError, match=r"O01.*DSLO_CACHE_SIZE.*500 MB"):
        folders.size_limit()


def test_folders_are_private_even_if_they_were_not(root):
    (root / "compiled").mkdir(parents=True)
    (root / "compiled").chmod(0o777)
    before = os.umask(0)
    try:
        folder = folders.private_folder("compiled", "machine")
    finally:
        os.umask(before)
    assert folder == root / "compiled" / "machine"
    for each in (folder, folder.parent):
        assert each.stat().st_mode & 0o777 == 0o700


def test_a_folder_of_another_user_is_not_used(root, monkeypatch, caplog):
    folders.private_folder("compiled")
    monkeypatch.setattr(os, "geteuid", lambda: 123456)
    assert folders.private_folder("compiled") is None
    assert "not a folder of this user" in caplog.text


def test_a_link_to_another_folder_is_not_used(root, tmp_path, caplog):
    root.mkdir()
    (root / "compiled").symlink_to(tmp_path)
    assert folders.private_folder("compiled") is None
    assert "not a folder of this user" in caplog.text


def test_a_place_that_cannot_be_written_is_warned_about_once(root, caplog):
    root.write_text("a file where the folder should be")
    for _ in range(3):
        assert folders.private_folder("names") is None
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "DSLO_CACHE" in record.getMessage()
    assert str(root) not in record.getMessage()


def test_machines_and_versions_have_folders_of_their_own(monkeypatch):
    def device(kind="cpu", platform="cpu"):
        client = SimpleNamespace(platform_version="driver 1")
        return SimpleNamespace(device_kind=kind, platform=platform, client=client)

    keys = [folders.machine_key(device(*each)) for each in ((), ("H200", "gpu"))]
    # The same kind of device in a machine with another processor.
    monkeypatch.setattr(folders, "processor", lambda: "flags: avx2")
    keys.append(folders.machine_key(device()))
    monkeypatch.setattr(folders, "processor", lambda: "flags: avx2 avx512f")
    keys.append(folders.machine_key(device()))
    monkeypatch.setattr(folders, "version", lambda name: "99")
    keys.append(folders.machine_key(device()))
    assert len(set(keys)) == len(keys)
    assert folders.machine_key(device()) == keys[-1]
    assert "jaxlib-99-cpu-" in keys[-1]


def test_entries_that_were_not_used_for_longest_go_first(root, monkeypatch):
    entries = Entries(folders.private_folder("compiled"))
    for age, name in enumerate(("a", "b", "c", "d")):
        entries.write(name, b"x" * 1000)
        os.utime(root / "compiled" / name, (1000 + age, 1000 + age))
    assert entries.read("a") is not None  # and so it was used last
    monkeypatch.setenv("DSLO_CACHE_SIZE", "3500")
    Entries(folders.private_folder("compiled")).write("e", b"x" * 1000)
    left = sorted(path.name for path in (root / "compiled").iterdir())
    assert left == ["a", "d", "e"]
    entries.write("large", b"x" * 4000)  # larger than the whole cache
    assert entries.read("large") is None
    assert folders.content_of(root).size <= 3500


@pytest.mark.parametrize("damage", [b"", b"short", b"garbage" * 100, None])
def test_a_damaged_entry_is_removed_with_a_warning(root, caplog, damage):
    entries = Entries(folders.private_folder("compiled"))
    entries.write("a", b"content")
    path = root / "compiled" / "a"
    path.write_bytes(path.read_bytes()[:-1] if damage is None else damage)
    assert entries.read("a") is None
    assert "made again" in caplog.text
    assert not path.exists()
    entries.write("a", b"content")
    assert entries.read("a") == b"content"


def test_a_full_disk_stops_no_run(root, monkeypatch, caplog):
    entries = Entries(folders.private_folder("compiled"))

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    for name in ("a", "b"):
        entries.write(name, b"content")
    assert list((root / "compiled").iterdir()) == []
    assert len(caplog.records) == 1
    assert "No space left" in caplog.text
