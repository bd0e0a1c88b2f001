"""What is under way, waiting and done, as numbers: all that a view shows, whatever is being worked on.

Every change costs the same, however much is under way. Nothing here draws.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

_RECENT = 200


@dataclass(slots=True)
class Item:
    """One thing under way."""

    label: str
    stage: str
    began: float
    stage_began: float


@dataclass(slots=True)
class Progress:
    """Things of one kind, each of which ends in one of a few buckets."""

    noun: str
    buckets: Sequence[str]
    clock: Callable[[], float] = time.monotonic
    total: int = 0
    counts: dict[str, int] = field(init=False)
    under_way: dict[Hashable, Item] = field(default_factory=dict)
    """In the order in which they began, so the oldest come first."""
    waiting: set[Hashable] = field(default_factory=set)
    spent_usd: float = 0.0
    memory: int | None = None
    held: str | None = None
    last_problem: str | None = None
    slowest: str | None = None
    began: float = field(init=False)
    _recent: deque[float] = field(init=False)
    """When the last ones ended; first of all, when the first one could begin."""

    def __post_init__(self) -> None:
        self.counts = dict.fromkeys(self.buckets, 0)
        self.began = self.clock()
        self._recent = deque([self.began], maxlen=_RECENT)

    @property
    def done(self) -> int:
        return sum(self.counts.values())

    @property
    def seconds(self) -> float:
        return self.clock() - self.began

    def expect(self, count: int = 1) -> None:
        self.total += count

    def enter(self, key: Hashable, label: str, stage: str) -> None:
        """A thing begins, or goes on to its next stage."""
        now = self.clock()
        item = self.under_way.get(key)
        if item is None:
            self.waiting.discard(key)
            self.under_way[key] = Item(label, stage, now, now)
        else:
            item.stage, item.stage_began = stage, now

    def wait(self, key: Hashable) -> None:
        """A thing is put aside, to begin again later."""
        self.under_way.pop(key, None)
        self.waiting.add(key)

    def leave(self, key: Hashable) -> None:
        """A thing that was not counted is over."""
        self.under_way.pop(key, None)
        self.waiting.discard(key)

    def end(self, key: Hashable, bucket: str, *, cost_usd: float = 0.0) -> None:
        self.under_way.pop(key, None)
        self.waiting.discard(key)
        self.counts[bucket] += 1
        self.spent_usd += cost_usd
        self._recent.append(self.clock())

    def rate(self) -> float | None:
        """How many end in a second: of late, so that a slow start is forgotten."""
        ended = len(self._recent) - 1
        passed = self.clock() - self._recent[0]
        return ended / passed if ended and passed > 0 else None

    def seconds_left(self) -> float | None:
        rate = self.rate()
        return (self.total - self.done) / rate if rate else None
