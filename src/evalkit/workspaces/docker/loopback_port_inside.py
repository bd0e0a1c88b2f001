"""The inner side of a loopback port: listens on the container's loopback, and speaks frames on its own pipes.

This file is the whole program, given to a Python of the image, 3.7 or newer. `loopback_port_inside.pl` does the same.

    python3 -c PROGRAM PORT

A frame is the number of a connection and a length, four bytes each, and that many bytes; none means that this side has
ended. Frame 0 says which port it is. The end of the input is the end of it all.

Of each connection, either side sends only so much that the other has not taken yet. A number with its highest bit set
says how much more was taken, in four bytes; without them, the connection is gone, and what is sent to it is lost.
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
import sys

_HEAD = struct.Struct("!II")
_SIZE = struct.Struct("!I")
_TAKEN = 1 << 31
_WINDOW = 1 << 18
_BLOCK = 1 << 16
_INPUT, _OUTPUT = 0, 1


class Link:
    def __init__(self, number: int, raw: socket.socket) -> None:
        raw.setblocking(False)
        self.number = number
        self.raw = raw
        self.pending = bytearray()
        self.ends = False
        """Once what is pending is sent."""
        self.heard_all = False
        self.under_way = 0
        """Bytes that were heard, and that the other side has not taken yet."""


class PortServer:
    def __init__(self, port: int) -> None:
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", port))
        self.listener.listen(256)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.selector.register(_INPUT, selectors.EVENT_READ)
        self.connections: dict[int, Link] = {}
        self.received = bytearray()
        self.count = 0

    def serve(self) -> None:
        say(0, str(self.listener.getsockname()[1]).encode())
        while True:
            for key, events in self.selector.select():
                if key.fileobj == _INPUT:
                    if not self.take_frames():
                        return
                elif key.fileobj is self.listener:
                    self.accept()
                elif key.data.number in self.connections:
                    self.attend(key.data, events)

    def accept(self) -> None:
        self.count += 1
        connection = Link(self.count, self.listener.accept()[0])
        self.connections[self.count] = connection
        self.selector.register(connection.raw, selectors.EVENT_READ, connection)

    def take_frames(self) -> bool:
        content = os.read(_INPUT, _BLOCK)
        self.received += content
        while len(self.received) >= _HEAD.size:
            number, length = _HEAD.unpack_from(self.received)
            connection = self.connections.get(number & ~_TAKEN)
            end = _HEAD.size + length
            if len(self.received) < end:
                break
            payload = bytes(self.received[_HEAD.size : end])
            del self.received[:end]
            if connection is None:
                continue
            if number & _TAKEN:
                connection.under_way -= _SIZE.unpack(payload)[0]
                self.watch(connection)
            else:
                connection.pending += payload
                connection.ends = connection.ends or not payload
                self.attend(connection, selectors.EVENT_WRITE)
        return bool(content)

    def attend(self, connection: Link, events: int) -> None:
        try:
            if events & selectors.EVENT_READ and not connection.heard_all:
                content = connection.raw.recv(_BLOCK)
                connection.heard_all = not content
                connection.under_way += len(content)
                say(connection.number, content)
            if connection.pending and events & selectors.EVENT_WRITE:
                sent = connection.raw.send(connection.pending)
                del connection.pending[:sent]
                say(connection.number | _TAKEN, _SIZE.pack(sent))
        except BlockingIOError:
            pass
        except OSError:
            self.drop(connection)
            return
        self.watch(connection)

    def watch(self, connection: Link) -> None:
        wanted = selectors.EVENT_WRITE if connection.pending else 0
        if not connection.heard_all and connection.under_way < _WINDOW:
            wanted |= selectors.EVENT_READ
        if connection.ends and not connection.pending:
            self.drop(connection)
        elif not wanted:
            self.forget(connection)
        elif connection.raw not in self.selector.get_map():
            self.selector.register(connection.raw, wanted, connection)
        else:
            self.selector.modify(connection.raw, wanted, connection)

    def forget(self, connection: Link) -> None:
        if connection.raw in self.selector.get_map():
            self.selector.unregister(connection.raw)

    def drop(self, connection: Link) -> None:
        self.forget(connection)
        connection.raw.close()
        del self.connections[connection.number]
        say(connection.number | _TAKEN, b"")
        if not connection.heard_all:
            say(connection.number, b"")


def say(number: int, payload: bytes) -> None:
    rest = _HEAD.pack(number, len(payload)) + payload
    while rest:
        rest = rest[os.write(_OUTPUT, rest) :]


if __name__ == "__main__":
    PortServer(int(sys.argv[1])).serve()
