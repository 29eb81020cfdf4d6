"""Reads the body of a request, with limits on its size and on the time it takes."""

import asyncio
import contextlib
from typing import Any

from dslo_jax.errors import RequestError
from dslo_jax.files import parse_json
from dslo_jax.serve.guard import Receive, Scope
from dslo_jax.serve.line import Busy


_LINGER_SECONDS = 2.0


class ClientLeft(Exception):
    """The client has closed the connection."""


class Bodies:
    """All bodies that are being received.

    Args:
        most_bytes: Greatest size of all of them together.
        seconds: Time in which a body must be whole.
    """

    def __init__(self, most_bytes: int, seconds: float):
        self._most_bytes, self._seconds = most_bytes, seconds
        self._held = 0

    async def read(self, scope: Scope, receive: Receive, most_bytes: int) -> bytes:
        """Read the body of a request.

        Args:
            scope: The request.
            receive: Gives the parts of the body.
            most_bytes: Greatest size of this body.

        Raises:
            RequestError: It is too large (``V03``) or too slow (``V04``).
            Busy: There is no room now.
            ClientLeft: The client has gone.
        """
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and int(announced[:20]) > most_bytes:
            await _discard(receive)
            raise _too_large(int(announced[:20]), most_bytes)
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._seconds):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise ClientLeft
                    part = message.get("body", b"")
                    size += len(part)
                    self._held += len(part)
                    parts.append(part)
                    if size > most_bytes:
                        await _discard(receive)
                        raise _too_large(size, most_bytes)
                    if self._held > self._most_bytes:
                        raise Busy("too many files are being sent at once", 2)
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError as error:
            raise RequestError(
                "V04",
                f"{size} bytes have come in {self._seconds:g} s and the rest has not; "
                "send a smaller file, or use a faster connection",
            ) from error
        finally:
            self._held -= size

    async def read_json(self, scope: Scope, receive: Receive, most_bytes: int) -> Any:
        """Read a body that is JSON.

        Raises:
            RequestError: It is not JSON, as ``parse_json`` reads it (``V02``); and as
                for ``read``.
            ClientLeft: The client has gone.
        """
        content = await self.read(scope, receive, most_bytes)
        try:
            return parse_json(content)
        except ValueError as error:
            raise RequestError("V02", f"the request is not JSON: {error}") from error


async def _discard(receive: Receive) -> None:
    """Read on for a moment and keep nothing.

    A client that is still sending would otherwise find its connection closed, and never
    read the answer.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_SECONDS):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise ClientLeft
                if not message.get("more_body", False):
                    return


def _too_large(size: int, most: int) -> RequestError:
    return RequestError(
        "V03",
        f"the request has {size} bytes or more, the page takes {most}; send a smaller "
        "file",
    )
