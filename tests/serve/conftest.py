"""A page of the bundled networks, on a free port."""

import http.client
import json
from urllib.parse import urlsplit

import pytest

from dslo_jax import Segmenter
from dslo_jax.serve import Limits
from dslo_jax.serve.server import Server, open_socket, running


LIMITS = Limits(
    pixels=500_000,
    photo_bytes=2**20,
    waiting=4,
    photos=6,
    results=6,
    drafts=2,
    head_seconds=1.5,
    body_seconds=1.5,
    write_seconds=1.5,
)


class Client:
    """Sends requests as a program would, without a browser."""

    def __init__(self, address):
        self.address = address
        self.host = urlsplit(address).netloc

    def ask(self, method, path, body=None, headers=(), seconds=60):
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


@pytest.fixture(scope="session")
def server():
    opened = open_socket("127.0.0.1", 0, open_to_network=False)
    segmenter = Segmenter.from_pretrained("demo")
    server = Server(segmenter, opened, limits=LIMITS, warm_up=False)
    with running(server):
        yield server


@pytest.fixture(scope="session")
def client(server):
    return Client(server.address)
