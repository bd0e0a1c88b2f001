"""Things that are lent to one task at a time."""

import asyncio
from collections import deque
from contextlib import asynccontextmanager


class PoolClosed(Exception):
    """The pool does not lend anything any more."""


class Pool:
    """Lends *items*; each is reset before somebody else gets it."""

    def __init__(self, items, reset=None):
        self._free = deque(items)
        self._size = len(self._free)
        self._reset = reset
        self._line = deque()  # futures of those who wait for an item
        self._closing = []  # futures of those who wait for the end
        self._closed = False

    @property
    def free(self):
        """How many items are not lent."""
        return len(self._free)

    async def acquire(self):
        """Borrow an item, as soon as there is one."""
        if self._closed:
            raise PoolClosed
        if self._free:
            return self._free.popleft()
        turn = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        return await turn

    async def release(self, item):
        """Give an item back."""
        if self._reset is not None:
            await self._reset(item)
        self._give_on(item)

    @asynccontextmanager
    async def lease(self):
        """An item for the time of a `with` block."""
        item = await self.acquire()
        try:
            yield item
        except Exception:
            await self.release(item)
            raise
        await self.release(item)

    async def close(self):
        """Lend nothing any more, and wait until everything is back."""
        self._closed = True
        while self._line:
            self._line.popleft().cancel()
        if len(self._free) < self._size:
            end = asyncio.get_running_loop().create_future()
            self._closing.append(end)
            await end

    def _give_on(self, item):
        while self._line:
            turn = self._line.popleft()
            if not turn.done():
                turn.set_result(item)
                return
        self._free.append(item)
        if self._closed and len(self._free) == self._size:
            for end in self._closing:
                if not end.done():
                    end.set_result(None)
