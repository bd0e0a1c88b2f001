"""What stations say to each other."""

from dataclasses import dataclass
from datetime import datetime
from typing import Tuple


@dataclass(frozen=True)
class Hello:
    client: str
    features: int


@dataclass(frozen=True)
class Data:
    time: datetime
    channel: str
    readings: Tuple[Tuple[str, float], ...]


@dataclass(frozen=True)
class Bye:
    reason: str
    resume: bool


@dataclass(frozen=True)
class Unknown:
    """A message of a type that we do not know."""

    type: int
    flags: int
    payload: bytes
