"""Compiled programs on disk: used again, never trusted blindly, never in the way."""

import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src import compilation_cache

from dslo_jax.cache import folders, keep_programs


SECONDS = "jax_persistent_cache_min_compile_time_secs"


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty cache, in a process in which nobody has chosen one."""
    monkeypatch.setenv("DSLO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        compilation_cache, "get_file_cache", compilation_cache.get_file_cache
    )
    before = jax.config.jax_compilation_cache_dir, getattr(jax.config, SECONDS)
    _choose(None, 1.0)
    yield tmp_path / "cache"
    _choose(*before)


def _choose(folder, seconds):
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update(SECONDS, seconds)
    compilation_cache.reset_cache()


def compute():
    """Run a program that this process has not compiled."""
    return jax.jit(lambda x: jnp.cos(x) * 17 + 4)(np.arange(5, dtype=np.float32))


def entry(root):
    (path,) = (root / "compiled").rglob("jit__lambda*-cache")
    return path


def test_a_program_is_written_once_and_then_read(root):
    keep_programs(jax.devices()[0])
    first = compute()
    path = entry(root)
    content = path.read_bytes()
    os.utime(path, (1000, 1000))
    np.testing.assert_array_equal(compute(), first)
    assert path.stat().st_mtime > 1000  # it was used
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: b"garbage" * 1000,
        lambda content: content[:100] + bytes([content[100] ^ 1]) + content[101:],
    ],
    ids=["truncated", "empty", "garbage", "one byte"],
)
def test_a_damaged_program_is_compiled_again_and_replaced(root, caplog, damage):
    keep_programs(jax.devices()[0])
    first = compute()
    path = entry(root)
    path.write_bytes(damage(path.read_bytes()))
    np.testing.assert_array_equal(compute(), first)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    caplog.clear()
    os.utime(path, (1000, 1000))
    np.testing.assert_array_equal(compute(), first)
    assert path.stat().st_mtime > 1000
    assert caplog.records == []


def test_a_program_that_the_backend_refuses_is_replaced(root):
    """Its checksum is right, but it is no program: from a broken build, say."""
    keep_programs(jax.devices()[0])
    first = compute()
    cache = compilation_cache._cache
    key = entry(root).name.removesuffix("-cache")
    cache.put(key, compilation_cache.compress_executable(b"\0\0\0\1 no program"))
    with pytest.warns(UserWarning, match="persistent compilation cache"):
        np.testing.assert_array_equal(compute(), first)
    np.testing.assert_array_equal(compute(), first)  # without a warning


def test_the_choice_of_the_user_stays(root, tmp_path):
    for folder in (str(tmp_path / "own"), ""):
        _choose(folder, 1.0)
        keep_programs(jax.devices()[0])
        assert jax.config.jax_compilation_cache_dir == folder
    _choose(None, 0.5)
    keep_programs(jax.devices()[0])
    assert getattr(jax.config, SECONDS) == 0.5
    assert jax.config.jax_compilation_cache_dir.startswith(str(root))


def test_it_can_be_switched_off(root, monkeypatch):
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        keep_programs(jax.devices()[0])
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
    monkeypatch.setenv("DSLO_CACHE", "")
    keep_programs(jax.devices()[0])
    assert jax.config.jax_compilation_cache_dir is None
    assert not root.exists()


def test_a_folder_that_cannot_be_used_is_warned_about(root, caplog, monkeypatch):
    monkeypatch.setattr(folders, "_warned", set())
    root.write_text("a file")
    keep_programs(jax.devices()[0])
    assert jax.config.jax_compilation_cache_dir is None
    assert "the cache is not used" in caplog.text
    compute()


def test_another_version_of_jax_without_this_place(root, caplog, monkeypatch):
    monkeypatch.delattr(compilation_cache, "get_file_cache")
    keep_programs(jax.devices()[0])
    assert "compiled programs are not kept" in caplog.text
    assert jax.config.jax_compilation_cache_dir is None


@pytest.mark.slow
def test_two_processes_at_once(tmp_path):
    code = """
        import jax, jax.numpy as jnp
        from dslo_jax.cache import keep_programs
        keep_programs(jax.devices()[0])
        for k in range(10):
            print(jax.jit(lambda x: jnp.sin(x) + k)(1.0), flush=True)
    """
    surroundings = {**os.environ, "DSLO_CACHE": str(tmp_path / "cache")}
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code)],
            env=surroundings,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    (out, err), (other_out, other_err) = [run.communicate() for run in runs]
    assert (err, other_err) == ("", "")
    assert out == other_out
    assert len(out.split()) == 10
    found = [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert len([name for name in found if name.startswith("jit__lambda")]) == 10
    assert not [name for name in found if name.endswith(".part")]
