"""A hub on this machine: a server that answers like the Hub during a test.

It serves the addresses that huggingface_hub requests: the list of files of a repository
at a revision, and the content of a file. All requests are recorded.
"""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


LARGE = 2000  # bytes from which on a file is kept outside git, with its SHA-256


class Repository:
    """One revision of a repository.

    Args:
        files: Content by name.
        commit: Of 40 digits.
    """

    def __init__(self, files: dict[str, bytes], commit: str = "a" * 40):
        self.files = files
        self.commit = commit


class LocalHub:
    """The repositories of the server, and the faults that it simulates.

    Attributes:
        repositories: By name and revision; the revision ``main`` and the commit of a
            repository find it too.
        status: Answer for a whole repository instead of its content, by name.
        headers: Headers that go with such an answer.
        renamed: New name of a repository, by its old name.
        lies: Wrong SHA-256 that is announced for a file, by its name.
        cut: Number of bytes of a file after which the connection breaks once, by its
            name.
        asked: Method and address of every request.
        sent: Bytes sent of each file, by its name.
    """

    def __init__(self):
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.status: dict[str, int] = {}
        self.headers: dict[str, dict[str, str]] = {}
        self.renamed: dict[str, str] = {}
        self.lies: dict[str, str] = {}
        self.cut: dict[str, int] = {}
        self.asked: list[str] = []
        self.sent: dict[str, int] = {}
        self.address = ""

    def add(
        self,
        name: str,
        files: dict[str, bytes],
        *,
        revision: str = "main",
        commit: str = "",
    ) -> Repository:
        """Offer a repository at a revision, and at its commit."""
        commit = commit or hashlib.sha1(f"{name} {revision}".encode()).hexdigest()
        repository = Repository(files, commit)
        self.repositories[name, revision] = repository
        self.repositories[name, commit] = repository
        return repository

    def downloads(self) -> list[str]:
        """The files whose content was sent, in the order of the requests."""
        return [line.rsplit("/", 1)[1] for line in self.asked if "GET /" in line]


@contextmanager
def serving(hub: LocalHub) -> Iterator[LocalHub]:
    """Run the server; its address is ``hub.address``."""

    class Handler(_Handler):
        offered = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    run = partial(server.serve_forever, poll_interval=0.01)
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    hub.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    offered: LocalHub

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the server is no program of a person."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        hub = self.offered
        path = unquote(urlsplit(self.path).path)
        hub.asked.append(f"{self.command} {path}")
        for old, new in hub.renamed.items():
            if f"/{old}" in path:
                location = self.path.replace(f"/{old}", f"/{new}")
                self._send(307, b"", {"Location": location})
                return
        if path.startswith("/api/models/"):
            name, _, revision = path.removeprefix("/api/models/").partition(
                "/revision/"
            )
            self._describe(name, revision or "main")
            return
        name, _, rest = path[1:].partition("/resolve/")
        for (known, revision), repository in hub.repositories.items():
            if known == name and rest.startswith(f"{revision}/"):
                file = rest.removeprefix(f"{revision}/")
                self._send_file(name, repository, file, body=body)
                return
        self._refuse(404, {"X-Error-Code": "RepoNotFound"})

    def _describe(self, name: str, revision: str) -> None:
        hub = self.offered
        if name in hub.status:
            self._refuse(hub.status[name], hub.headers.get(name, {}))
            return
        repository = hub.repositories.get((name, revision))
        if repository is None:
            known = any(other == name for other, _ in hub.repositories)
            code = "RevisionNotFound" if known else "RepoNotFound"
            self._refuse(404 if known else 401, {"X-Error-Code": code})
            return
        siblings = []
        for file, content in repository.files.items():
            sibling: dict[str, object] = {"rfilename": file, "size": len(content)}
            sibling["blobId"] = hashlib.sha1(content).hexdigest()
            if len(content) >= LARGE:
                sha256 = hub.lies.get(file, hashlib.sha256(content).hexdigest())
                sibling["lfs"] = {
                    "sha256": sha256,
                    "size": len(content),
                    "pointerSize": 134,
                }
            siblings.append(sibling)
        answer = {"id": name, "modelId": name, "sha": repository.commit}
        self._send(200, json.dumps(answer | {"siblings": siblings}).encode(), {})

    def _send_file(
        self, name: str, repository: Repository, file: str, *, body: bool
    ) -> None:
        hub = self.offered
        if name in hub.status:
            self._refuse(hub.status[name], hub.headers.get(name, {}))
            return
        content = repository.files.get(file)
        if content is None:
            self._refuse(404, {"X-Error-Code": "EntryNotFound"})
            return
        if len(content) >= LARGE:
            etag = hub.lies.get(file, hashlib.sha256(content).hexdigest())
        else:
            etag = hashlib.sha1(content).hexdigest()
        headers = {"X-Repo-Commit": repository.commit, "ETag": f'"{etag}"'}
        status, start = 200, 0
        if requested := self.headers.get("Range"):
            start = int(requested.removeprefix("bytes=").partition("-")[0])
            status = 206
            headers["Content-Range"] = (
                f"bytes {start}-{len(content) - 1}/{len(content)}"
            )
        self._send(status, content[start:], headers, body=body, file=file)

    def _refuse(self, status: int, headers: dict[str, str]) -> None:
        self._send(status, b"{}", headers, body=self.command != "HEAD")

    def _send(
        self,
        status: int,
        content: bytes,
        headers: dict[str, str],
        *,
        body: bool = True,
        file: str = "",
    ) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if not body:
            return
        end = self.offered.cut.pop(file, len(content))
        self.wfile.write(content[:end])
        self.offered.sent[file] = self.offered.sent.get(file, 0) + end
        if end < len(content):
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
