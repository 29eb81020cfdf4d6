"""Clients that are slow, many or hostile: the page serves on, in the same memory."""

import contextlib
import json
import threading
import time
from pathlib import Path

import pytest

from .clients import Served, at_once, connect, is_well, send_malformed


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: ",
        b"POST /api/photos HTTP/1.1\r\nHost: {host}\r\n"
        b"Content-Type: application/octet-stream\r\nContent-Length: 1000\r\n\r\nabc",
    ],
    ids=["nothing", "half a head", "half a body"],
)
def test_a_slow_client_is_cut_off(client, server, sent):
    with connect(client) as connection:
        connection.sendall(sent.replace(b"{host}", client.host.encode()))
        start = time.monotonic()
        found = b"".join(iter(lambda: connection.recv(2**16), b""))
        assert time.monotonic() - start < server.limits.head_seconds + 5
        if b"POST" in sent:
            assert found.startswith(b"HTTP/1.1 408")
            assert b'"V04"' in found
        else:
            assert found == b""


def test_a_client_that_takes_nothing_is_cut_off(client, server):
    ask = b"GET /page/main.js HTTP/1.1\r\nHost: " + client.host.encode() + b"\r\n\r\n"
    number = 500
    with connect(client, room=4096) as connection:
        connection.sendall(number * ask)
        time.sleep(server.limits.write_seconds + 1)
        found = 0
        end = time.monotonic() + 10
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(2**20):
                found += part.count(b"HTTP/1.1 200")
                assert time.monotonic() < end
    assert 0 < found < number
    is_well(client)


def test_a_client_that_leaves_is_not_worked_for(client, server):
    line = server.page.solving
    gate, began = threading.Event(), threading.Event()
    line.join(lambda _: (began.set(), gate.wait(20)), lambda event: None)
    try:
        assert began.wait(10)
        asked = json.dumps({"photo": "scene-9", "words": "sky"}).encode()
        head = (
            f"POST /api/segment HTTP/1.1\r\nHost: {client.host}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(asked)}\r\n\r\n"
        )
        with connect(client) as connection:
            connection.sendall(head.encode() + asked)
            found = b""
            while b"waiting" not in found:
                found += connection.recv(2**16)
            assert b'{"waiting": 1}' in found
        end = time.monotonic() + 10
        while line.num_waiting:
            assert time.monotonic() < end
            time.sleep(0.01)
    finally:
        gate.set()


def test_a_full_line_says_when_to_come_back(client, server):
    line = server.page.solving
    gate, began = threading.Event(), threading.Event()
    line.join(lambda _: (began.set(), gate.wait(20)), lambda event: None)
    try:
        assert began.wait(10)
        tasks = [
            line.join(lambda _: None, lambda event: None)
            for _ in range(server.limits.waiting)
        ]
        asked = json.dumps({"photo": "scene-9", "words": "sky"})
        status, headers, content = client.ask("POST", "/api/segment", asked)
        assert status == 503
        assert int(headers["retry-after"]) >= 1
        assert json.loads(content)["error"]["code"] == "V05"
        for task in tasks:
            line.cancel(task)
    finally:
        gate.set()
    is_well(client)


def test_many_requests_at_once_are_answered_or_told_to_come_back(client, server):
    done, busy = at_once(client, 20)
    assert done >= server.limits.waiting
    assert done + busy == 20
    is_well(client)


def test_malformed_requests_are_refused_and_the_page_serves_on(client, caplog):
    statuses = send_malformed(client, 400, seed=0)
    assert 500 not in statuses
    assert caplog.text == ""
    assert set(statuses) > {400, 403, 404}
    is_well(client)


@pytest.mark.slow
def test_a_flood_leaves_the_page_well_and_its_memory_flat(tmp_path, monkeypatch):
    """100 requests at once and 1000 malformed ones, again and again."""
    monkeypatch.chdir(tmp_path)
    with Served() as served:
        client, sizes, counts = served.client, [], []
        while not json.loads(client.get("/api/state")[1])["ready"]:
            time.sleep(0.5)
        for seed in range(6):
            done, busy = at_once(client, 100)
            statuses = send_malformed(client, 1000, seed, threads=16)
            assert 500 not in statuses
            assert done + busy == 100
            is_well(client)
            counts.append((done, busy, dict(sorted(statuses.items()))))
            sizes.append(round(served.mebibytes))
        Path("serve-flood.json").write_text(
            json.dumps({"MiB": sizes, "answers": counts})
        )
        assert sizes[-1] - sizes[1] < 50
    assert "Traceback" not in served.errors
    assert str(Path.home()) not in served.errors
