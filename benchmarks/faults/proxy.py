"""A proxy in front of an engine or a registry: its connections can be cut, refused, delayed or answered with errors."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

Mode = Literal["pass", "refuse", "delay", "hang", "error"]
_BLOCK = 1 << 16
_ERROR_BODY = b'{"message": "the campaign says no"}'
_ERROR = (
    b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(_ERROR_BODY), _ERROR_BODY)
)
_DELAY_SECONDS = 0.1
Address = Path | tuple[str, int]


def connect(address: Address) -> socket.socket:
    if isinstance(address, Path):
        made = socket.socket(socket.AF_UNIX)
        try:
            made.connect(str(address))
        except OSError:
            made.close()
            raise
        return made
    return socket.create_connection(address)


@dataclass
class Proxy:
    """Listens at a socket file, or at a free port of loopback, and passes on to another address."""

    upstream: Address
    path: Path | None = None
    mode: Mode = "pass"
    port: int = 0
    _listener: socket.socket | None = None
    _open: set[socket.socket] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _proceed: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._proceed.set()
        self._listen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close_listener()
        self._proceed.set()
        self.cut()

    def cut(self) -> None:
        """End all connections as they are."""
        with self._lock:
            connections = list(self._open)
        for each in connections:
            _shut(each)

    def switch(self, mode: Mode) -> None:
        """Change what happens to connections. Those that are open end where the change would not concern them."""
        before, self.mode = self.mode, mode
        if mode == "hang":
            self._proceed.clear()
        else:
            self._proceed.set()
        if mode == "refuse":
            self._close_listener()
            self.cut()
        elif before == "refuse":
            self._listen()
        if mode == "error":
            self.cut()

    def _listen(self) -> None:
        if self.path is not None:
            self.path.unlink(missing_ok=True)
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(self.path))
        else:
            listener = socket.socket(socket.AF_INET)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", self.port))
            self.port = listener.getsockname()[1]
        listener.listen(128)
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _close_listener(self) -> None:
        if self._listener is not None:
            _shut(self._listener)  # wakes the thread that accepts, which close() does not
            self._listener.close()
            self._listener = None

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, self._counted(client):
            self._proceed.wait()
            if self.mode == "error":
                with suppress(OSError):
                    client.recv(_BLOCK)
                    client.sendall(_ERROR)
                return
            try:
                server = connect(self.upstream)
            except OSError:
                return
            with server, self._counted(server):
                back = threading.Thread(target=self._pump, args=(server, client), daemon=True)
                back.start()
                self._pump(client, server)
                back.join()

    def _counted(self, connection: socket.socket) -> _Counted:
        return _Counted(connection, self._open, self._lock)

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while block := source.recv(_BLOCK):
                if self.mode == "delay":
                    time.sleep(_DELAY_SECONDS)
                self._proceed.wait()
                target.sendall(block)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            _shut(source)
            _shut(target)


@dataclass
class _Counted:
    """Lists a connection while it is served."""

    connection: socket.socket
    among: set[socket.socket]
    lock: threading.Lock

    def __enter__(self) -> None:
        with self.lock:
            self.among.add(self.connection)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self.lock:
            self.among.discard(self.connection)


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
