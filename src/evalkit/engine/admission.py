"""Decides which attempt starts next, and when: shares, memory, retries that wait, and reasons to hold."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Generic, Protocol, TypeVar

import anyio


class Weighted(Protocol):
    """An entry of the queue, with the shares of the run and the bytes of memory that it takes."""

    @property
    def shares(self) -> int: ...

    @property
    def memory(self) -> int: ...


T = TypeVar("T", bound=Weighted)

_RECHECK_SECONDS = 1.0


@dataclass(slots=True)
class Admission(Generic[T]):
    """The one queue of a run. `next` returns an entry once it may start; `release` gives its shares back.

    Added entries go before `supply`, which is drawn from only when something may start. `held` gives the reason why
    nothing new may start, or None; one entry is always let through, so that a run cannot stall.
    """

    supply: Iterator[T]
    capacity: int
    memory_budget: int | None = None
    held: Callable[[], str | None] = lambda: None
    on_hold: Callable[[str | None], None] = lambda _reason: None

    _ready: deque[T] = field(default_factory=deque)
    _waiting: list[tuple[float, int, T]] = field(default_factory=list)
    _order: count[int] = field(default_factory=count)
    _shares: int = 0
    _memory: int = 0
    _running: int = 0
    _reason: str | None = None
    _resting_until: float = -math.inf
    _changed: anyio.Event = field(default_factory=anyio.Event)
    _stopped: bool = False
    _closed: bool = False

    def add(self, entry: T, *, delay: float = 0.0) -> None:
        if self._stopped:
            return
        if delay > 0:
            heapq.heappush(self._waiting, (anyio.current_time() + delay, next(self._order), entry))
        else:
            self._ready.append(entry)
        self._changed.set()

    def release(self, entry: T) -> None:
        self._shares -= self._shares_of(entry)
        self._memory -= entry.memory
        self._running -= 1
        self._changed.set()

    def pause(self, seconds: float) -> None:
        """Let nothing start for this time."""
        if seconds > 0:
            self._resting_until = max(self._resting_until, anyio.current_time() + seconds)

    def stop(self) -> None:
        """Let nothing more start, neither what is queued nor what is added later."""
        self._stopped = True
        self._ready.clear()
        self._waiting.clear()
        self._changed.set()

    def close(self, *, closed: bool = True) -> None:
        """Let nothing start as long as it is closed. What is queued stays so."""
        self._closed = closed
        self._changed.set()

    @property
    def running(self) -> int:
        return self._running

    @property
    def has_more(self) -> bool:
        """Whether anything waits for its start."""
        self._draw()
        return bool(self._ready or self._waiting)

    async def next(self) -> T | None:
        """The next entry that may start, or None when none is running and none may start any more."""
        while True:
            self._wake_waiting()
            self._draw()
            if not (self._running or (not self._closed and (self._ready or self._waiting))):
                return None
            pause: float | None = None
            if self._closed:
                await self._wait(None)
                continue
            if (rest := self._resting_until - anyio.current_time()) > 0:
                pause = rest
            elif self._ready and self._fits(self._ready[0]):
                if not self._is_held():
                    return self._admit(self._ready.popleft())
                pause = _RECHECK_SECONDS
            await self._wait(pause)

    def _is_held(self) -> bool:
        reason = self.held() if self._running else None
        if reason != self._reason:
            self._reason = reason
            self.on_hold(reason)
        return reason is not None

    def _fits(self, entry: T) -> bool:
        if not self._running:
            return True
        within_memory = self.memory_budget is None or self._memory + entry.memory <= self.memory_budget
        return self._shares + self._shares_of(entry) <= self.capacity and within_memory

    def _shares_of(self, entry: T) -> int:
        return min(entry.shares, self.capacity)

    def _admit(self, entry: T) -> T:
        self._shares += self._shares_of(entry)
        self._memory += entry.memory
        self._running += 1
        return entry

    def _draw(self) -> None:
        if not (self._ready or self._stopped):
            self._ready.extend(islice(self.supply, 1))

    def _wake_waiting(self) -> None:
        while self._waiting and self._waiting[0][0] <= anyio.current_time():
            self._ready.append(heapq.heappop(self._waiting)[2])

    async def _wait(self, pause: float | None) -> None:
        if self._waiting:
            until = max(0.0, self._waiting[0][0] - anyio.current_time())
            pause = until if pause is None else min(pause, until)
        if self._changed.is_set():
            self._changed = anyio.Event()
        if pause is None:
            await self._changed.wait()
            return
        with anyio.move_on_after(pause):
            await self._changed.wait()
