"""A small HTTP registry that follows a script: yes, no, any answer that means neither, or another registry's."""

from __future__ import annotations

import base64
import http.client
import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from tests.support.web import LOOPBACK, QuietHandler, serve_http

MANIFEST = "application/vnd.oci.image.index.v1+json"
DIGEST = "sha256:" + "ab" * 32
_ERRORS = {
    401: "UNAUTHORIZED",
    403: "DENIED",
    404: "MANIFEST_UNKNOWN",
    429: "TOOMANYREQUESTS",
    500: "UNKNOWN",
    503: "UNAVAILABLE",
}


@dataclass(frozen=True)
class Reply:
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    delay: float = 0.0
    cut: bool = False
    """The connection breaks in the middle of the answer."""
    kind: str = MANIFEST
    after: threading.Event | None = None


YES = Reply(headers=(("Docker-Content-Digest", DIGEST),))
NO = Reply(404)
CUT = Reply(cut=True)


@dataclass
class FakeRegistry:
    """A registry with a script of replies for each image; the last one is repeated."""

    host: str = ""
    otherwise: Reply = NO
    """The reply for images without a script."""
    scripts: dict[str, list[Reply]] = field(default_factory=dict)
    asked: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """The times of the requests for each image."""
    login: tuple[str, str] | None = None
    """The user and password that earn a token; None lets anybody in."""
    basic: bool = False
    tokens_given: int = 0
    upstream: str = ""
    """A real registry for requests that are not scripted."""
    slowness: float = 0.0
    in_transit: set[str] = field(default_factory=set)
    most_in_transit: int = 0
    """The most images that were read from it at the same time."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def says(self, image: str, *replies: Reply) -> str:
        """Script the replies for an image. Returns the image's full name."""
        name, _, tag = image.partition(":")
        self.scripts[f"/v2/{name}/manifests/{tag}"] = list(replies)
        return f"{self.host}/{image}"

    def times(self, image: str) -> list[float]:
        name, _, tag = image.partition(":")
        return self.asked[f"/v2/{name}/manifests/{tag}"]

    @contextmanager
    def transit(self, image: str) -> Iterator[None]:
        with self.lock:
            self.in_transit.add(image)
            self.most_in_transit = max(self.most_in_transit, len(self.in_transit))
        try:
            yield
        finally:
            with self.lock:
                self.in_transit.discard(image)

    def passes_on(self, path: str) -> bool:
        with self.lock:
            return bool(self.upstream) and not self.scripts.get(path)

    def next_reply(self, path: str) -> Reply:
        with self.lock:
            self.asked[path].append(time.monotonic())
            script = self.scripts.get(path, [self.otherwise])
            return script.pop(0) if len(script) > 1 or self.upstream else script[0]


class _Handler(QuietHandler):
    registry: FakeRegistry

    def do_HEAD(self) -> None:
        if not self._is_allowed():
            return
        if self.registry.passes_on(self.path):
            self._pass_on()
            return
        if self.path == "/v2/":
            self._answer(200)
            return
        reply = self.registry.next_reply(self.path)
        time.sleep(reply.delay)
        if reply.after is not None:
            reply.after.wait()
        if reply.cut:
            self.wfile.write(b"HTTP/1.1 200 O")
            self.close_connection = True
            return
        kind, body = reply.kind, b""
        if reply.status in _ERRORS:
            kind, body = "application/json", b'{"errors": [{"code": "%s"}]}' % _ERRORS[reply.status].encode()
        self._answer(reply.status, (("Content-Type", kind), *reply.headers), body)

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path != "/token":
            self.do_HEAD()
            return
        if self.headers.get("Authorization") != _basic(self.registry.login):
            self._answer(401)
            return
        self.registry.tokens_given += 1
        scope = parse_qs(parts.query)["scope"][0]
        self._answer(200, body=json.dumps({"token": f"token for {scope}"}).encode())

    def _pass_on(self) -> None:
        connection = http.client.HTTPConnection(self.registry.upstream, timeout=60)
        image = self.path.removeprefix("/v2/").partition("/manifests/")[0].partition("/blobs/")[0]
        with self.registry.transit(image) if self.command == "GET" else nullcontext():
            # Engines send several headers Accept, and get another manifest, or none, where one of them is lost.
            names = {name.lower() for name in self.headers}
            sent = {name: ", ".join(self.headers.get_all(name) or ()) for name in names}
            connection.request(self.command, self.path, headers=sent)
            response = connection.getresponse()
            body = response.read()
            time.sleep(self.registry.slowness)
        self.send_response(response.status)
        for name, value in response.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", response.getheader("Content-Length") or str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        connection.close()

    def _is_allowed(self) -> bool:
        if self.registry.login is None:
            return True
        image = self.path.removeprefix("/v2/").partition("/manifests/")[0]
        if self.registry.basic:
            wanted, challenge = _basic(self.registry.login), 'Basic realm="here"'
        else:
            wanted = f"Bearer token for repository:{image}:pull"
            challenge = (
                f'Bearer realm="http://{self.registry.host}/token",service="here",scope="repository:{image}:pull"'
            )
        if self.headers.get("Authorization") == wanted:
            return True
        self._answer(401, (("WWW-Authenticate", challenge),))
        return False

    def _answer(self, status: int, headers: tuple[tuple[str, str], ...] = (), body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


def _basic(login: tuple[str, str] | None) -> str | None:
    return "Basic " + base64.b64encode(":".join(login).encode()).decode() if login else None


@contextmanager
def fake_registry(otherwise: Reply = NO) -> Iterator[FakeRegistry]:
    registry = FakeRegistry(otherwise=otherwise)
    with serve_http(type("Handler", (_Handler,), {"registry": registry})) as port:
        registry.host = f"{LOOPBACK}:{port}"
        yield registry
