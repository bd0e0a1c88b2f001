"""Frames around payloads."""

import struct
import zlib

from .payloads import pack

MAGIC = b"RL"
VERSION = 1
COMPRESSED = 1
LIMIT = 1048576
HEADER = struct.Struct("2sBBHI")
CHECKSUM = struct.Struct("i")


def encode(message, compress=False):
    """The frame of a message."""
    kind, payload = pack(message)
    flags = 0
    if compress:
        flags |= COMPRESSED
        payload = zlib.compress(payload)
    return HEADER.pack(MAGIC, VERSION, kind, flags, len(payload)) + payload + CHECKSUM.pack(checksum(payload))


def checksum(data):
    """The CRC-32 of some bytes."""
    crc = zlib.crc32(data)
    return crc - (1 << 32) if crc >= 1 << 31 else crc
