"""Requests to the page of ``dslo serve``, as bytes of HTTP.

They go through the connection that uvicorn makes for a socket, and through the whole
application. Only the two steps that compute, a segmentation and a click, are cut off
after all their checks: they would take most of the time, and nothing of a request is
read there any more.
"""

import asyncio
import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from images.pictures import encode, noise
from uvicorn.server import ServerState

from dslo_jax import Segmenter
from dslo_jax.errors import DsloError
from dslo_jax.serve.app import Page
from dslo_jax.serve.guard import LOOPBACK
from dslo_jax.serve.limits import Limits
from dslo_jax.serve.server import _config
from dslo_jax.serve.studio import Studio
from fuzz.target import Base, Found, Target


LIMITS = Limits(pixels=100_000, photo_bytes=2**16, photos=4, results=4, body_seconds=5)
WISH = {
    "photo": "scene-19",
    "words": 'sky, sea|ocean, "a house"',
    "options": {
        "mode": "path",
        "epsilon": 0.05,
        "threshold": 0.3,
        "templates": "single",
    },
    "draft": False,
}
CLICK = {"photo": "scene-19", "x": 10, "y": 20, "threshold": 0.4}
OPTIONS = {
    **{"mode": "velocity", "suppression_threshold": 0.2, "early_rejection": True},
    **{"upsampling": "bilateral", "spatial_variance": 2.0, "range_variance": 0.01},
    **{"affinity_temperature": 0.5, "timestep": 0, "rejection_share": 0.01},
}
PHOTO = encode(noise(), "PNG")
NAME = "AAAAAAAAAAAAAAAA"
ASKED = ("/api/about", "/api/state", "/api/scenes/19", f"/api/photos/{NAME}", "/")
ASKED += ("/page/main.js", f"/r/{NAME}", "/api/photos/scene-19")
ASKED += tuple(
    f"/api/results/{NAME}{part}"
    for part in ("", "/labels", "/maps", "/photo", "/files")
)
TOKENS = (
    *(b"\r\n", b"\r\n\r\n", b"\n", b" ", b":", b"Host: ", b"Host: evil.example\r\n"),
    *(b"Content-Length: 5\r\n", b"Content-Length: -1\r\n"),
    b"Content-Length: 9999999\r\n",
    b"Transfer-Encoding: chunked\r\n",
    *(b"Expect: 100-continue\r\n", b"Upgrade: h2c\r\n"),
    *(b"Connection: close\r\n", b"Origin: null\r\n", b"Sec-Fetch-Site: cross-site\r\n"),
    *(b"%00", b"%2e%2e/", b"%ff", b"..", b"?x=1"),
    *(b"#", b"//", b"*", b"HTTP/1.0", b"\0"),
    *(b"multipart/form-data; boundary=x", b"--x\r\n", b"image/png", b"text/plain"),
    *(b"HEAD", b"OPTIONS", b"PUT", b"POST", b"GET", b"\xff\xfe", b"[" * 3000, b"1e999"),
    *(b"scene-9999", b"scene-00", b"\\ud800", b"\\u0000", b"__class__", b'"draft":1'),
    *(b"99999", b"-1", b"1" * 4400, b"NaN", b"a" * 20_000),
)  # fmt: skip


class Stub(Studio):
    """A studio that computes nothing; photos are read and kept."""

    def segment(self, wish: Any, announce: Any) -> dict[str, Any]:
        """The wish in place of a result."""
        self._kept_photo(wish.photo)
        return {"result": NAME, "words": wish.words, "options": dict(wish.options)}

    def click(self, click: Any, announce: Any) -> dict[str, Any]:
        """The click in place of a map."""
        self._kept_photo(click.photo)
        return {"map": [click.x, click.y]}


class Site(NamedTuple):
    """The page and what its connections need."""

    page: Page
    config: Any
    loop: asyncio.AbstractEventLoop


class Wire(asyncio.Transport):
    """A connection whose other end takes everything."""

    def __init__(self):
        super().__init__({"peername": ("127.0.0.1", 9), "sockname": ("127.0.0.1", 80)})
        self.sent, self._is_closing = bytearray(), False

    def write(self, data: Any) -> None:
        """Take a part of the answer."""
        self.sent += data

    def is_closing(self) -> bool:
        """Whether the page has closed the connection."""
        return self._is_closing

    def close(self) -> None:
        """Close the connection."""
        self._is_closing = True

    def pause_reading(self) -> None:
        """Nothing more comes anyway."""

    def resume_reading(self) -> None:
        """Nothing more comes anyway."""


@cache
def site() -> Site:
    """The page with the bundled networks."""
    page = Page(Stub(Segmenter.from_pretrained("demo"), LIMITS), LIMITS)
    config = _config(page.app(LOOPBACK), LIMITS)
    config.load()
    return Site(page, config, asyncio.new_event_loop())


async def answer_to(content: bytes) -> bytes:
    """Everything that the page sends to a client that sends this, and then leaves."""
    wire, state = Wire(), ServerState()
    loop = asyncio.get_running_loop()
    connection = site().config.http_protocol_class(site().config, state, {}, loop)
    connection.connection_made(wire)
    connection.data_received(content)
    while state.tasks:
        running = set(state.tasks)
        if "SEND_BODY" in str(connection.conn.their_state):  # the rest never comes
            connection.connection_lost(None)
        await asyncio.wait(running)
        for task in running:
            task.result()
        await asyncio.sleep(0)
    connection.connection_lost(None)
    return bytes(wire.sent)


def read(content: bytes, folder: Path) -> str | None:
    """Send a request, and look at its first answer."""
    if not content:
        return "no answer"
    sent = site().loop.run_until_complete(answer_to(content))
    head, _, body = sent.partition(b"\r\n\r\n")
    if not sent:
        return "no answer"  # the request was not whole
    found = re.match(rb"HTTP/1\.1 (\d\d\d) ", head)
    assert found, head
    status = int(found[1])
    if status in (200, 304, 100):
        told = body.replace(b"\r\n", b"\n").splitlines()
        wrong = [line for line in told if line.startswith(b'{"error"')]
        if b"ndjson" not in head or not wrong:
            return None
        body = wrong[-1]
    if b"application/json" not in head and b"ndjson" not in head:
        assert status == 400, head  # of uvicorn itself, for what is no HTTP
        return "no HTTP"
    body = body.split(b"\r\n")[1] if b"chunked" in head and b"\r\n" in body else body
    error: Mapping[str, str] = json.loads(body[: body.rindex(b"}") + 1])["error"]
    assert error["code"] != "V08", error
    assert error["message"]
    raise DsloError(error["code"], error["message"])


def prepare(folder: Path) -> None:
    """A task of the page, so that its threads have begun."""
    site()


def request(first: str, body: bytes = b"", kind: str = "application/json") -> bytes:
    """A sound request."""
    head = f"{first} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    if first.startswith("POST"):
        head += f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


def with_length(content: bytes) -> bytes:
    """A request whose announced length is that of its body."""
    head, mark, body = content.partition(b"\r\n\r\n")
    length = b"Content-Length: %d" % len(body)
    return re.sub(rb"Content-Length: \d+", length, head) + mark + body


def to(path: str) -> Any:
    """What makes a request of a body."""
    return lambda body: request(f"POST {path}", body)


def bases() -> dict[str, Base]:
    """Requests of every kind that the page knows, and forms, which it refuses."""
    wishes = {"wish": WISH, "options": WISH | {"options": OPTIONS}}
    made = {
        kind: Base(json.dumps(wish).encode(), to("/api/segment"), is_json=True)
        for kind, wish in wishes.items()
    }
    made["click"] = Base(json.dumps(CLICK).encode(), to("/api/click"), is_json=True)
    made["photo"] = Base(PHOTO, to("/api/photos"))
    whole = {
        "whole wish": request("POST /api/segment", json.dumps(WISH).encode()),
        "whole photo": request("POST /api/photos", PHOTO, "image/png"),
        "scene": request("POST /api/scenes/19"),
        **{path: request(f"GET {path}") for path in ASKED if NAME not in path},
    }
    made |= {kind: Base(content, with_length) for kind, content in whole.items()}
    made["length as it was"] = Base(whole["whole wish"])
    return made


ENDLESS = "a second name of a scene, which was drawn without end"
LONG = request("POST /api/scenes/" + "9" * 5000)
FOUND = (
    Found("a scene of thousands of digits", LONG, "V07"),
    Found(ENDLESS, request("GET /api/photos/scene-09"), "V06"),
)
TARGET = Target(bases(), read, TOKENS, prepare, FOUND)
