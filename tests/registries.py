"""A registry that answers as it is told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_ERRORS = {
    401: "UNAUTHORIZED",
    403: "DENIED",
    404: "MANIFEST_UNKNOWN",
    429: "TOOMANYREQUESTS",
    500: "UNKNOWN",
    503: "UNAVAILABLE",
}
CUT = 0


@dataclass
class FaultyRegistry:
    """Answers questions for manifests with `status`, or by cutting the connection."""

    status: int
    address: str = ""
    asked: list[str] = field(default_factory=list)


@contextmanager
def faulty_registry(status: int) -> Iterator[FaultyRegistry]:
    registry = FaultyRegistry(status)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/v2/":
                self._send(200, b"{}")
                return
            registry.asked.append(self.path)
            if registry.status == CUT:
                self.close_connection = True
                return
            self._send(registry.status, b'{"errors": [{"code": "%s"}]}' % _ERRORS[registry.status].encode())

        do_HEAD = do_GET

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            if status == 429:
                self.send_header("Retry-After", "7")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    registry.address = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
