"""``dslo cache``: show, locate, clear."""

import pytest

from dslo_jax import cli
from dslo_jax.cache import folders
from dslo_jax.cache.entries import Entries


@pytest.fixture
def root(tmp_path, monkeypatch):
    root = tmp_path / "cache"
    monkeypatch.setenv("DSLO_CACHE", str(root))
    for kind in folders.KINDS:
        for name in ("a", "b"):
            Entries(folders.private_folder(kind, "machine")).write(name, b"x" * 2000)
    (root / "empty-prompt-of-a-checkpoint.safetensors").write_bytes(b"kept")
    return root


def run(capsys, *arguments):
    code = cli.main(["cache", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_show(root, capsys):
    code, out, err = run(capsys)
    assert code == 0
    for kind in folders.KINDS:
        (line,) = [line for line in out.splitlines() if line.startswith(kind)]
        assert line == f"{kind}: 2 entries, 4 kB, in {root / kind}"
    assert "2.0 GB" in err


def test_path(root, capsys):
    assert run(capsys, "path")[:2] == (0, f"{root}\n")


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        (["clear"], []),
        (["clear", "all"], []),
        (["clear", "compiled"], ["names"]),
        (["clear", "names"], ["compiled"]),
    ],
    ids=" ".join,
)
def test_clear(root, capsys, arguments, left):
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    assert "removed 2 entries" in out
    assert [k for k in folders.KINDS if folders.content_of(root / k).files] == left
    assert len(list(root.glob("empty-prompt-*"))) == 1


def test_a_cache_that_does_not_exist_yet(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DSLO_CACHE", str(tmp_path / "none"))
    assert run(capsys)[0] == 0
    assert "removed 0 entries" in run(capsys, "clear")[1]
    assert not (tmp_path / "none").exists()


def test_a_cache_that_is_off(monkeypatch, capsys):
    monkeypatch.setenv("DSLO_CACHE", "")
    code, out, err = run(capsys, "clear")
    assert (code, out) == (0, "")
    assert "DSLO_CACHE is empty" in err
