"""The README: its code and its commands run as printed."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from dslo_jax import scenes
from dslo_jax.cli import main


ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
DOWNLOADS = "coffee.jpg"  # the command with this word needs the internet


def blocks(language: str) -> list[str]:
    pattern = rf"^```{language}\n(.*?)^```"
    return re.findall(pattern, TEXT, re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    """The lines of all blocks of the shell, without comments."""
    lines = "".join(blocks("sh")).splitlines()
    return [line.partition(" # ")[0].strip() for line in lines]


def test_there_is_something_to_run():
    assert len(blocks("python")) >= 2
    assert {"make demo", "make test"} < set(commands())


def test_its_code_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scope = {"__name__": "readme"}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), scope)
    assert (tmp_path / "out/scene/labels.png").exists()


def test_its_commands_run(tmp_path, monkeypatch, capsys):
    """In this process; the photo of the demo is drawn here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "benchmarks").symlink_to(ROOT / "benchmarks")
    photo = tmp_path / "out/demo/scene-9/photo.png"
    photo.parent.mkdir(parents=True)
    Image.fromarray(scenes.draw_scene(9, size=(128, 160)).pixels).save(photo)
    ours = [line for line in commands() if line.startswith("dslo ")]
    assert ours
    for line in ours:
        code = main(shlex.split(line)[1:])
        assert code == (4 if DOWNLOADS in line else 0), capsys.readouterr().err


@pytest.mark.slow
def test_its_commands_run_in_a_new_clone_and_environment(tmp_path):
    subprocess.run(["git", "clone", "--quiet", ROOT, tmp_path / "clone"], check=True)
    asked = [line for line in commands() if line != "make test"]  # this is that
    kept = [f"{line} || test $? = 4" if DOWNLOADS in line else line for line in asked]
    subprocess.run(
        ["bash", "-e", "-c", "\n".join(kept)],
        cwd=tmp_path / "clone",
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        check=True,
    )
