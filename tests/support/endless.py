"""Model endpoints whose answers never end, or only when released."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

BLOCK = b"x" * (1 << 16)
LINES = (b'data: {"x": "%s"}\n\n' % (b"x" * 1000)) * 64


@contextmanager
def serving(block: bytes, *, status: str = "200 OK", content_type: str = "application/json") -> Iterator[str]:
    """Answer each request with an endless repetition of this block. Yields the base URL."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nConnection: close\r\n\r\n".encode()

    def answer(connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(block)

    with _answering(answer) as url:
        yield url


@contextmanager
def telling(beginning: bytes, release: threading.Event, end: bytes) -> Iterator[str]:
    """Answer each request with a stream that ends when released."""

    def answer(connection: socket.socket) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
        connection.sendall(head + beginning)
        release.wait(30)
        connection.sendall(end)

    with _answering(answer) as url:
        yield url


@contextmanager
def _answering(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.recv(1 << 16)
            answer(connection)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
