"""Clients that are slow, many or hostile: the page serves on, in the same memory."""

import contextlib
import json
import os
import random
import re
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .conftest import Client
from .test_requests import png


def connect(client):
    host, port = client.host.split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def answer_to(client, sent):
    """Everything that comes back until the connection is closed."""
    with connect(client) as connection:
        try:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            return b""
        parts = []
        try:
            while part := connection.recv(2**16):
                parts.append(part)
        except OSError:
            pass
        return b"".join(parts)


def is_well(client):
    client.get("/api/about")
    assert client.result(words="sky, sea")["classes"][0]["name"] == "sky"


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
        found = connection.recv(2**16)
        assert time.monotonic() - start < server.limits.head_seconds + 5
        if b"POST" in sent:
            assert found.startswith(b"HTTP/1.1 408")
            assert b'"V04"' in found
        else:
            assert found == b""


def test_a_client_that_takes_nothing_is_cut_off(client, server):
    ask = b"GET /page/main.js HTTP/1.1\r\nHost: " + client.host.encode() + b"\r\n\r\n"
    number = 1000  # 16 MB of answers, more than the system keeps for us
    with connect(client) as connection:
        connection.sendall(number * ask)
        time.sleep(server.limits.write_seconds + 0.5)
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


def at_once(client, number):
    """How many of these requests are answered, how many told to come back."""
    start = threading.Barrier(number)

    def ask(index):
        start.wait(30)
        words = f"sky, sea, {('house', 'tree', 'car')[index % 3]}"
        events = client.segment(words=words, threshold=0.2 + 0.005 * index)
        return "done" if "result" in events[-1] else events[-1]["status"]

    with ThreadPoolExecutor(number) as pool:
        found = list(pool.map(ask, range(number)))
    assert set(found) <= {"done", 503}
    return found.count("done"), found.count(503)


def test_many_requests_at_once_are_answered_or_told_to_come_back(client, server):
    done, busy = at_once(client, 20)
    assert done >= server.limits.waiting
    assert done + busy == 20
    is_well(client)


def malformed(rng, host):
    """A request with something wrong in it."""
    path = rng.choice(
        ["/api/photos", "/api/segment", "/api/scenes/1", "/api/results/x", "/%00", "/"]
    )
    words = rng.choice(
        ["sky", "a;b", "x" * 300, "<img src=x onerror=alert(1)>", "", "\0"]
    )
    number = rng.choice(["-1", "1e999", "NaN", "0", "[]", "null", '"0.3"', "1e-400"])
    name = rng.choice(
        ["threshold", "epsilon", "mode", "affinity_size", "__class__", ""]
    )
    asked = '{"photo": "scene-9", "words": %s, "options": {"%s": %s}}'
    asked = (asked % (json.dumps(words), name, number)).encode()
    image = png(rng.randint(2, 40), rng.randint(2, 40))
    body = rng.choice(
        [
            asked,
            asked[: rng.randint(0, len(asked))],
            image[: rng.randint(0, len(image))],
            bytes(rng.choice(image) for _ in image),
            rng.randbytes(rng.randint(0, 3000)),
            b"--x\r\nContent-Disposition: form-data; name=file\r\n\r\n",
            b"[" * 5000,
        ]
    )
    flaw = rng.randrange(9)
    length = rng.choice([len(body), len(body) + 5, -1, "x", 2**63, ""])
    sent = {
        "Host": rng.choice([host, host, host, "evil.example", "", "a" * 300]),
        "Content-Type": rng.choice(
            [
                "application/json",
                "image/png",
                "multipart/form-data; boundary=x",
                "",
                "é",
            ]
        ),
        "Content-Length": length if flaw == 1 else len(body),
    }
    if flaw == 2:
        sent["X-Large"] = "a" * rng.choice([1000, 20000, 200000])
    if flaw == 3:
        sent |= {f"X-{each}": "a" for each in range(rng.choice([10, 2000]))}
    if flaw == 4:
        sent["Transfer-Encoding"] = rng.choice(["chunked", "gzip", "chunked, chunked"])
    if flaw == 5:
        sent["Origin"] = rng.choice(["http://evil.example", "null", f"http://{host}"])
    lines = "".join(f"{each}: {value}\r\n" for each, value in sent.items())
    method = rng.choice(["POST", "POST", "POST", "GET", "PUT", "X" * 50, ""])
    version = rng.choice(["HTTP/1.1"] * 6 + ["HTTP/1.0", "HTTP/9.9", "", "HTTP/2.0"])
    head = f"{method} {path} {version}\r\n{lines}\r\n".encode()
    whole = head + body
    return whole[: rng.randint(1, len(whole))] if flaw == 6 else whole


def send_malformed(client, number, seed, threads=4):
    """The statuses of the answers, each with its count."""
    rng = random.Random(seed)
    requests = [malformed(rng, client.host) for _ in range(number)]
    with ThreadPoolExecutor(threads) as pool:
        answers = list(pool.map(lambda sent: answer_to(client, sent), requests))
    statuses = {}
    for found in answers:
        status = re.match(rb"HTTP/1.1 (\d\d\d)", found)
        key = int(status[1]) if status else 0
        statuses[key] = statuses.get(key, 0) + 1
    return statuses


def test_malformed_requests_are_refused_and_the_page_serves_on(client):
    statuses = send_malformed(client, 150, seed=0)
    assert 500 not in statuses
    assert set(statuses) > {400, 403, 404}
    is_well(client)


class Served:
    """``dslo serve`` in a process of its own."""

    def __enter__(self):
        command = "from dslo_jax.cli import main; main()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", command, "serve", "--model=demo", "--port=0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "XLA_FLAGS": ""},
            text=True,
        )
        self.client = Client(self.process.stdout.readline().strip().rstrip("/"))
        return self

    def __exit__(self, *_):
        self.process.terminate()
        _, self.errors = self.process.communicate(timeout=30)

    @property
    def mebibytes(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


@pytest.mark.slow
def test_a_flood_leaves_the_page_well_and_its_memory_flat(tmp_path, monkeypatch):
    """100 requests at once and 1000 malformed ones, again and again."""
    monkeypatch.chdir(tmp_path)
    with Served() as served:
        client, sizes, counts = served.client, [], []
        while json.loads(client.get("/api/state")[1])["warming"]:
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
