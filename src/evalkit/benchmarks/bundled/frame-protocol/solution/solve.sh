#!/bin/sh
set -eu
cd "$EVALKIT_WORK"

replace() { # FILE FROM TO: standard input takes the place of these lines
    { head -n "$(($2 - 1))" "$1" && cat && tail -n "+$(($3 + 1))" "$1"; } >"$1.new"
    mv "$1.new" "$1"
}

cp "$EVALKIT_SOLUTION/files/fixtures/handshake.bin" fixtures/handshake.bin

replace relay/fields.py 74 81 <<'END'
        try:
            return _EPOCH + self._unpack(_TIME) * _MILLISECOND
        except OverflowError:
            raise ValueError("no year that we know") from None

    def text(self):
        return self.take(self.count()).decode("utf-8")

    def flag(self):
        number = self.byte()
        if number > 1:
            raise ValueError(f"neither 0 nor 1: {number}")
        return bool(number)

    def end(self):
        if self._position < len(self._payload):
            raise ValueError("the payload is too long")
END

replace relay/fields.py 34 38 <<'END'
        if moment.utcoffset() is None:
            raise ValueError(f"cannot be sent without a zone: {moment}")
        self._pack(_TIME, (moment - _EPOCH) // _MILLISECOND)

    def text(self, text):
        encoded = text.encode("utf-8")
        self.count(len(encoded))
        self._parts.append(encoded)
END

replace relay/fields.py 4 9 <<'END'
from datetime import datetime, timedelta, timezone

_COUNT = struct.Struct(">H")
_NUMBER = struct.Struct(">I")
_TIME = struct.Struct(">q")
_VALUE = struct.Struct(">d")
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MILLISECOND = timedelta(milliseconds=1)
END

replace relay/frames.py 23 29 <<'END'
        if len(payload) > LIMIT:
            raise ValueError(f"the compressed payload has {len(payload)} bytes")
    frame = HEADER.pack(MAGIC, VERSION, kind, flags, len(payload)) + payload
    return frame + CHECKSUM.pack(zlib.crc32(frame))
END

replace relay/frames.py 19 19 <<'END'
    flags = 0
    if len(payload) > LIMIT:
        raise ValueError(f"the payload has {len(payload)} bytes")
END

replace relay/frames.py 12 13 <<'END'
HEADER = struct.Struct(">2sBBHI")
CHECKSUM = struct.Struct(">I")
END

replace relay/payloads.py 35 39 <<'END'
        message = Hello(reader.text(), reader.number())
    elif kind == DATA:
        time, channel = reader.time(), reader.text()
        message = Data(time, channel, tuple((reader.text(), reader.value()) for _ in range(reader.count())))
    else:
        message = Bye(reader.text(), reader.flag())
    reader.end()
    return message
END

replace relay/reader.py 43 47 <<'END'
    if kind not in (HELLO, DATA, BYE):
        return Unknown(kind, flags, payload)
    return unpack(kind, _decompressed(payload) if flags & COMPRESSED else payload)


def _decompressed(payload):
    decompressor = zlib.decompressobj()
    try:
        result = decompressor.decompress(payload, LIMIT + 1)
    except zlib.error as error:
        raise ValueError(f"cannot be decompressed: {error}") from None
    if len(result) > LIMIT or not decompressor.eof or decompressor.unused_data:
        raise ValueError("not one compressed payload within the limit")
    return result
END

replace relay/reader.py 31 39 <<'END'
            if length <= LIMIT and len(self._buffer) < end + CHECKSUM.size:
                return messages
            try:
                if length > LIMIT:
                    raise ValueError("the length is above the limit")
                if CHECKSUM.unpack_from(self._buffer, end) != (zlib.crc32(self._buffer[:end]),):
                    raise ValueError("the checksum is wrong")
                if version == VERSION:
                    messages.append(_message(kind, flags, self._buffer[HEADER.size : end]))
                self._buffer = self._buffer[end + CHECKSUM.size :]
            except ValueError:
                self.damaged += 1
                self._buffer = self._buffer[1:]
END

replace relay/reader.py 24 24 <<'END'
                # The last byte may be the first one of the next frame.
                self._buffer = self._buffer[-1:] if self._buffer.endswith(MAGIC[:1]) else b""
END

replace relay/reader.py 5 5 <<'END'
from .frames import CHECKSUM, COMPRESSED, HEADER, LIMIT, MAGIC, VERSION
END
