import json
import subprocess
import sys

from dslo_jax.bench import machine


def test_what_it_says_is_plain_and_names_no_folder_of_this_machine(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/home/me/bin/dslo", "bench", "/home/me/x.json"])
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/home/me/cache")
    found = machine.describe_machine()
    assert found["settings"]["JAX_COMPILATION_CACHE_DIR"] == "set"
    assert found == json.loads(json.dumps(found))
    assert found["command"].endswith("bench x.json")
    assert "/home" not in found["command"]
    assert found["versions"]["jax"]
    assert found["device"]["platform"] == "cpu"
    assert found["cores"] >= 1


def test_stolen_time_is_a_share_of_all(monkeypatch):
    before = {"ticks": {"all": 1000, "stolen": 10}}
    monkeypatch.setattr(machine, "_ticks", lambda: {"all": 1200, "stolen": 60})
    assert machine.stolen_since(before) == 0.25
    assert machine.stolen_since({"ticks": None}) is None
    monkeypatch.undo()
    found = machine.stolen_since(machine.describe_machine())
    assert found is None or 0 <= found <= 1


def test_a_script_is_named_as_it_was_called(monkeypatch):
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    monkeypatch.setattr(sys, "argv", ["benchmarks/solvers.py", "--save", "x"])
    command = machine.describe_machine()["command"]
    assert command == "python benchmarks/solvers.py --save x"


def test_without_git_there_is_no_commit(monkeypatch):
    def absent(*_, **__):
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", absent)
    assert machine.describe_machine()["commit"] is None


def test_in_a_clone_of_something_else_there_is_no_commit(tmp_path, monkeypatch):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    monkeypatch.setattr(machine, "__file__", str(tmp_path / "machine.py"))
    assert machine.describe_machine()["commit"] is None


def test_only_code_makes_a_commit_dirty(tmp_path, monkeypatch):
    def git(*words):
        name = ("-c", "user.name=A", "-c", "user.email=a@example.org")
        subprocess.run(["git", "-C", tmp_path, *name, *words], check=True)

    code, results = tmp_path / "bench" / "machine.py", tmp_path / "results.json"
    code.parent.mkdir()
    code.write_text("")
    results.write_text("{}")
    git("init", "-q")
    git("add", "-A")
    git("commit", "-q", "-m", "Begin")
    monkeypatch.setattr(machine, "__file__", str(code))
    commit = machine.describe_machine()["commit"]
    assert commit
    assert "dirty" not in commit
    results.write_text("[]")
    assert machine.describe_machine()["commit"] == commit
    (tmp_path / "new.py").write_text("")
    git("add", "-A")
    assert machine.describe_machine()["commit"] == f"{commit}-dirty"
