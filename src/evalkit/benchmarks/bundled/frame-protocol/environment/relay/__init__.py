"""The relay protocol: see docs/PROTOCOL.md."""

from .frames import encode
from .messages import Bye, Data, Hello, Unknown
from .reader import FrameReader

__all__ = ["Bye", "Data", "FrameReader", "Hello", "Unknown", "encode"]
