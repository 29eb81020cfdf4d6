"""The socket of the page, and the end of connections that are too slow."""

import asyncio
import contextlib
import ipaddress
import logging
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from dslo_jax.errors import OptionError, cause_of
from dslo_jax.segmenter import Segmenter
from dslo_jax.serve.app import Page
from dslo_jax.serve.guard import LOOPBACK, App
from dslo_jax.serve.limits import Limits
from dslo_jax.serve.studio import Studio


_HEAD_BYTES = 16 * 2**10
_END_SECONDS = 3


def open_socket(host: str, port: int, *, open_to_network: bool) -> socket.socket:
    """Open the socket, before anything is loaded.

    Args:
        host: Address or name of this machine.
        port: Port; 0 takes a free one.
        open_to_network: Whether other machines may reach it.

    Raises:
        OptionError: The port is taken or out of range (``O01``), the host is none of
            this machine (``O05``), or it is not loopback and ``open_to_network`` is not
            set (``O05``).
    """
    if not 0 <= port <= 65535:
        raise OptionError("O01", f"--port {port}; expected 0 to 65535")
    if not open_to_network and not is_loopback(host):
        raise OptionError(
            "O05",
            f"--host {host} lets everybody in the network use this page, its processor "
            "and its memory, without a password; if that is meant, add "
            "--open-to-network",
        )
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, _, _, _, address = found[0]
        both = host == "::" and socket.has_dualstack_ipv6()
        opened = socket.create_server(address[:2], family=family, dualstack_ipv6=both)
    except (OSError, UnicodeError) as error:
        busy = "in use" in str(error)
        remedy = "choose another one with --port" if busy else "correct --host"
        raise OptionError(
            "O01" if busy else "O05",
            f"cannot open {host} port {port}: {cause_of(error)}; {remedy}",
        ) from error
    opened.setblocking(False)
    return opened


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Server:
    """The page on a socket.

    Args:
        segmenter: The segmenter.
        opened: From ``open_socket``.
        host: The host of the socket.
        allow_hosts: Further names under which the page may be opened.
        limits: Limits of requests.
        warm_up: Whether programs are compiled while nobody waits.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        opened: socket.socket,
        *,
        host: str = "127.0.0.1",
        allow_hosts: Sequence[str] = (),
        limits: Limits | None = None,
        warm_up: bool = True,
    ):
        self._warm_up = warm_up
        self.limits = limits or Limits()
        self.page = Page(Studio(segmenter, self.limits), self.limits)
        names = [*LOOPBACK, *allow_hosts]
        if not is_loopback(host):
            names.append(f"[{host}]" if ":" in host else host)
        app = self.page.app(names, any_address=not is_loopback(host))
        self._socket = opened
        self._server = uvicorn.Server(_config(app, self.limits))

    @property
    def address(self) -> str:
        """The address to open in a browser on this machine."""
        name, port = self._socket.getsockname()[:2]
        if name in ("0.0.0.0", "::"):
            name = "127.0.0.1"
        return f"http://{f'[{name}]' if ':' in name else name}:{port}/"

    def run(self) -> None:
        """Serve until Ctrl-C or SIGTERM, or until ``stop``."""
        if self._warm_up:
            self.page.warm_up()
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self.page.close()

    def stop(self) -> None:
        """End ``run``, from another thread."""
        self._server.should_exit = True


def _config(app: App, limits: Limits) -> uvicorn.Config:
    class Connection(PatientConnection):
        head_seconds = limits.head_seconds
        write_seconds = limits.write_seconds

    return uvicorn.Config(
        app,  # pyright: ignore[reportArgumentType]
        http=Connection,
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level=logging.CRITICAL,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=limits.connections,
        timeout_keep_alive=int(limits.head_seconds),
        timeout_graceful_shutdown=_END_SECONDS,
        h11_max_incomplete_event_size=_HEAD_BYTES,
    )


class PatientConnection(H11Protocol):
    """A connection that is closed when its client is too slow.

    A client has ``head_seconds`` to send the head of a request, from the moment the
    connection is opened or the first byte after an answer has come, and
    ``write_seconds`` to take some of an answer. ``Bodies`` limits the time of a body.
    """

    head_seconds = 10.0
    write_seconds = 30.0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Give the client its time for the first head."""
        super().connection_made(transport)
        self._start(self.head_seconds)

    def data_received(self, data: bytes) -> None:
        """Take data; while a head is not whole, its time runs."""
        super().data_received(data)
        if self.flow.write_paused:
            return
        if self._is_answering():
            self._stop()
        elif self._timer is None and self.timeout_keep_alive_task is None:
            self._start(self.head_seconds)

    def on_response_complete(self) -> None:
        """After an answer, the time of the next head begins with its first byte."""
        if not self.flow.write_paused:  # otherwise the answer is still being taken
            self._stop()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Give a client that takes nothing its time."""
        super().pause_writing()
        self._stop()
        self._start(self.write_seconds)

    def resume_writing(self) -> None:
        """The client has taken what there was."""
        super().resume_writing()
        self._stop()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer."""
        self._stop()
        super().connection_lost(exc)

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _start(self, seconds: float) -> None:
        self._timer = self.loop.call_later(seconds, self.transport.abort)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


@contextlib.contextmanager
def running(server: Server) -> Iterator[str]:
    """Serve in a thread, for a ``with`` block.

    Yields:
        The address of the page.
    """
    import threading

    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield server.address
    finally:
        server.stop()
        thread.join()
