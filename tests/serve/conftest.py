"""A page of the bundled networks, on a free port."""

import pytest

from dslo_jax import Segmenter
from dslo_jax.serve import Limits
from dslo_jax.serve.server import Server, open_socket, running

from .clients import Client


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
