"""Models as they are in use."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Dict, FrozenSet, List, Optional, Set, Tuple, Union


class Place(enum.Enum):
    NORTH = "n"
    SOUTH = "s"
    UP = "n"  # another name of NORTH


class Size(enum.IntEnum):
    SMALL = 1
    LARGE = 2


@dataclass
class Order:
    number: int
    placed: date
    lines: List[Line]
    stock: Dict[Place, int] = field(default_factory=dict)
    note: Optional[str] = None
    total: Decimal = field(init=False, default=Decimal(0))

    def __post_init__(self):
        self.total = sum((line.price for line in self.lines), Decimal(0))


@dataclass(frozen=True)
class Line:
    article: str
    price: Decimal


@dataclass(frozen=True)
class GiftLine(Line):
    card: Optional[Card] = None


@dataclass(frozen=True)
class BigGiftLine(GiftLine):
    weight: float = 0.0
    label: str = field(init=False, default="")


@dataclass(frozen=True)
class Card:
    text: str


@dataclass
class Containers:
    pair: Tuple[int, Line]
    many: Tuple[Line, ...]
    plain: list[Decimal]
    maybe: Optional[List[Line]]
    reverse: Union[None, Set[Place]]
    frozen: FrozenSet[date]
    nested: Dict[str, List[Dict[Size, Optional[Tuple[date, ...]]]]]
    anything: Any = None


@dataclass
class Keys:
    by_int: Dict[int, str] = field(default_factory=dict)
    by_bool: Dict[bool, str] = field(default_factory=dict)
    by_date: Dict[date, str] = field(default_factory=dict)
    by_time: Dict[datetime, str] = field(default_factory=dict)
    by_decimal: Dict[Decimal, str] = field(default_factory=dict)


@dataclass
class Scalars:
    text: str = ""
    number: int = 0
    ratio: float = 0.0
    flag: bool = False
    price: Decimal = Decimal(0)
    day: date = date(2000, 1, 1)
    moment: datetime = datetime(2000, 1, 1)
    data: bytes = b""
    place: Place = Place.SOUTH
    size: Size = Size.SMALL
    nothing: None = None


@dataclass
class Tree:
    name: str
    children: List[Tree] = field(default_factory=list)


@dataclass
class BadUnion:
    value: Union[Line, Card]


@dataclass
class BadType:
    value: complex = 1j


@dataclass
class BadKeys:
    value: Dict[bytes, int]
