"""The engine's HTTP server: one thread for each connection; all connections and requests are recorded."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from evalkit.system.sockets import address_of
from evalkit.testing.container_engine.containers import EngineRefusal
from evalkit.testing.container_engine.faults import Cut, Death, Fault, Hang, Refusal, Reset, Slow
from evalkit.testing.container_engine.streams import end_connection

_VERSION = re.compile(r"/v\d+\.\d+(?=/)")
_BLOCK = 1 << 16
_LOOK_SECONDS = 0.02
_BACKLOG = 512


class Broken(Exception):
    """The connection ends here, without an answer."""


@dataclass(slots=True)
class ServedExchange:
    """One request, and the means to answer it."""

    handler: _Handler
    number: int
    method: str
    path: str
    """The path of the request, without the version of the API."""
    query: Mapping[str, str]
    endpoint: str = ""
    """The name of the endpoint in the engine's list."""
    arguments: Mapping[str, str] = field(default_factory=dict)
    """The parts of the path: the id of a container, the name of an image."""
    fault: Fault | None = None
    _document: Any = None

    @property
    def headers(self) -> Mapping[str, str]:
        return dict(self.handler.headers.items())

    @property
    def connection(self) -> socket.socket:
        return self.handler.socket

    @property
    def client_has_left(self) -> bool:
        try:
            return not self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    @property
    def document(self) -> Any:
        """The request's JSON."""
        if self._document is None:
            self._document = json.loads(b"".join(self.body()) or b"{}")
        return self._document

    def body(self) -> Iterator[bytes]:
        """The rest of the request's body."""
        return self.handler.take_body()

    def answer(self, status: int, document: Any = None, *, headers: Mapping[str, str] | None = None) -> None:
        """Answer at once; without a document, with an empty body."""
        content = b"" if document is None else json.dumps(document).encode()
        kind = {} if document is None else {"Content-Type": "application/json"}
        self.before_answer()
        self.handler.begin(status, {**kind, "Content-Length": str(len(content)), **(headers or {})})
        for block in self._faulty([content]):
            self.handler.wfile.write(block)

    def stream(self, kind: str, blocks: Iterable[bytes], *, headers: Mapping[str, str] | None = None) -> None:
        """Answer piece by piece: in chunks or, for HTTP/1.0, until the connection ends."""
        chunked = self.handler.request_version != "HTTP/1.0"
        length = {"Transfer-Encoding": "chunked"} if chunked else {"Connection": "close"}
        self.before_answer()
        self.handler.begin(200, {"Content-Type": kind, **length, **(headers or {})})
        for block in self._faulty(blocks):
            self.handler.wfile.write(b"%x\r\n%s\r\n" % (len(block), block) if chunked else block)
        if chunked:
            self.handler.wfile.write(b"0\r\n\r\n")

    def hijack(self) -> socket.socket:
        """Leave HTTP: from here on, the connection carries the streams of a process."""
        list(self.body())
        self.before_answer()
        if "Upgrade" in self.headers:
            self.handler.begin(101, {"Connection": "Upgrade", "Upgrade": "tcp"})
        else:
            self.handler.begin(200, {"Content-Type": "application/vnd.docker.raw-stream"})
        self.handler.close_connection = True
        if isinstance(self.fault, Cut):
            raise Broken
        return self.connection

    def before_work(self) -> None:
        """Apply the faults that prevent the engine's work."""
        fault = self.fault
        if isinstance(fault, Refusal):
            raise EngineRefusal(fault.status, fault.message)
        if isinstance(fault, Reset | Hang | Death) and fault.when == "before":
            self._break_off(fault)

    def before_answer(self) -> None:
        """Apply the faults that keep the outcome from the client."""
        fault = self.fault
        if isinstance(fault, Reset | Hang | Death) and fault.when == "after":
            self._break_off(fault)
        if isinstance(fault, Slow):
            time.sleep(fault.seconds)

    def _break_off(self, fault: Reset | Hang | Death) -> None:
        if isinstance(fault, Death):
            self.handler.daemon.die(fault)
        while isinstance(fault, Hang) and not self.client_has_left and not self.handler.daemon.is_stopping:
            time.sleep(_LOOK_SECONDS)
        raise Broken

    def _faulty(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        left = self.fault.size if isinstance(self.fault, Cut) else None
        for block in filter(None, blocks):
            if isinstance(self.fault, Slow):
                time.sleep(self.fault.seconds)
            if left is not None and len(block) >= left:
                # An answer of exactly this size is cut as well.
                self.handler.wfile.write(block[: min(left, len(block) - 1)])
                raise Broken
            left = None if left is None else left - len(block)
            yield block


class Daemon:
    """Listens on a socket, and hands each request to `serve`."""

    def __init__(
        self, socket_path: Path, serve: Callable[[ServedExchange], None], die: Callable[[Death], None]
    ) -> None:
        self.path = socket_path
        self.serve = serve
        self.die = die
        self.is_stopping = False
        self.lock = threading.Lock()
        self.connections: set[socket.socket] = set()
        self.under_way: list[ServedExchange] = []
        """Requests under way, including conversations with processes."""
        self._threads: set[threading.Thread] = set()
        self._numbers = iter(range(1, 1 << 62))
        self._listening: socket.socket | None = None
        self._accepting: threading.Thread | None = None

    def start(self) -> None:
        listening = socket.socket(socket.AF_UNIX)
        with address_of(self.path) as address:
            listening.bind(address)
        listening.listen(_BACKLOG)
        self.is_stopping, self._listening = False, listening
        self._accepting = threading.Thread(target=self._accept, args=(listening,), name="fake-engine", daemon=True)
        self._accepting.start()

    def hang_up(self) -> None:
        """Stop listening, and end all connections, without waiting for their threads."""
        self.is_stopping = True
        listening, self._listening = self._listening, None
        if listening is not None:
            end_connection(listening)
            self.path.unlink(missing_ok=True)
        with self.lock:
            for connection in self.connections:
                end_connection(connection)

    def stop(self) -> None:
        """Hang up, and wait for all threads."""
        self.hang_up()
        with self.lock:
            threads = [*self._threads]
        for thread in (*threads, self._accepting):
            if thread is not None and thread is not threading.current_thread():
                thread.join()

    def next_number(self) -> int:
        with self.lock:
            return next(self._numbers)

    def _accept(self, listening: socket.socket) -> None:
        with listening, suppress(OSError):
            while True:
                connection, _ = listening.accept()
                thread = threading.Thread(target=self._handle, args=(connection,), name="fake-engine-call", daemon=True)
                with self.lock:
                    self._threads.add(thread)
                    self.connections.add(connection)
                thread.start()

    def _handle(self, connection: socket.socket) -> None:
        try:
            with suppress(OSError, Broken):
                _Handler(connection, self)
        finally:
            end_connection(connection)
            with self.lock:
                self.connections.discard(connection)
                self._threads.discard(threading.current_thread())
            connection.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "Docker/fake"

    def __init__(self, connection: socket.socket, daemon: Daemon) -> None:
        self.daemon = daemon
        self.socket = connection
        self._body_is_read = False
        super().__init__(connection, ("", 0), None)  # type: ignore[arg-type]  # the handler makes no use of a server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def finish(self) -> None:
        with suppress(OSError):
            super().finish()

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def take_body(self) -> Iterator[bytes]:
        if self._body_is_read:
            return
        self._body_is_read = True
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self._line().split(b";")[0], 16):
                yield self._read(size)
                self._line()
            self._line()
            return
        left = int(self.headers.get("Content-Length") or 0)
        while left:
            block = self._read(min(left, _BLOCK))
            left -= len(block)
            yield block

    def _line(self) -> bytes:
        line = self.rfile.readline()
        if not line.endswith(b"\n"):
            raise Broken
        return line

    def _read(self, size: int) -> bytes:
        block = self.rfile.read(size)
        if len(block) < size:
            raise Broken
        return block

    def _serve(self) -> None:
        self._body_is_read = False
        parts = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        path = unquote(_VERSION.sub("", parts.path, count=1))
        exchange = ServedExchange(self, self.daemon.next_number(), self.command, path, query)
        with self.daemon.lock:
            self.daemon.under_way.append(exchange)
        try:
            self._answer(exchange)
        finally:
            with self.daemon.lock:
                self.daemon.under_way.remove(exchange)

    def _answer(self, exchange: ServedExchange) -> None:
        try:
            self.daemon.serve(exchange)
        except EngineRefusal as refused:
            list(exchange.body())  # else a client that is still sending would never read the answer
            exchange.fault = None if isinstance(exchange.fault, Refusal) else exchange.fault
            exchange.answer(refused.status, {"message": refused.message})
        list(exchange.body())

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _serve  # noqa: N815  # the names that http.server calls
