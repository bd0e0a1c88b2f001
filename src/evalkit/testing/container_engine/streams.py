"""Streams between a connection and a process: Docker's frames in one direction, plain bytes in the other."""

from __future__ import annotations

import os
import selectors
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from typing import IO

STDOUT, STDERR = 1, 2
_BLOCK = 1 << 16
_LOOK_SECONDS = 0.05
_GRACE_SECONDS = 2.0
Write = Callable[[int, bytes], None]


def frame(stream: int, data: bytes) -> bytes:
    """A frame of Docker's multiplexed format: the stream, three zero bytes, the length, the data.

    https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Container/operation/ContainerAttach
    """
    return bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


def pump(process: subprocess.Popen[bytes], write: Write) -> int:
    """Pass on the output of a process until it ends. Returns its status.

    Other processes may hold its output open after its end. As in Docker, they are read for a moment longer.
    """
    assert process.stdout is not None
    assert process.stderr is not None
    ended_at: float | None = None
    with process.stdout, process.stderr, selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ, STDOUT)
        selector.register(process.stderr, selectors.EVENT_READ, STDERR)
        while selector.get_map():
            for key, _ in selector.select(_LOOK_SECONDS):
                data = os.read(key.fd, _BLOCK)
                if data:
                    write(key.data, data)
                else:
                    selector.unregister(key.fileobj)
            if process.poll() is not None:
                ended_at = ended_at or time.monotonic()
                if time.monotonic() > ended_at + _GRACE_SECONDS:
                    break
    code = process.wait()
    return code if code >= 0 else 128 - code


def feed(connection: socket.socket, stdin: IO[bytes] | None, keep_open: Callable[[], bool] = lambda: False) -> None:
    """Pass on the input from a client until it ends. Input that no process reads is dropped."""
    with suppress(OSError, ValueError):
        while data := connection.recv(_BLOCK):
            if stdin is not None:
                with suppress(BrokenPipeError):
                    stdin.write(data)
                    stdin.flush()
    if stdin is not None and not keep_open():
        with suppress(OSError, ValueError):
            stdin.close()


def send(connection: socket.socket, data: bytes) -> bool:
    """Send data to a client. Returns whether the client received it."""
    try:
        connection.sendall(data)
    except OSError:
        return False
    return True


def end_connection(connection: socket.socket) -> None:
    """Shut down both directions, which also wakes threads that wait for one."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
