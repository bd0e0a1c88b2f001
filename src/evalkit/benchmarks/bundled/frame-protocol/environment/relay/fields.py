"""The parts of payloads."""

import struct
from datetime import datetime, timezone

_COUNT = struct.Struct("H")
_NUMBER = struct.Struct("I")
_TIME = struct.Struct("q")
_VALUE = struct.Struct("d")


class Writer:
    """Puts a payload together."""

    def __init__(self):
        self._parts = []

    def payload(self):
        return b"".join(self._parts)

    def byte(self, number):
        self._parts.append(bytes([number]))

    def count(self, number):
        self._pack(_COUNT, number)

    def number(self, number):
        self._pack(_NUMBER, number)

    def value(self, number):
        self._pack(_VALUE, number)

    def time(self, moment):
        self._pack(_TIME, int(moment.timestamp() * 1000))

    def text(self, text):
        self.count(len(text))
        self._parts.append(text.encode("utf-8"))

    def _pack(self, layout, number):
        try:
            self._parts.append(layout.pack(number))
        except struct.error as error:
            raise ValueError(f"cannot be sent: {number!r}: {error}") from None


class Reader:
    """Takes a payload apart; ValueError where it does not fit."""

    def __init__(self, payload):
        self._payload = payload
        self._position = 0

    def take(self, size):
        part = self._payload[self._position : self._position + size]
        if len(part) < size:
            raise ValueError("the payload is too short")
        self._position += size
        return part

    def byte(self):
        return self.take(1)[0]

    def count(self):
        return self._unpack(_COUNT)

    def number(self):
        return self._unpack(_NUMBER)

    def value(self):
        return self._unpack(_VALUE)

    def time(self):
        return datetime.fromtimestamp(self._unpack(_TIME) / 1000, timezone.utc)

    def text(self):
        length = self.count()
        rest = self._payload[self._position :].decode("utf-8", errors="replace")
        text = rest[:length]
        self._position += len(text.encode("utf-8"))
        return text

    def _unpack(self, layout):
        return layout.unpack(self.take(layout.size))[0]
