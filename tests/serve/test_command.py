"""``dslo serve``: which hosts it opens, and what it says."""

import errno
import socket
import subprocess
import sys

import pytest

from dslo_jax.cli import main, serve
from dslo_jax.errors import OptionError
from dslo_jax.serve import server
from dslo_jax.serve.server import is_loopback, open_socket


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.0.0.2", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.2", False),
        ("example.org", False),
    ],
)
def test_only_loopback_is_opened_without_being_asked(host, expected):
    assert is_loopback(host) == expected
    if not expected:
        with pytest.raises(OptionError, match=r"O05.*everybody.*--open-to-network"):
            open_socket(host, 0, open_to_network=False)


def test_a_port_that_is_taken_or_out_of_range_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OptionError, match=rf"O01.*{port}.*--port"):
            open_socket("127.0.0.1", port, open_to_network=False)
    for port in (-1, 65536):
        with pytest.raises(OptionError, match=rf"O01.*{port}"):
            open_socket("127.0.0.1", port, open_to_network=False)
    with pytest.raises(OptionError, match=r"O05.*--host"):
        open_socket("no-such-host.invalid", 0, open_to_network=True)


def test_errors_come_before_networks_are_loaded(capsys):
    assert main(["serve", "--model", "demo", "--max-pixels", "0"]) == 2
    assert "[O01] --max-pixels 0" in capsys.readouterr().err
    assert main(["serve", "--model", "demo", "--host", "0.0.0.0"]) == 2
    assert "--open-to-network" in capsys.readouterr().err


def test_an_error_of_the_socket_is_none_of_a_checkpoint(capsys, monkeypatch):
    class Broken(server.Server):
        def run(self):
            raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(server, "Server", Broken)
    assert main(["serve", "--model", "demo", "--port", "0"]) == 5
    assert "[D03]" in capsys.readouterr().err


def test_a_missing_package_is_named(capsys, monkeypatch):
    find = serve.importlib.util.find_spec
    monkeypatch.setattr(
        serve.importlib.util,
        "find_spec",
        lambda name: None if name == "uvicorn" else find(name),
    )
    assert main(["serve", "--model", "demo"]) == 2
    assert 'pip install ".[serve]"' in capsys.readouterr().err


@pytest.mark.slow
def test_other_commands_do_not_load_the_server():
    code = "import sys, dslo_jax.cli; print('starlette' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout.strip() == "False"
