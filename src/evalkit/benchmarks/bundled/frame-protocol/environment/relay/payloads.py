"""Between messages and payloads."""

from .fields import Reader, Writer
from .messages import Bye, Data, Hello

HELLO, DATA, BYE = 1, 2, 3


def pack(message):
    """The type and the payload of a message."""
    writer = Writer()
    if isinstance(message, Hello):
        writer.text(message.client)
        writer.number(message.features)
        return HELLO, writer.payload()
    if isinstance(message, Data):
        writer.time(message.time)
        writer.text(message.channel)
        writer.count(len(message.readings))
        for name, value in message.readings:
            writer.text(name)
            writer.value(value)
        return DATA, writer.payload()
    if isinstance(message, Bye):
        writer.text(message.reason)
        writer.byte(int(message.resume))
        return BYE, writer.payload()
    raise ValueError(f"cannot be sent: {message!r}")


def unpack(kind, payload):
    """The message of a known type with this payload; ValueError if the payload does not fit."""
    reader = Reader(payload)
    if kind == HELLO:
        return Hello(reader.text(), reader.number())
    if kind == DATA:
        time, channel = reader.time(), reader.text()
        return Data(time, channel, tuple((reader.text(), reader.value()) for _ in range(reader.count())))
    return Bye(reader.text(), bool(reader.byte()))
