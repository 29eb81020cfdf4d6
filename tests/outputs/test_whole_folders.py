"""A photo's results are all there or not at all, whatever ends the program."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from killed_folder import NEW, NEXT, OLD, content

from dslo_jax.files import atomic_folder
from dslo_jax.outputs import write_folder


def texts(files):
    return {name: value.decode() for name, value in files.items()}


def test_killed_at_every_step(tmp_path):
    """Old or new is whole at each step, and the next write cleans up."""
    script = Path(__file__).with_name("killed_folder.py")
    done = subprocess.run(
        [sys.executable, script, tmp_path], capture_output=True, text=True, check=True
    )
    report = json.loads(done.stdout)
    old, new = texts(OLD), texts(NEW)
    seen = set()
    for first, died, found, hidden, after in report:
        assert after == {"cat.jpg": texts(NEXT)}
        if found is None:  # the first write, or the instant between two renames
            assert first or (old in hidden and new in hidden)
        else:
            assert found in (old, new)
        seen.add((first, died, found is None, found == new))
    assert sum(died for _, died, *_ in report) > 30
    assert {(True, False, False, True), (False, False, False, True)} <= seen
    assert (False, True, True, False) in seen  # between the renames
    assert (False, True, False, True) in seen  # after them, before the old is removed


@pytest.mark.parametrize("exists", [False, True])
def test_a_failure_at_every_step(tmp_path, monkeypatch, exists):
    """As with a full disk: an error, no leftovers, and old or new is whole."""
    folder = tmp_path / "cat.jpg"
    outcomes = []
    for step in range(100):
        if exists:
            write_folder(folder, OLD)
        left = [step]

        def failing(function, left=left):
            def fail_at_its_turn(*arguments, **options):
                left[0] -= 1
                if left[0] == -1:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return function(*arguments, **options)

            return fail_at_its_turn

        with monkeypatch.context() as patched:
            for owner, name in [
                *((os, name) for name in ("fsync", "rename", "mkdir")),
                (Path, "write_bytes"),
            ]:
                patched.setattr(owner, name, failing(getattr(owner, name)))
            try:
                write_folder(folder, NEW)
            except OSError:
                outcomes.append(content(folder))
        if left[0] >= 0:  # every step had its turn
            break
        assert [path for path in tmp_path.iterdir() if path != folder] == []
        if not exists and folder.exists():
            write_folder(folder, {})
            folder.rmdir()
    old = texts(OLD) if exists else None
    assert len(outcomes) >= 8
    assert all(found in (old, texts(NEW)) for found in outcomes)
    assert outcomes[0] == old
    assert content(folder) == texts(NEW)


def test_a_disk_that_really_refuses(tmp_path):
    """The system refuses half of a file; the old result stays as it was."""
    resource = pytest.importorskip("resource", reason="Windows has no such limit")
    write_folder(tmp_path / "cat.jpg", OLD)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
            write_folder(
                tmp_path / "cat.jpg", {"labels.png": b"new", "overlay.jpg": bytes(2000)}
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert {path.name: content(path) for path in tmp_path.iterdir()} == {
        "cat.jpg": texts(OLD)
    }


def test_each_file_is_flushed_once_and_before_it_has_its_name(tmp_path, monkeypatch):
    flushed, fsync = [], os.fsync

    def noted(file):
        flushed.append(Path(os.readlink(f"/proc/self/fd/{file}")))
        fsync(file)

    monkeypatch.setattr(os, "fsync", noted)
    write_folder(tmp_path / "cat.jpg", NEW)
    *files, hidden, parent = flushed
    assert sorted(path.name for path in files) == sorted(NEW)
    assert {path.parent for path in files} == {hidden}
    assert hidden.parent == parent == tmp_path


def test_nothing_remains_of_an_interrupted_block(tmp_path):
    def interrupt():
        with atomic_folder(tmp_path / "a") as folder:
            (folder / "half").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert list(tmp_path.iterdir()) == []
