import errno
import importlib.util
import os
import platform
import subprocess
import sys
import types

import pytest

from dslo_jax.errors import OptionError, OutputError
from dslo_jax.runs import lock
from dslo_jax.runs.lock import only_run


HOLD = """
import sys
from pathlib import Path
from dslo_jax.runs.lock import only_run
with only_run(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_second_run_is_told_of_the_first(tmp_path):
    with (
        only_run(tmp_path / "out"),
        pytest.raises(OptionError, match="O08") as caught,
        only_run(tmp_path / "out"),
    ):
        pass
    assert f"process {os.getpid()} on {platform.node()}" in str(caught.value)
    with only_run(tmp_path / "out"):
        pass


def test_a_process_that_was_killed_locks_nobody_out(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:
        process.stdout.readline()
        with (
            pytest.raises(OptionError, match=f"process {process.pid} on"),
            only_run(tmp_path),
        ):
            pass
        process.kill()
        process.wait()
        assert (tmp_path / ".lock").read_bytes()  # the stale lock is still there
        with only_run(tmp_path):
            pass


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OutputError, match="O06"), only_run(tmp_path / "out"):
        pass


def test_windows_locks_a_byte_behind_the_words(tmp_path, monkeypatch):
    """The branch for Windows, on a stand-in for what its C library does."""
    held = {}

    def locking(file, mode, count):
        assert (mode, count) == ("LK_NBLCK", 1)
        place = os.fstat(file).st_ino, os.lseek(file, 0, os.SEEK_CUR)
        if place in held:
            raise PermissionError(errno.EACCES, "Permission denied")
        held[place] = file

    msvcrt = types.SimpleNamespace(locking=locking, LK_NBLCK="LK_NBLCK")
    monkeypatch.setitem(sys.modules, "msvcrt", msvcrt)
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setattr(sys, "platform", "win32")
    spec = importlib.util.spec_from_file_location("lock_of_windows", lock.__file__)
    windows = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(windows)
    holder = f"process {os.getpid()} on {platform.node()}"
    with windows.only_run(tmp_path):
        ((_, place),) = held
        assert place > len((tmp_path / ".lock").read_bytes()) == len(holder)
        with pytest.raises(OptionError, match=f"O08.*{holder}"):
            windows.only_run(tmp_path).__enter__()
    held.clear()  # closing the file does
    with windows.only_run(tmp_path):
        pass
