"""A server on a Unix socket that lasts as long as its context."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.abc

from evalkit.domain.failures import unwrap
from evalkit.system.sockets import address_of

_BACKLOG = 256
_MOST_CONNECTIONS = 256
_PAUSE = 0.1
_BLOCK = 1 << 16


class UnixStream:
    """A connection. anyio's own class fails if it is cancelled at the moment when the peer hangs up."""

    def __init__(self, raw: socket.socket) -> None:
        raw.setblocking(False)
        self._raw = raw

    async def receive(self) -> bytes:
        """Receive some bytes; none at the end."""
        while True:
            try:
                return self._raw.recv(_BLOCK)
            except BlockingIOError:
                await anyio.wait_readable(self._raw)

    async def send(self, content: bytes) -> None:
        rest = memoryview(content)
        while rest:
            try:
                rest = rest[self._raw.send(rest) :]
            except BlockingIOError:
                await anyio.wait_writable(self._raw)

    def close(self) -> None:
        self._raw.close()


@asynccontextmanager
async def serving(path: Path, serve: Callable[[UnixStream], Awaitable[None]]) -> AsyncIterator[None]:
    """Serve each connection to this path in a task of its own, up to a limit; others wait."""
    slots = anyio.Semaphore(_MOST_CONNECTIONS)

    async def serve_one(raw: socket.socket) -> None:
        stream = UnixStream(raw)
        try:
            await serve(stream)
        except OSError:
            pass  # the peer has hung up
        finally:
            stream.close()
            slots.release()

    async def accept(tasks: anyio.abc.TaskGroup) -> None:
        while True:
            await slots.acquire()
            tasks.start_soon(serve_one, await _accept(listener))

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        path.unlink(missing_ok=True)
        with address_of(path) as address:
            listener.bind(address)
        path.chmod(0o666)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(accept, tasks)
                yield
                tasks.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise unwrap(group) from group
        finally:
            path.unlink(missing_ok=True)


async def _accept(listener: socket.socket) -> socket.socket:
    while True:
        await anyio.wait_readable(listener)
        try:
            return listener.accept()[0]
        except BlockingIOError:
            continue
        except OSError:  # no descriptor is free in this process
            await anyio.sleep(_PAUSE)
