"""Clients of the page: a polite one, many at once, and hostile ones."""

import http.client
import io
import json
import os
import random
import re
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from PIL import Image


class Client:
    """Sends requests as a program would, without a browser."""

    def __init__(self, address):
        self.address = address
        self.host = urlsplit(address).netloc

    def ask(self, method, path, body=None, headers=(), seconds=300):
        connection = http.client.HTTPConnection(self.host, timeout=seconds)
        kind = (
            "application/json" if isinstance(body, str) else "application/octet-stream"
        )
        sent = {"content-type": kind} if method == "POST" else {}
        try:
            connection.request(method, path, body, sent | dict(headers))
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def get(self, path, **more):
        status, headers, content = self.ask("GET", path, **more)
        assert status == 200, content
        return headers, content

    def segment(self, photo="scene-9", words="sky, sea", draft=False, **options):
        """The events of a request."""
        asked = {"photo": photo, "words": words, "options": options, "draft": draft}
        status, _, content = self.ask("POST", "/api/segment", json.dumps(asked))
        events = [json.loads(line) for line in content.splitlines()]
        return events if status == 200 else [*events, {"status": status}]

    def result(self, *args, **more):
        return self.segment(*args, **more)[-1]["result"]

    def error(self, method, path, body=None, headers=(), **more):
        """Status and code of a request that is refused."""
        status, sent, content = self.ask(method, path, body, headers, **more)
        assert_safe(sent)
        return status, json.loads(content)["error"]["code"]


def assert_safe(headers):
    assert headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"


def png(height, width):
    buffer = io.BytesIO()
    pixels = np.arange(3 * height * width, dtype=np.uint32) % 251
    Image.fromarray(pixels.astype(np.uint8).reshape(height, width, 3)).save(
        buffer, "PNG"
    )
    return buffer.getvalue()


def connect(client, room=0):
    """A connection; with ``room``, the system keeps so many bytes for us."""
    host, port = client.host.split(":")
    connection = socket.socket()
    connection.settimeout(20)
    if room:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    connection.connect((host, int(port)))
    return connection


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


class Served:
    """``dslo serve`` in a process of its own."""

    def __enter__(self):
        command = "from dslo_jax.cli import main; main()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", command, "serve", "--model=demo", "--port=0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={k: v for k, v in os.environ.items() if k != "XLA_FLAGS"},
            text=True,
        )
        self.client = Client(self.process.stdout.readline().strip().rstrip("/"))
        return self

    def __exit__(self, *_):
        self.process.terminate()
        _, self.errors = self.process.communicate(timeout=30)

    @property
    def cpu_seconds(self):
        """Seconds of all processors that it has used."""
        fields = (
            Path(f"/proc/{self.process.pid}/stat").read_text().split(")")[1].split()
        )
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def mebibytes(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024
