"""The first words of a command line: version, unknown commands, completion."""

import contextlib
import io
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import dslo_jax
from dslo_jax import cli


PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
HOME, _, FUNCTION = PROJECT["project"]["scripts"]["dslo"].partition(":")
SCRIPT = f"import sys; from {HOME} import {FUNCTION}; sys.exit({FUNCTION}())"
"""What the installed script ``dslo`` does."""


@pytest.mark.parametrize("word", ["--version", "-V"])
def test_the_version_is_that_of_the_package(capsys, word):
    assert cli.main([word]) == 0
    assert capsys.readouterr().out == f"dslo-jax {dslo_jax.__version__}\n"


def test_the_package_runs_as_a_module():
    finished = subprocess.run(
        [sys.executable, "-m", "dslo_jax", "segmnt"], capture_output=True, text=True
    )
    assert finished.returncode == 2
    assert finished.stdout == ""
    assert "unknown command 'segmnt'; did you mean 'segment'?" in finished.stderr


@pytest.mark.parametrize("words", [("-m", "dslo_jax"), ("-c", SCRIPT)])
def test_ctrl_c_while_modules_are_imported_ends_quietly(tmp_path, words):
    """A module named jax that gets Ctrl-C, instead of the real one."""
    (tmp_path / "jax.py").write_text(
        "import signal, time\n"
        # The tests may run in the background of a shell, which ignores Ctrl-C.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "signal.raise_signal(signal.SIGINT)\n"
        "time.sleep(9)\n"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    finished = subprocess.run(
        [sys.executable, *words],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 130
    assert (finished.stdout, finished.stderr) == ("", "interrupted\n")


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("segmnt", "unknown command 'segmnt'; did you mean 'segment'?"),
        ("evaluate", "unknown command 'evaluate'; did you mean 'eval'?"),
        ("docter", "did you mean 'doctor'?"),
        ("--verson", "unknown option '--verson'; did you mean '--version'?"),
        ("photo.jpg", "unknown command 'photo.jpg'; commands: segment, export,"),
        ("bench pipline", "unknown command 'bench pipline'; did you mean 'pipel"),
    ],
)
def test_an_unknown_command_is_told_with_the_nearest(capsys, word, words):
    assert cli.main(word.split()) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: [O02] ")
    assert words in told.err


def test_no_command_shows_the_commands(capsys):
    assert cli.main([]) == 2
    assert "dslo doctor" in capsys.readouterr().err


@pytest.fixture(scope="module")
def scripts():
    """The completion script of each shell."""
    found = {}
    for shell in ("bash", "zsh", "fish"):
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            assert cli.main(["completion", shell]) == 0
        found[shell] = printed.getvalue()
    return found


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["seg"], {"segment"}),
        (["co"], {"convert", "completion"}),
        (["segment", "--affinity-la"], {"--affinity-layers"}),
        (["segment", "--upsampling", "b"], {"bilateral", "bilinear"}),
        (["bench", "pl"], {"plan"}),
        (["bench", "plan", "--imag"], {"--images"}),
    ],
)
def test_bash_completes_commands_options_and_choices(scripts, words, expected):
    line = " ".join(["dslo", *words])
    code = f"""
{scripts["bash"]}
COMP_WORDS=({line}); COMP_CWORD={len(words)}
{_function_of(scripts["bash"])}
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    finished = subprocess.run(["bash"], input=code, capture_output=True, text=True)
    found = {word.strip() for word in finished.stdout.split("\n") if word.strip()}
    assert found == expected, finished.stderr


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_all_commands_and_options(scripts, shell):
    script = scripts[shell]
    for word in (*cli.COMMANDS, "affinity-layers", "no-self-test"):
        assert word in script, word
    if shutil.which(shell):
        checked = subprocess.run([shell, "-n"], input=script, text=True)
        assert checked.returncode == 0


def test_an_unknown_shell_is_refused(capsys):
    assert cli.main(["completion", "tcl"]) == 2
    assert "bash" in capsys.readouterr().err


def _function_of(script):
    """The name of the function that bash calls for a word."""
    (line,) = [each for each in script.splitlines() if each.startswith("complete ")]
    return line.split("-F ")[1].split()[0]
