"""From a stream of bytes to messages."""

import zlib

from .frames import CHECKSUM, COMPRESSED, HEADER, LIMIT, MAGIC, VERSION, checksum
from .messages import Unknown
from .payloads import BYE, DATA, HELLO, unpack


class FrameReader:
    """Finds the frames in bytes that come in pieces."""

    def __init__(self):
        self._buffer = b""
        self.damaged = 0

    def feed(self, data):
        """Take the next bytes; the messages that are complete with them."""
        self._buffer += data
        messages = []
        while True:
            start = self._buffer.find(MAGIC)
            if start < 0:
                self._buffer = b""
                return messages
            self._buffer = self._buffer[start:]
            if len(self._buffer) < HEADER.size:
                return messages
            _, version, kind, flags, length = HEADER.unpack_from(self._buffer)
            end = HEADER.size + length
            if len(self._buffer) < end + CHECKSUM.size:
                return messages
            payload = self._buffer[HEADER.size : end]
            (crc,) = CHECKSUM.unpack_from(self._buffer, end)
            self._buffer = self._buffer[end + CHECKSUM.size :]
            if crc != checksum(payload) or length > LIMIT:
                self.damaged += 1
            elif version == VERSION:
                messages.append(_message(kind, flags, payload))


def _message(kind, flags, payload):
    if flags & COMPRESSED:
        payload = zlib.decompress(payload)
    if kind in (HELLO, DATA, BYE):
        return unpack(kind, payload)
    return Unknown(kind, flags, payload)
