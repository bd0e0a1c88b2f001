"""What a formula consists of."""

from dataclasses import dataclass
from typing import Any, Tuple


@dataclass(frozen=True)
class Number:
    value: float


@dataclass(frozen=True)
class Name:
    name: str


@dataclass(frozen=True)
class Call:
    function: str
    arguments: Tuple[Any, ...]


@dataclass(frozen=True)
class Percent:
    operand: Any


@dataclass(frozen=True)
class Negative:
    operand: Any


@dataclass(frozen=True)
class Binary:
    operator: str
    left: Any
    right: Any
