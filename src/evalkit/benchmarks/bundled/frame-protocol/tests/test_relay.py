import os
import struct
import subprocess
import sys
import tempfile
import unittest
import zlib
from datetime import datetime, timedelta, timezone

from relay import Bye, Data, FrameReader, Hello, Unknown, encode

WORK = os.environ["EVALKIT_WORK"]
UTC = timezone.utc

# Written down by hand from the document, without the checksums.
EXAMPLE = [
    (Hello("buoy-7", 5), "524c 01 01 0000 0000000c  0006 62756f792d37  00000005"),
    (
        Data(datetime(1969, 12, 31, 23, 59, 58, 500000, UTC), "K\u00f6ln", (("\u03b8 / \u00b0C", 21.5), ("p", -0.25))),
        "524c 01 02 0000 0000002e  fffffffffffffa24  0005 4bc3b66c6e  0002"
        "0008 ceb8202f20c2b043  4035800000000000  0001 70  bfd0000000000000",
    ),
    (
        Data(datetime(2024, 5, 1, 12, 30, 15, 250000, UTC), "", ()),
        "524c 01 02 0000 0000000c  0000018f342250d2  0000  0000",
    ),
    (Bye("\u5929\u6c17", True), "524c 01 03 0000 00000009  0006 e5a4a9e6b097  01"),
]


def sealed(data):
    """The bytes (given as such or in hexadecimal) with their checksum."""
    data = bytes.fromhex(data) if isinstance(data, str) else data
    return data + struct.pack(">I", zlib.crc32(data))


def frame(kind, payload, flags=0, version=1, length=None):
    return sealed(
        struct.pack(">2sBBHI", b"RL", version, kind, flags, len(payload) if length is None else length) + payload
    )


def received(data, piece=None):
    """The messages in the bytes and the number of damaged frames."""
    reader = FrameReader()
    messages = []
    for start in range(0, len(data), piece or len(data) or 1):
        messages += reader.feed(data[start : start + (piece or len(data))])
    return messages, reader.damaged


HELLO = Hello("x", 1)
HELLO_FRAME = frame(1, b"\0\1x\0\0\0\1")


class EncodeTest(unittest.TestCase):
    def test_example(self):
        for message, expected in EXAMPLE:
            self.assertEqual(encode(message).hex(), sealed(expected).hex(), message)

    def test_compressed(self):
        data = encode(Bye("a" * 1000, False), compress=True)
        self.assertEqual(data[:6].hex(), "524c01030001")
        (length,) = struct.unpack(">I", data[6:10])
        self.assertEqual(zlib.decompress(data[10 : 10 + length]), b"\x03\xe8" + b"a" * 1000 + b"\0")
        self.assertEqual(sealed(data[:-4]), data)

    def test_time_is_cut_off_towards_the_past(self):
        zone = timezone(timedelta(hours=-3))
        for moment, milliseconds in (
            (datetime(1970, 1, 1, 0, 0, 0, 1999, UTC), 1),
            (datetime(1969, 12, 31, 23, 59, 59, 999999, UTC), -1),
            (datetime(1969, 12, 31, 21, 0, 1, 0, zone), 1000),
            (datetime(2023, 7, 7, 7, 7, 7, 7000, UTC), 1688713627007),
            (datetime(9999, 12, 31, 23, 59, 59, 999000, UTC), 253402300799999),
        ):
            self.assertEqual(struct.unpack(">q", encode(Data(moment, "", ()))[10:18])[0], milliseconds, moment)

    def test_longest_text_is_counted_in_bytes(self):
        encode(Bye("\u00e9" * 32767, False))
        for text in ("\u00e9" * 32768, "a" * 65536):
            with self.assertRaises(ValueError):
                encode(Bye(text, False))

    def test_what_cannot_be_expressed(self):
        now = datetime(2024, 1, 1, tzinfo=UTC)
        for number, message in enumerate((
            Hello("x", 1 << 32),
            Hello("x", -1),
            Hello("\ud800", 1),
            Data(datetime(2024, 1, 1), "", ()),
            Data(now, "", (("a", 1.0),) * 65536),
            Data(now, "", (("a" * 1000, 1.0),) * 1100),
            Unknown(9, 0, b""),
        )):  # fmt: skip
            with self.assertRaises(ValueError, msg=number):
                encode(message)


class ReceivingTestCase(unittest.TestCase):
    def check(self, data, messages, damaged=0):
        for piece in (None, 1, 3):
            self.assertEqual(received(data, piece), (messages, damaged), (piece, data[:80]))


class ReceiveTest(ReceivingTestCase):
    def test_example(self):
        self.check(b"".join(sealed(text) for _, text in EXAMPLE), [message for message, _ in EXAMPLE])

    def test_times_are_exact(self):
        for number in (1688713627007, -1, 253402300799999, -62135596800000, 1):
            ((message,), _) = received(frame(2, struct.pack(">q", number) + b"\0\0\0\0"))
            self.assertEqual((message.time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1), number)
            self.assertEqual(message.time.utcoffset(), timedelta(0))

    def test_bytes_between_frames(self):
        self.check(b"R\0LRRL"[:5] + HELLO_FRAME + b"noise R" + HELLO_FRAME + b"R", [HELLO, HELLO])

    def test_other_version(self):
        self.check(frame(1, b"RL\1\1 what ever", version=2) + HELLO_FRAME, [HELLO])

    def test_unknown_type(self):
        payload = zlib.compress(b"new")
        self.check(
            frame(9, b"\1\2") + frame(0, b"", flags=6) + frame(200, payload, flags=3),
            [Unknown(9, 0, b"\1\2"), Unknown(0, 6, b""), Unknown(200, 3, payload)],
        )

    def test_other_flags_are_ignored(self):
        self.check(frame(1, b"\0\1x\0\0\0\1", flags=0xFFFE), [HELLO])


class DamageTest(ReceivingTestCase):
    def test_every_single_byte(self):
        for position in range(len(HELLO_FRAME)):
            broken = bytearray(HELLO_FRAME)
            broken[position] ^= 0x20
            data = bytes(broken) + HELLO_FRAME + b"\0" * 64
            messages, damaged = received(data)
            if 6 <= position <= 9 and struct.unpack(">I", broken[6:10])[0] <= 1048576:
                data += b"\0" * 1048576  # the reader has to wait for so long a frame
                messages, damaged = received(data)
            self.assertEqual((messages, damaged), ([HELLO], 0 if position < 2 else 1), position)

    def test_length_too_large_swallows_nothing(self):
        broken = bytearray(HELLO_FRAME)
        broken[9] += len(HELLO_FRAME) * 2
        self.check(bytes(broken) + HELLO_FRAME * 3, [HELLO] * 3, damaged=1)

    def test_length_above_the_limit_is_noticed_at_once(self):
        header = struct.pack(">2sBBHI", b"RL", 1, 1, 0, 1048577)
        reader = FrameReader()
        self.assertEqual(reader.feed(header[:9]) + reader.feed(header[9:]), [])
        self.assertEqual(reader.damaged, 1)
        self.assertEqual(reader.feed(HELLO_FRAME), [HELLO])

    def test_largest_frame(self):
        messages, damaged = received(frame(9, b"\0" * 1048576))
        self.assertEqual((len(messages), damaged), (1, 0))
        self.assertTrue(messages == [Unknown(9, 0, b"\0" * 1048576)])  # not assertEqual: it would show a megabyte

    def test_frame_inside_a_damaged_one(self):
        self.check(frame(1, b"\0\1x" + HELLO_FRAME + b"\0"), [HELLO], damaged=1)

    def test_payload_does_not_fit(self):
        data = struct.pack(">q", 0)
        for kind, payload in (
            (1, b""),
            (1, b"\0\1x\0\0\0"),
            (1, b"\0\1x\0\0\0\1\0"),
            (1, b"\0\2x"),
            (1, b"\0\1\xff\0\0\0\1"),
            (2, data + b"\0\0\0\1"),
            (2, data + b"\0\0\0\0\0"),
            (2, struct.pack(">q", 1 << 62) + b"\0\0\0\0"),
            (3, b"\0\0"),
            (3, b"\0\0\2"),
        ):
            self.check(frame(kind, payload) + HELLO_FRAME, [HELLO], damaged=1)

    def test_compression(self):
        good = zlib.compress(b"\0\0\1")
        self.check(frame(3, good, flags=1), [Bye("", True)])
        for payload in (b"", b"\0\0\1", good[:-1], good + b"\0", good + good, zlib.compress(b"\0" * 1048577)):
            self.check(frame(3, payload, flags=1) + HELLO_FRAME, [HELLO], damaged=1)


class FixtureTest(unittest.TestCase):
    def test_is_as_the_document_says(self):
        with open(os.path.join(WORK, "fixtures", "handshake.bin"), "rb") as file:
            self.assertEqual(file.read().hex(), b"".join(sealed(text) for _, text in EXAMPLE).hex())

    def test_is_what_the_tool_writes(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "recorded")
            subprocess.run([sys.executable, os.path.join(WORK, "tools", "record_fixture.py"), path], check=True)
            with open(path, "rb") as file:
                recorded = file.read()
        with open(os.path.join(WORK, "fixtures", "handshake.bin"), "rb") as file:
            self.assertEqual(file.read(), recorded)
