"""Output of commands: taken apart as it comes, and written to files, with no more than a block of it in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

STDOUT, STDERR = 1, 2
_HEADER = 8
_TAIL = 4096


@dataclass(slots=True)
class Frames:
    """Splits the engine's stream: frames of eight bytes, which say whose and how long, and a payload."""

    _head: bytearray = field(default_factory=bytearray)
    _left: int = 0

    def feed(self, data: bytes) -> Iterator[tuple[int, memoryview]]:
        rest = memoryview(data)
        while rest:
            if self._left == 0:
                missing = _HEADER - len(self._head)
                self._head += rest[:missing]
                rest = rest[missing:]
                if len(self._head) == _HEADER:
                    self._left = int.from_bytes(self._head[4:], "big")
                    if self._left == 0:
                        self._head.clear()
                continue
            payload, rest = rest[: self._left], rest[self._left :]
            self._left -= len(payload)
            yield self._head[0], payload
            if self._left == 0:
                self._head.clear()


class Sink:
    """Where one stream goes: the end of a file, if it has one. Remembers the tail."""

    def __init__(self, path: Path | None) -> None:
        self._fd = None if path is None else os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._tail = bytearray()

    def write(self, data: memoryview) -> None:
        self._tail += data[-_TAIL:]
        del self._tail[:-_TAIL]
        while self._fd is not None and data:
            data = data[os.write(self._fd, data) :]

    @property
    def tail(self) -> str:
        return self._tail.decode("utf-8", "replace")

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)


class Output:
    """Both streams of a command, in their own files or, in their order, in one."""

    def __init__(self, stdout: Path | None, stderr: Path | None) -> None:
        self._frames = Frames()
        with ExitStack() as stack:
            out = Sink(stdout)
            stack.callback(out.close)
            err = out
            if stderr != stdout:
                err = Sink(stderr)
                stack.callback(err.close)
            self._closing = stack.pop_all()
        self._sinks = {STDOUT: out, STDERR: err}
        self._greeting: bytearray | None = bytearray()
        self.leader: int | None = None
        """The command's process inside, which is the first thing that is said."""

    def feed(self, data: bytes) -> None:
        for stream, payload in self._frames.feed(data):
            greets = stream == STDOUT and self._greeting is not None
            self._sinks.get(stream, self._sinks[STDERR]).write(self._greet(payload) if greets else payload)

    def _greet(self, payload: memoryview) -> memoryview:
        """Take the line with the process; what is none, like a complaint of the engine, is output."""
        assert self._greeting is not None
        greeting = self._greeting + payload
        line, end, rest = bytes(greeting).partition(b"\n")
        if not end and (not line or line.isdigit()):
            self._greeting = greeting
            return memoryview(b"")
        self._greeting = None
        if not line.isdigit():
            return memoryview(greeting)
        self.leader = int(line)
        return memoryview(rest)

    @property
    def tail(self) -> str:
        return self._sinks[STDERR].tail

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.close()
