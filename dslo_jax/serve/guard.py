"""Refuses requests of other web sites, and tells browsers to be strict.

A page on the internet can make a browser send requests to this machine. It cannot
choose two headers: ``Host`` holds the name in the address, so a name that was pointed
to this machine later (DNS rebinding) is none of ours; and ``Origin`` and
``Sec-Fetch-Site`` say which site has sent a request.
"""

import contextlib
import ipaddress
import re
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

import h11

from dslo_jax.errors import RequestError


Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_HOST = re.compile(
    r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+?)\.?(:(?P<port>[0-9]{1,5}))?"
)
_CONTENT = ("application/json", "application/octet-stream")
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=()",
    "cache-control": "no-store",
}


class Guard:
    """An application whose requests are all from its own page.

    Args:
        app: The application.
        names: Names of the host under which the page may be opened.
        any_address: Whether the page may be opened under any IP address.
        refuse: Makes the response for an error.
    """

    def __init__(
        self,
        app: App,
        names: Collection[str],
        *,
        any_address: bool,
        refuse: Callable[[RequestError], App],
    ):
        self._app, self._refuse = app, refuse
        self._names = {name.lower() for name in names}
        self._any_address = any_address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return

        async def send_strictly(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message.get("headers", ())}
                more = [(k.encode(), v.encode()) for k, v in _HEADERS.items()]
                kept = [pair for pair in more if pair[0] not in given]
                message["headers"] = [*message.get("headers", ()), *kept]
            # A client may break the protocol after its head; then nobody listens.
            with contextlib.suppress(h11.LocalProtocolError):
                await send(message)

        app = self._app
        try:
            self._check(scope)
        except RequestError as error:
            app = self._refuse(error)
        await app(scope, receive, send_strictly)

    def _check(self, scope: Scope) -> None:
        """Refuse a request that does not come from our own page.

        Raises:
            RequestError: The host, the origin (``V01``), the method (``V07``) or the
                type of the body (``V02``) is none of ours.
        """
        method, sent = scope["method"], _headers(scope)
        if method not in ("GET", "HEAD", "POST"):
            raise RequestError("V07", f"method {method!r:.20}; expected GET or POST")
        host = _only(sent, "host")
        if not self._is_ours(host):
            known = ", ".join(sorted(self._names))
            raise RequestError(
                "V01",
                f"host {host!r:.80} is none of this page; open it as one of {known}, "
                "or start dslo serve with --allow-host NAME",
            )
        is_page = method != "POST" and not scope["path"].startswith("/api/")
        site = _only(sent, "sec-fetch-site", "none")
        if not is_page and site not in ("same-origin", "none"):
            raise RequestError("V01", f"the request comes from another site ({site!r})")
        origin = _only(sent, "origin", f"http://{host}")
        if not is_page and origin not in (f"http://{host}", f"https://{host}"):
            raise RequestError(
                "V01", f"origin {origin!r:.80} is another site than {host!r:.80}"
            )
        if method == "POST":
            kind = _only(sent, "content-type", "").partition(";")[0].strip().lower()
            if kind not in _CONTENT and not kind.startswith("image/"):
                raise RequestError(
                    "V02",
                    f"content-type {kind!r:.80}; send application/json, or an image as "
                    "it is, as application/octet-stream",
                )

    def _is_ours(self, host: str) -> bool:
        found = _HOST.fullmatch(host.lower())
        if found is None:
            return False
        name = found["name"]
        return name in self._names or (self._any_address and _is_address(name))


def _headers(scope: Scope) -> dict[str, list[str]]:
    sent: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        sent.setdefault(name.decode("latin-1").lower(), []).append(
            value.decode("latin-1")
        )
    return sent


def _only(sent: dict[str, list[str]], name: str, default: str | None = None) -> str:
    """The value of a header that may occur once.

    Raises:
        RequestError: It occurs several times, or it is missing and has no default.
    """
    values = sent.get(name, [] if default is None else [default])
    if len(values) != 1:
        raise RequestError("V01", f"there are {len(values)} headers {name}; expected 1")
    return values[0]


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
